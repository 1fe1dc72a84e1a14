"""Images to arrays, held against arithmetic written out here rather than against the code's own."""

from __future__ import annotations

import io
import json
import math
import os
import struct
import time
import tracemalloc
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s2mlp_deploy.errors import ImageError, PreprocessingError
from s2mlp_deploy.preprocess import Preprocessing, load_sidecar, open_image, preprocess, to_array

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def plain(size: tuple[int, int], **fields: object) -> Preprocessing:
    """A description that leaves pixel values as they are, so that geometry can be read off the array."""
    channels = 1 if fields.get("color") == "L" else 3
    fields = {"mean": (0,) * channels, "std": (1,) * channels, "scale": 1, **fields}
    return Preprocessing(size, **fields)  # type: ignore[arg-type]


def noise(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def claimed_png(width: int, height: int) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(bytes(1000))) + png_chunk(b"IEND", b"")


class TestDescription:
    def test_reads_a_timm_pretrained_cfg(self) -> None:
        description = Preprocessing.from_dict(
            {
                "url": "",
                "num_classes": 1000,
                "input_size": [3, 224, 256],
                "test_input_size": [3, 288, 288],
                "min_input_size": [3, 32, 32],
                "pool_size": None,
                "crop_pct": 0.9,
                "crop_mode": "squash",
                "interpolation": "bilinear",
                "mean": list(IMAGENET["mean"]),
                "std": list(IMAGENET["std"]),
                "classifier": "head",
            }
        )
        assert description == Preprocessing(
            (224, 256), **IMAGENET, interpolation="bilinear", crop_pct=0.9, crop_mode="squash"
        )

    def test_one_channel_of_timm_means_luma(self) -> None:
        assert Preprocessing.from_dict({"input_size": [1, 8, 8], "mean": [0.5], "std": [0.5]}).color == "L"

    def test_nulls_count_as_absent(self) -> None:
        description = Preprocessing.from_dict({"size": 8, **IMAGENET, "crop_mode": None, "crop_pct": None})
        assert description == Preprocessing((8, 8), **IMAGENET)

    @pytest.mark.parametrize("size", [32, [32, 32], (32, 32)])
    @pytest.mark.parametrize("key", ["size", "image_size"])
    def test_sizes(self, key: str, size: object) -> None:
        assert Preprocessing.from_dict({key: size, **IMAGENET}).size == (32, 32)

    @pytest.mark.parametrize(
        "description",
        [
            Preprocessing((224, 192), **IMAGENET, interpolation="lanczos", crop_pct=0.875, crop_mode="border"),
            Preprocessing((8, 8), (0.5,), (0.25,), color="L", interpolation="none"),
            Preprocessing((8, 8), (103.94, 116.78, 123.68), (1, 1, 1), color="BGR", scale=1),
        ],
    )
    def test_round_trip_through_json(self, description: Preprocessing) -> None:
        assert Preprocessing.from_dict(json.loads(json.dumps(description.to_dict()))) == description

    @pytest.mark.parametrize(
        ("change", "field", "fix"),
        [
            ({"size": [32]}, "size", "[height, width]"),
            ({"size": [32, 32, 32]}, "size", "[height, width]"),
            ({"size": [32, 0]}, "size", "above 0"),
            ({"size": [32.5, 32]}, "size", "whole"),
            ({"size": True}, "size", "whole"),
            ({"size": "32"}, "size", "whole"),
            ({"size": [10**6, 10**6]}, "size", "pixels"),
            ({"image_size": 48}, "size and image_size", "keep one"),
            ({"input_size": [3, 32]}, "input_size", "[channels, height, width]"),
            ({"input_size": [4, 32, 32]}, "input_size", "3 channels"),
            ({"std": [0.2, 0, 0.2]}, "std", "above 0"),
            ({"std": [0.2, -1, 0.2]}, "std", "above 0"),
            ({"std": [0.2, math.nan, 0.2]}, "std", "finite"),
            ({"mean": [0.5, 0.5]}, "mean", "3"),
            ({"mean": [0.5]}, "mean", "3"),
            ({"mean": 0.5}, "mean", "list of 3"),
            ({"mean": [0.5, "0.5", 0.5]}, "mean", "number"),
            ({"mean": [123.7, 116.3, 103.5]}, "mean", "scale to 1"),
            ({"color": "L"}, "mean", "one for each channel of L"),
            ({"color": "rgba"}, "color", "RGB, BGR, L"),
            ({"interpolation": "cubic"}, "interpolation", "bicubic"),
            ({"interpolation": 3}, "interpolation", "bicubic"),
            ({"interpolation": "none", "crop_pct": 0.9}, "interpolation", "drop one"),
            ({"crop_mode": "middle"}, "crop_mode", "center"),
            ({"crop_pct": 0}, "crop_pct", "above 0"),
            ({"crop_pct": 1.1}, "crop_pct", "at most 1"),
            ({"crop_pct": "0.9"}, "crop_pct", "number"),
            ({"scale": 0}, "scale", "1/255"),
            ({"interpolaton": "bicubic"}, "interpolaton", "did you mean 'interpolation'"),
            ({"img_size": 32}, "img_size", "did you mean 'image_size'"),
        ],
    )
    def test_bad_values_name_the_field_and_the_fix(self, change: dict[str, object], field: str, fix: str) -> None:
        with pytest.raises(PreprocessingError) as caught:
            Preprocessing.from_dict({"size": [32, 32], **IMAGENET, **change})
        assert caught.value.where == field
        assert fix in str(caught.value.fix)

    @pytest.mark.parametrize("field", ["size", "mean", "std"])
    def test_what_has_no_default_is_asked_for(self, field: str) -> None:
        values = {"size": 8, **IMAGENET}
        del values[field]
        with pytest.raises(PreprocessingError, match=f"{field} is missing"):
            Preprocessing.from_dict(values)


