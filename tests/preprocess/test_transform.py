"""Images to arrays, held against arithmetic written out here rather than against the code's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from preprocess_images import IMAGENET, encoded, noise, plain

from s2mlp_deploy.errors import ImageError
from s2mlp_deploy.preprocess import Preprocessing, preprocess, to_array


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
