"""Decoding images, and refusing what is none."""

from __future__ import annotations

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
from preprocess_images import claimed_png, encoded, noise, png_chunk

from s2mlp_deploy.errors import ImageError
from s2mlp_deploy.preprocess import open_image


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
        began = time.process_time()
        try:
            error = self.refused(data)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert time.process_time() - began < 1
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


@pytest.mark.parametrize("size", [(1, 170_000_000), (70_000, 1), (65_536, 2)])
def test_a_side_that_no_image_has_is_refused_before_decoding(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="too large to decode safely"):
        open_image(claimed_png(*size))