class TestSidecar:
    def write(self, folder: Path, content: object) -> Path:
        path = folder / "model.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return path

    def test_all_parts(self, tmp_path: Path) -> None:
        content = {
            "architecture": "net",
            "config": {"image_size": 48},
            "mean": [0.4914, 0.4822, 0.4465],
            "std": [0.247, 0.2435, 0.2616],
            "image_size": [32, 32],
            "interpolation": "none (already 32x32)",
            "color": "RGB",
            "classes": ["cat", "dog"],
            "test_accuracy": 0.8,
            "test_images": 10000,
        }
        sidecar = load_sidecar(self.write(tmp_path, content))
        assert sidecar.architecture == "net"
        assert sidecar.config == {"image_size": 48}
        assert sidecar.classes == ("cat", "dog")
        wanted = Preprocessing((32, 32), (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616), interpolation="none")
        assert sidecar.preprocessing == wanted

    @pytest.mark.parametrize("key", ["pretrained_cfg", "preprocessing"])
    def test_nested_preprocessing(self, tmp_path: Path, key: str) -> None:
        content = {"architecture": "net", key: {"input_size": [3, 8, 8], **IMAGENET}}
        assert load_sidecar(self.write(tmp_path, content)).preprocessing == Preprocessing((8, 8), **IMAGENET)

    def test_silence_about_preprocessing_is_none(self, tmp_path: Path) -> None:
        sidecar = load_sidecar(self.write(tmp_path, {"config": {"depth": 3}}))
        assert sidecar.preprocessing is None
        assert sidecar.classes is None
        assert sidecar.architecture is None

    def test_facts_of_timm_that_are_like_ours_are_no_slips(self, tmp_path: Path) -> None:
        cfg = {"input_size": [3, 8, 8], "test_input_size": [3, 9, 9], "pool_size": [7, 7], "num_classes": 2, **IMAGENET}
        content = {"architecture": "net", "num_classes": 2, "num_features": 8, "global_pool": "", "pretrained_cfg": cfg}
        sidecar = load_sidecar(self.write(tmp_path, content | {"label_names": ["n01", "n02"]}))
        assert sidecar.preprocessing == Preprocessing((8, 8), **IMAGENET)
        assert sidecar.classes == ("n01", "n02")

    def test_byte_order_mark(self, tmp_path: Path) -> None:
        assert load_sidecar(self.write(tmp_path, b'\xef\xbb\xbf{"architecture": "net"}')).architecture == "net"

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"", "not JSON"),
            (b"{'mean': 1}", "not JSON"),
            (b"\xff\xfe\x00", "not JSON"),
            ([1, 2], "no JSON object"),
            ({"architecture": 3}, "architecture"),
            ({"config": [1]}, "config"),
            ({"classes": 10}, "classes"),
            ({"classes": []}, "classes"),
            ({"classes": ["a", 1]}, "classes"),
            ({"pretrained_cfg": "default"}, "preprocessing"),
            ({"class_names": ["cat", "dog"]}, "did you mean 'classes'?"),
            ({"labels": ["cat", "dog"]}, "did you mean 'classes'?"),
            ({"Classes": ["cat", "dog"]}, "did you mean 'classes'?"),
            ({"architectur": "net"}, "did you mean 'architecture'?"),
            ({"size": 8, "image_mean": [0, 0, 0], "std": [1, 1, 1]}, "did you mean 'mean'?"),
            ({"size": 8, "means": [0, 0, 0], "std": [1, 1, 1]}, "did you mean 'mean'?"),
            ({"size": 8, **IMAGENET, "colour": "BGR"}, "did you mean 'color'?"),
            ({"size": 8, **IMAGENET, "crop_percent": 0.9}, "did you mean 'crop_pct'?"),
            ({"preprocessing": {"size": 8, **IMAGENET, "gamma": 2.2}}, "known are size"),
            ({"image_size": 32}, "mean is missing"),
            ({"image_size": 32, "mean": [0, 0, 0], "std": [1, 0, 1]}, "std"),
        ],
    )
    def test_bad_files_are_named(self, tmp_path: Path, content: object, says: str) -> None:
        path = self.write(tmp_path, content)
        with pytest.raises(PreprocessingError) as caught:
            load_sidecar(path)
        assert says in str(caught.value)
        assert str(path) in str(caught.value.where)

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(PreprocessingError, match="cannot be read"):
            load_sidecar(tmp_path / "absent.json")


class TestDecoding:
    @pytest.mark.parametrize(
        ("orientation", "turn"),
        [
            (1, lambda a: a),
            (2, lambda a: a[:, ::-1]),
            (3, lambda a: np.rot90(a, 2)),
            (4, lambda a: a[::-1]),
            (5, lambda a: a.transpose(1, 0, 2)),
            (6, lambda a: np.rot90(a, -1)),
            (7, lambda a: np.rot90(a, 2).transpose(1, 0, 2)),
            (8, lambda a: np.rot90(a, 1)),
            (9, lambda a: a),
        ],
    )
    @pytest.mark.parametrize("kind", ["PNG", "TIFF"])
    def test_exif_orientation(self, kind: str, orientation: int, turn) -> None:
        pixels = noise(3, 5)
        exif = Image.Exif()
        exif[0x0112] = orientation
        decoded = open_image(encoded(Image.fromarray(pixels), kind, exif=exif))
        np.testing.assert_array_equal(np.asarray(decoded), turn(pixels))

    def test_orientation_in_a_jpeg(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        left_dark = np.zeros((16, 32, 3), np.uint8)
        left_dark[:, 16:] = 255
        decoded = np.asarray(open_image(encoded(Image.fromarray(left_dark), "JPEG", exif=exif)))
        assert decoded.shape == (32, 16, 3)  # turned clockwise: the left side comes to the top
        assert decoded[:12].max() < 30
        assert decoded[20:].min() > 225

    def test_damaged_exif_does_not_cost_the_image(self) -> None:
        data = encoded(Image.fromarray(noise(4, 4)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert open_image(data).size == (4, 4)

    def test_cmyk(self) -> None:
        ink = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255], [0, 255, 255, 0]]], np.uint8)
        decoded = np.asarray(open_image(encoded(Image.fromarray(ink, "CMYK"), "TIFF")))
        np.testing.assert_array_equal(decoded, [[[255, 255, 255], [0, 255, 255], [0, 0, 0], [255, 0, 0]]])

    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
    def test_sixteen_bit_grey_is_scaled_not_clipped(self, kind: str) -> None:
        levels = np.array([[0, 255, 256, 257 * 7, 32768, 257 * 200, 65535]], np.uint16)
        decoded = np.asarray(open_image(encoded(Image.fromarray(levels), kind)))
        np.testing.assert_array_equal(decoded[0, :, 0], [0, 0, 1, 7, 128, 200, 255])
        assert (decoded == decoded[..., :1]).all()

    def test_sixteen_bit_agrees_between_grey_and_colour(self) -> None:
        levels = np.arange(0, 65536, 77, dtype=">u2")
        colour = np.repeat(levels[None, :, None], 3, axis=2)
        header = struct.pack(">IIBBBBB", levels.size, 1, 16, 2, 0, 0, 0)
        data = png_chunk(b"IDAT", zlib.compress(b"\0" + colour.tobytes()))
        rgb16 = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + data + png_chunk(b"IEND", b"")
        grey16 = encoded(Image.fromarray(levels[None].astype(np.uint16)))
        np.testing.assert_array_equal(np.asarray(open_image(grey16)), np.asarray(open_image(rgb16)))

    def test_twelve_bit_tiff(self) -> None:
        # Two 12-bit pixels, 0xFFF and 0x800, in three bytes; Pillow reads such files but cannot write them.
        tags = [(256, 3, 2), (257, 3, 1), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
        tags += [(278, 3, 1), (279, 4, 3)]
        entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
        directory = struct.pack("<H", len(tags)) + entries + bytes(4)
        data = b"II*\0" + struct.pack("<I", 12) + bytes([0xFF, 0xF8, 0x00]) + b"\0" + directory
        assert np.asarray(open_image(data))[0, :, 0].tolist() == [255, 128]

    def test_grey_of_unknown_range_is_refused(self) -> None:
        for levels in (np.array([[0.0, 0.5]], np.float32), np.array([[0, 70000]], np.int32)):
            with pytest.raises(ImageError, match="neither 8 nor 16 bit"):
                open_image(encoded(Image.fromarray(levels), "TIFF"))

    def test_alpha_is_dropped_like_convert_does(self) -> None:
        pixels = np.array([[[10, 20, 30, 0], [40, 50, 60, 128], [70, 80, 90, 255]]], np.uint8)
        decoded = np.asarray(open_image(encoded(Image.fromarray(pixels))))
        np.testing.assert_array_equal(decoded, pixels[..., :3])
        grey = np.array([[[9, 0], [200, 77]]], np.uint8)
        decoded = np.asarray(open_image(encoded(Image.fromarray(grey, "LA"))))
        np.testing.assert_array_equal(decoded, [[[9] * 3, [200] * 3]])

    @pytest.mark.parametrize("transparency", [None, 1, b"\x80\x00\xff"])
    @pytest.mark.parametrize("kind", ["PNG", "GIF"])
    def test_palette(self, kind: str, transparency: object) -> None:
        if kind == "GIF" and isinstance(transparency, bytes):
            pytest.skip("a GIF has one transparent colour")
        image = Image.new("P", (3, 1))
        image.putpalette([255, 0, 0, 0, 255, 0, 1, 2, 3])
        image.putdata([0, 1, 2])
        options = {} if transparency is None else {"transparency": transparency}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            decoded = np.asarray(open_image(encoded(image, kind, **options)))
        np.testing.assert_array_equal(decoded, [[[255, 0, 0], [0, 255, 0], [1, 2, 3]]])

    def test_grey_and_black_and_white(self) -> None:
        grey = np.array([[0, 100, 255]], np.uint8)
        for image in (Image.fromarray(grey), Image.fromarray(grey > 50)):
            decoded = open_image(encoded(image))
            assert decoded.mode == "RGB"
            expected = np.asarray(image.convert("L"))
            np.testing.assert_array_equal(np.asarray(decoded), np.stack([expected] * 3, axis=-1))

    @pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
    def test_first_frame_of_an_animation(self, kind: str) -> None:
        frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 0, 255))]
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert np.asarray(open_image(data))[2, 2].tolist() == [255, 0, 0]

    def test_image_is_independent_of_its_file(self, tmp_path: Path) -> None:
        path = tmp_path / "a.bmp"
        pixels = noise(6, 4)
        Image.fromarray(pixels).save(path)
        image = open_image(path)
        path.unlink()
        assert type(image) is Image.Image
        np.testing.assert_array_equal(np.asarray(image), pixels)


class TestRefusals:
    def refused(self, source: Path | bytes) -> ImageError:
        with pytest.raises(ImageError) as caught:
            open_image(source)
        assert caught.value.fix
        assert caught.value.where
        if isinstance(source, Path):
            assert str(source) in caught.value.where
        return caught.value

    @pytest.mark.parametrize(("width", "height"), [(50_000, 50_000), (178_956_971, 1), (13_378, 13_378)])
    def test_decompression_bomb(self, width: int, height: int) -> None:
        data = claimed_png(width, height)
        limit = Image.MAX_IMAGE_PIXELS
        tracemalloc.start()
        began = time.perf_counter()
        try:
            error = self.refused(data)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert time.perf_counter() - began < 1
        assert peak < 20e6
        assert "too large" in error.problem
        assert limit == Image.MAX_IMAGE_PIXELS

    @pytest.mark.parametrize("limit", [None, 10**9])
    def test_the_limit_is_ours_whatever_pillow_is_set_to(self, limit: int | None, monkeypatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert "too large" in self.refused(claimed_png(50_000, 50_000)).problem

    def test_a_warning_turned_error_is_an_image_error(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            assert "too large" in self.refused(claimed_png(10_000, 10_000)).problem

    def test_a_zip_called_png(self, tmp_path: Path) -> None:
        path = tmp_path / "archive.png"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "text")
        assert "zip archive" in self.refused(path).problem

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"", "empty"),
            (b"just some text", "not an image"),
            (b"\n <!DOCTYPE html><html>", "HTML"),
            (b"\0\0\0\x18ftypheic", "HEIC"),
            (b"%PDF-1.7", "PDF"),
            (b"\xff\xd8\xff\xe0 and no more", "damaged"),
            (b"\x89PNG\r\n\x1a\n", "damaged"),
            # A format that Pillow reads and we do not: PostScript is a program.
            (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n", "not an image"),
        ],
    )
    def test_other_content(self, tmp_path: Path, content: bytes, says: str) -> None:
        path = tmp_path / "a.jpg"
        path.write_bytes(content)
        assert says in self.refused(path).problem
        assert says in self.refused(content).problem

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM"])
    def test_truncated(self, tmp_path: Path, kind: str) -> None:
        data = encoded(Image.fromarray(noise(64, 64)), kind)
        path = tmp_path / "half"
        path.write_bytes(data[: len(data) // 2])
        assert "damaged" in self.refused(path).problem

    def test_flipped_bytes_never_escape_as_another_error(self) -> None:
        generator, refusals, images = np.random.default_rng(3), 0, 0
        for kind in ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM"):
            data = np.frombuffer(encoded(Image.fromarray(noise(16, 16)), kind), np.uint8)
            for _ in range(40):
                broken = data.copy()
                broken[generator.integers(0, min(100, broken.size), 3)] = generator.integers(0, 256, 3)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    try:
                        image = open_image(broken.tobytes())
                    except ImageError:
                        refusals += 1
                        continue
                assert image.mode == "RGB"
                images += 1
        assert min(refusals, images) > 20, "both must be seen"

    def test_places_that_are_no_file(self, tmp_path: Path) -> None:
        assert "folder" in self.refused(tmp_path).problem
        assert "does not exist" in self.refused(tmp_path / "absent.png").problem
        assert "cannot be opened" in self.refused(tmp_path / "nul\0.png").problem

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
    @pytest.mark.timeout(10)
    def test_a_named_pipe_does_not_hang(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.png")
        assert "regular file" in self.refused(tmp_path / "pipe.png").problem

    def test_where_can_be_named(self) -> None:
        with pytest.raises(ImageError) as caught:
            open_image(b"text", where="request 7")
        assert caught.value.where == "request 7"


class TestGeometry:
    """The steps of timm's evaluation transform, worked out by hand for each case."""

    def test_center_resizes_the_shorter_side_then_crops(self) -> None:
        # 50 x 81, target 32, crop_pct 0.8: scaled to 40, so 40 x 64 (81 * 40 / 50 = 64.8, truncated);
        # crop offsets (40 - 32) / 2 = 4 and (64 - 32) / 2 = 16.
        image = Image.fromarray(noise(50, 81))
        resized = np.asarray(image.resize((64, 40), Image.Resampling.BICUBIC))
        array = to_array(image, plain((32, 32), crop_pct=0.8))
        np.testing.assert_array_equal(array, resized[4:36, 16:48].transpose(2, 0, 1))

    def test_center_of_a_tall_image(self) -> None:
        image = Image.fromarray(noise(81, 50))
        resized = np.asarray(image.resize((40, 64), Image.Resampling.BILINEAR))
        array = to_array(image, plain((32, 32), crop_pct=0.8, interpolation="bilinear"))
        np.testing.assert_array_equal(array, resized[16:48, 4:36].transpose(2, 0, 1))

    def test_the_scaled_side_is_floored(self) -> None:
        # 32 / 0.95 = 33.68: 33, not 34; and (33 - 32) / 2 = 0.5 rounds to 0.
        image = Image.fromarray(noise(66, 66))
        resized = np.asarray(image.resize((33, 33), Image.Resampling.BICUBIC))
        array = to_array(image, plain((32, 32), crop_pct=0.95))
        np.testing.assert_array_equal(array, resized[:32, :32].transpose(2, 0, 1))

    @pytest.mark.parametrize(("width", "left"), [(33, 0), (35, 2), (37, 2), (39, 4)])
    def test_crop_offsets_round_halves_to_even(self, width: int, left: int) -> None:
        pixels = noise(32, width)
        array = to_array(Image.fromarray(pixels), plain((32, 32)))
        np.testing.assert_array_equal(array, pixels[:, left : left + 32].transpose(2, 0, 1))

    def test_center_with_a_target_that_is_not_square(self) -> None:
        # 60 x 60 to 20 x 30: ratios 3 and 2, the smaller one holds: 30 x 30, and rows 5 to 25 remain.
        image = Image.fromarray(noise(60, 60))
        resized = np.asarray(image.resize((30, 30), Image.Resampling.LANCZOS))
        array = to_array(image, plain((20, 30), interpolation="lanczos"))
        np.testing.assert_array_equal(array, resized[5:25].transpose(2, 0, 1))

    def test_squash(self) -> None:
        # 16 / 0.8 = 20 and 24 / 0.8 = 30, whatever the aspect ratio.
        image = Image.fromarray(noise(90, 41))
        resized = np.asarray(image.resize((30, 20), Image.Resampling.BOX))
        array = to_array(image, plain((16, 24), crop_pct=0.8, crop_mode="squash", interpolation="box"))
        np.testing.assert_array_equal(array, resized[2:18, 3:27].transpose(2, 0, 1))

    def test_border_pads_with_the_mean(self) -> None:
        # 40 x 85 into 32: ratio 85 / 32, so 15 x 32 (40 * 32 / 85 = 15.06); padding: 8 rows above, 9 below.
        image = Image.fromarray(noise(40, 85))
        resized = np.asarray(image.resize((32, 15), Image.Resampling.BICUBIC))
        expected = np.empty((32, 32, 3), np.uint8)
        expected[:] = (124, 116, 104)  # 255 * the mean, rounded
        expected[8:23] = resized
        description = Preprocessing((32, 32), (0.485, 0.456, 0.406), (1, 1, 1), crop_mode="border")
        array = to_array(image, description)
        pixels = (array + np.array(description.mean, np.float32)[:, None, None]) * 255
        np.testing.assert_allclose(pixels, expected.transpose(2, 0, 1), atol=1e-3)

    def test_border_with_a_crop_crops_one_axis_and_pads_the_other(self) -> None:
        # Target 32, crop_pct 0.8: the sides become 40 and 20. Columns 4 to 36; 6 rows above and below.
        image = Image.fromarray(noise(50, 100))
        resized = np.asarray(image.resize((40, 20), Image.Resampling.BICUBIC))
        array = to_array(image, plain((32, 32), crop_pct=0.8, crop_mode="border"))
        expected = np.zeros((32, 32, 3), np.uint8)
        expected[6:26] = resized[:, 4:36]
        np.testing.assert_array_equal(array, expected.transpose(2, 0, 1))

    def test_border_fill_of_bgr_and_of_luma(self) -> None:
        wide = Image.new("RGB", (8, 2), (255, 255, 255))
        bgr = to_array(wide, plain((8, 8), mean=(10, 20, 30), color="BGR", crop_mode="border"))
        np.testing.assert_array_equal(bgr[:, 0, 0], 0)  # the padding is the mean, so it normalises to zero
        luma = to_array(wide, plain((8, 8), mean=(77,), color="L", crop_mode="border"))
        assert luma[0, 0, 0] == 0
        assert luma[0, 4, 4] == 255 - 77

    @pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
    @pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (31, 33), (7, 3)])
    @pytest.mark.parametrize("target", [(32, 32), (16, 40)])
    def test_any_size_comes_out_at_the_target(
        self, crop_mode: str, size: tuple[int, int], target: tuple[int, int]
    ) -> None:
        image = Image.fromarray(noise(*size))
        assert to_array(image, plain(target, crop_mode=crop_mode, crop_pct=0.9)).shape == (3, *target)

    def test_sides_too_unequal_are_refused_before_the_resize(self) -> None:
        with pytest.raises(ImageError, match="too unequal"):
            to_array(Image.new("RGB", (1_000_000, 1)), plain((224, 224)))

    def test_none_wants_the_size(self) -> None:
        pixels = noise(4, 6)
        array = to_array(Image.fromarray(pixels), plain((4, 6), interpolation="none"))
        np.testing.assert_array_equal(array, pixels.transpose(2, 0, 1))
        with pytest.raises(ImageError, match="4x6") as caught:
            to_array(Image.fromarray(pixels), plain((6, 4), interpolation="none"), where="a.png")
        assert caught.value.where == "a.png"


class TestValues:
    def test_normalisation_is_torchs_to_the_last_bit(self) -> None:
        torch = pytest.importorskip("torch")
        pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
        array = to_array(Image.fromarray(pixels), Preprocessing((16, 16), **IMAGENET, interpolation="none"))
        tensor = torch.from_numpy(pixels).permute(2, 0, 1).to(torch.float32).div(255)
        mean, std = (torch.tensor(IMAGENET[key])[:, None, None] for key in ("mean", "std"))
        np.testing.assert_array_equal(array, tensor.sub(mean).div(std).numpy())

    def test_normalisation_in_double_precision(self) -> None:
        pixels = noise(5, 5)
        array = to_array(Image.fromarray(pixels), Preprocessing((5, 5), **IMAGENET, interpolation="none"))
        expected = (pixels.astype(np.float64) / 255 - IMAGENET["mean"]) / IMAGENET["std"]
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        np.testing.assert_allclose(array, expected.transpose(2, 0, 1), atol=1e-6)

    def test_bgr_reverses_channels_and_means_follow(self) -> None:
        image = Image.new("RGB", (2, 2), (10, 20, 30))
        array = to_array(image, plain((2, 2), color="BGR", mean=(1, 2, 3), std=(1, 2, 3)))
        assert array[:, 0, 0].tolist() == [29, 9, pytest.approx(7 / 3)]

    def test_luma(self) -> None:
        image = Image.new("RGB", (2, 2), (200, 100, 50))
        array = to_array(image, plain((2, 2), color="L"))
        assert array.shape == (1, 2, 2)
        assert array[0, 0, 0] == round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
        grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
        luma = to_array(grey, plain((16, 16), color="L"))
        np.testing.assert_array_equal(luma[0], np.asarray(grey))

    def test_to_array_leaves_its_image_alone(self) -> None:
        image = Image.fromarray(noise(9, 9))
        before = image.tobytes()
        to_array(image, plain((4, 4)))
        assert image.tobytes() == before

    def test_batches_of_paths_bytes_and_images(self, tmp_path: Path) -> None:
        pixels = noise(4, 4)
        path = tmp_path / "a.png"
        Image.fromarray(pixels).save(path)
        batch = preprocess([path, path.read_bytes(), Image.fromarray(pixels)], plain((4, 4)))
        assert batch.shape == (3, 3, 4, 4)
        assert batch.dtype == np.float32
        for row in batch:
            np.testing.assert_array_equal(row, pixels.transpose(2, 0, 1))
        assert preprocess([], plain((4, 4))).shape == (0, 3, 4, 4)

    def test_a_broken_one_among_many_is_named(self) -> None:
        good = encoded(Image.fromarray(noise(4, 4)))
        with pytest.raises(ImageError) as caught:
            preprocess([good, b"text"], plain((4, 4)))
        assert caught.value.where == "image 1"
