"""The one way to data: batches of feeds, whatever the user named."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import pack, put
from PIL import Image

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.data.dataset import ModelData, open_data
from s2mlp_deploy.errors import DataError, ImageError, PreprocessingError
from s2mlp_deploy.preprocess import Preprocessing, open_image

PLAIN = Preprocessing((4, 4), (0, 0, 0), (1, 1, 1), scale=1)
IMAGE = TensorInfo("input", "float32", ("batch", 3, 4, 4))
PIXELS = TensorInfo("image", "uint8", ("batch", "height", "width", 3))
PAIR = (TensorInfo("left", "float32", ("batch", 2)), TensorInfo("right", "int64", ("batch",)))


def opened(what: Any, *inputs: TensorInfo, **options: Any) -> ModelData:
    options = {"minimum": 1, "preprocessing": PLAIN} | options
    return open_data(what, inputs=inputs or (IMAGE,), **options)


def stacked(data: ModelData) -> tuple[dict[str, np.ndarray], list[int]]:
    """Everything the data gives, in one piece."""
    parts = list(data)
    names = parts[0][0]
    labels = [int(label) for _, some in parts if some is not None for label in some]
    return {name: np.concatenate([feeds[name] for feeds, _ in parts]) for name in names}, labels


def reds(data: ModelData) -> list[int]:
    """The red value of each sample: what ``put`` numbers images by."""
    return stacked(data)[0]["input"][:, 0, 0, 0].astype(int).tolist()


def pixels(count: int) -> np.ndarray:
    array = np.zeros((count, 4, 4, 3), np.uint8)
    array[..., 0] = np.arange(count)[:, None, None]
    return array


class TestImages:
    def test_every_way_to_name_the_same_images_gives_the_same_feeds_and_hash(self, tmp_path: Path) -> None:
        folder = tmp_path / "set"
        put(folder, *(f"{i:02}.png" for i in range(10)))
        np.save(tmp_path / "a.npy", pixels(10))
        images = [Image.fromarray(array) for array in pixels(10)]
        files = [folder, pack(folder, tmp_path / "a.zip"), sorted(folder.iterdir())]
        others = [tmp_path / "a.npy", pixels(10), {"input": pixels(10)}, list(pixels(10)), images]
        for group in (files, others):
            found = [opened(what, batch=3) for what in group]
            for data in found:
                assert reds(data) == list(range(10))
                assert reds(data) == list(range(10)), "an iteration can be repeated"
                assert (data.count, len(data), data.used, data.duplicates) == (10, 4, 10, 0)
            assert len({data.content_hash for data in found[:3]}) == 1

    def test_labels_and_the_models_classes(self, tmp_path: Path) -> None:
        put(tmp_path, "dog/1.png", "cat/1.png", "cat/2.png")
        data = opened(tmp_path, classes=["horse", "dog", "cat"])
        assert stacked(data)[1] == [2, 2, 1]
        assert data.labelled
        assert data.class_names == ("horse", "dog", "cat")
        assert data.described == f"3 images of {tmp_path.name}"

    def test_the_path_in_an_archive_is_in_the_description(self, tmp_path: Path) -> None:
        put(tmp_path / "set", "test/cat/1.png", "train/cat/1.png")
        pack(tmp_path / "set", tmp_path / "a.tar.gz")
        assert opened(str(tmp_path / "a.tar.gz" / "test")).described == "1 images of a.tar.gz/test"

    def test_a_graph_that_preprocesses_gets_pixels_one_image_at_a_time(self, tmp_path: Path) -> None:
        put(tmp_path, "a.png", "b.png")
        Image.new("RGB", (7, 5)).save(tmp_path / "c.png")
        found = [feeds["image"] for feeds, _ in opened(tmp_path, PIXELS, preprocessing=None)]
        assert [array.shape for array in found] == [(1, 4, 4, 3), (1, 4, 4, 3), (1, 5, 7, 3)]
        assert all(array.dtype == np.uint8 for array in found)
        np.testing.assert_array_equal(found[1][0], np.asarray(open_image(tmp_path / "b.png")))
        fixed = opened(tmp_path, TensorInfo("image", "uint8", (2, "height", "width", 3)))
        assert [feeds["image"].shape[0] for feeds, _ in fixed] == [2, 2, 2]
        assert (fixed.count, len(fixed)) == (6, 3)
        assert fixed.described.startswith("raw pixels of 3 images")

    def test_grey_pixels(self) -> None:
        for array in (pixels(9)[..., 0], pixels(9)[..., :1]):
            assert reds(opened(array)) == list(range(9))

    def test_channels_first_pixels_name_the_transposition(self) -> None:
        with pytest.raises(DataError, match=r"transpose\(0, 2, 3, 1\)"):
            opened(np.zeros((9, 3, 8, 8), np.uint8))

    def test_a_wrong_number_of_channels(self) -> None:
        with pytest.raises(DataError, match="5 channels"):
            opened(np.zeros((9, 4, 4, 5), np.uint8))

    def test_no_preprocessing_is_configured(self, tmp_path: Path) -> None:
        put(tmp_path, "a.png")
        with pytest.raises(PreprocessingError, match="--preprocess"):
            opened(tmp_path, preprocessing=None)
        with pytest.raises(PreprocessingError, match="2 inputs") as caught:
            opened(tmp_path, *PAIR)
        assert "left, right" in str(caught.value.fix)

    def test_a_preprocessing_of_another_size_than_the_models(self, tmp_path: Path) -> None:
        put(tmp_path, "a.png")
        with pytest.raises(DataError, match=r"\[3, 4, 4\], the model takes \[3, 8, 8\]"):
            opened(tmp_path, TensorInfo("input", "float32", ("batch", 3, 8, 8)))


class TestHowMany:
    def test_too_few(self, tmp_path: Path) -> None:
        put(tmp_path, *(f"{i}.png" for i in range(7)))
        with pytest.raises(DataError, match="only 7 samples, at least 8"):
            opened(tmp_path, minimum=8)
        put(tmp_path, *(f"{i}.png" for i in range(8)))
        assert len(reds(opened(tmp_path, minimum=8))) == 8
        with pytest.raises(DataError, match="--samples"):
            opened(tmp_path, minimum=8, samples=3)

    @pytest.mark.parametrize("walked", [0, 2, 4])
    def test_an_iteration_from_a_batch_on_counts_what_was_skipped_before(self, tmp_path: Path, walked: int) -> None:
        put(tmp_path, *(f"{i:02}.png" for i in range(12)))
        for name in ("01.png", "11.png"):
            (tmp_path / name).write_bytes(b"no image")
        data = opened(tmp_path, batch=3)
        for _ in zip(range(walked), data, strict=False):
            pass
        rest = [feeds["input"][:, 0, 0, 0].astype(int).tolist() for feeds, _ in data.from_batch(2)]
        assert rest == [[7, 8, 9], [10]]
        assert data.used == 10
        assert [path.name for path, _ in data.skipped.examples] == ["01.png", "11.png"]

    def test_broken_images_are_skipped_counted_and_told(self, tmp_path: Path) -> None:
        put(tmp_path, *(f"{i:02}.png" for i in range(12)))
        for name in ("00.png", "05.png"):
            (tmp_path / name).write_bytes(b"text")
        data = open_data(tmp_path, inputs=[IMAGE], preprocessing=PLAIN)
        for _ in range(2):
            assert reds(data) == [1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
            assert (data.count, data.used, data.skipped.count) == (12, 10, 2)
        # Both hold the same bytes, which is a fact about the data as well.
        assert ["duplicate" in warning for warning in data.warnings] == [True, False]
        assert "2 broken images were skipped" in data.warnings[1]
        assert "00.png" in data.warnings[1]
        with pytest.raises(ImageError, match=r"00\.png"):
            reds(opened(tmp_path, on_broken="raise"))

    def test_samples_are_called_by_their_path_whatever_was_skipped(self, tmp_path: Path) -> None:
        put(tmp_path / "b", *(f"{i:02}.png" for i in range(5)))
        (tmp_path / "b" / "01.png").write_bytes(b"broken")
        data = opened(tmp_path, batch=2)
        assert data.name_of(0) == "", "nobody has gone through it"
        list(data)
        assert [data.name_of(i) for i in range(5)] == ["b/00.png", "b/02.png", "b/03.png", "b/04.png", ""]
        four = opened(tmp_path, TensorInfo("image", "uint8", (4, "height", "width", 3)))
        list(four)
        assert [four.name_of(i) for i in (0, 3, 4, 15)] == ["b/00.png", "b/00.png", "b/02.png", "b/04.png"]

    def test_too_few_left_after_skipping(self, tmp_path: Path) -> None:
        put(tmp_path, *(f"{i:02}.png" for i in range(10)))
        for index in range(3):
            (tmp_path / f"{index:02}.png").write_bytes(b"text")
        with pytest.raises(DataError, match="Only 7 of 10 samples can be used"):
            list(opened(tmp_path, minimum=8))

    def test_a_fixed_batch_is_kept_to(self) -> None:
        fixed = TensorInfo("input", "float32", (4, 3, 4, 4))
        data = opened(pixels(11), fixed, batch=32)
        assert [feeds["input"].shape[0] for feeds, _ in data] == [4, 4]
        assert (data.batch, data.count, data.used) == (4, 8, 8)
        with pytest.raises(DataError, match="takes batches of 4, and there are only 3"):
            opened(pixels(3), fixed)

    @pytest.mark.parametrize("what", ["path", "array", "list", "generator"])
    def test_samples_are_drawn_by_seed(self, tmp_path: Path, what: str) -> None:
        put(tmp_path, *(f"{i:02}.png" for i in range(30)))
        make = {
            "path": lambda: tmp_path,
            "array": lambda: pixels(30),
            "list": lambda: list(pixels(30)),
            "generator": lambda: iter(pixels(30)),
        }[what]
        one, same, other = (reds(opened(make(), samples=10, seed=seed)) for seed in (1, 1, 2))
        assert one == same == sorted(set(one))
        assert len(one) == 10
        # A generator can only be walked through: its first ones are taken.
        assert (one == other == list(range(10))) if what == "generator" else one != other

    @pytest.mark.parametrize("samples", [0, -1])
    @pytest.mark.parametrize("what", [pixels(9), list(pixels(9)), iter(pixels(9))])
    def test_fewer_than_one(self, samples: int, what: Any) -> None:
        with pytest.raises(DataError, match="at least 1"):
            opened(what, samples=samples)


class TestContent:
    def test_the_hash_is_of_files_and_labels_in_order(self, tmp_path: Path) -> None:
        put(tmp_path / "one", "a/1.png", "b/1.png")
        expected = hashlib.sha256()
        for index, name in enumerate("ab"):
            content = (tmp_path / "one" / name / "1.png").read_bytes()
            expected.update(hashlib.sha256(content).digest() + f"{index}\n".encode())
        assert opened(tmp_path / "one").content_hash == expected.hexdigest()
        # Names are not in it ...
        (tmp_path / "one").rename(tmp_path / "two")
        (tmp_path / "two" / "b").rename(tmp_path / "two" / "c")
        assert opened(tmp_path / "two", batch=1).content_hash == expected.hexdigest()
        # ... the order is ...
        (tmp_path / "two" / "a").rename(tmp_path / "two" / "d")
        assert opened(tmp_path / "two").content_hash != expected.hexdigest()

    def test_one_value_changes_the_hash_of_arrays(self) -> None:
        array = np.zeros((9, 2), np.float32)
        changed = array.copy()
        changed[8, 1] = 1e-30
        info = TensorInfo("x", "float32", ("batch", 2))
        hashes = {opened(what, info).content_hash for what in (array, changed, array[:8])}
        assert len(hashes) == 3
        assert opened(array, info).duplicates == 8

    def test_duplicates_are_counted(self, tmp_path: Path) -> None:
        put(tmp_path, "a/1.png", "a/2.png", "b/3.png")
        (tmp_path / "b" / "4.png").write_bytes((tmp_path / "a" / "1.png").read_bytes())
        data = opened(tmp_path)
        assert data.duplicates == 1
        assert data.warnings == ("1 of 4 samples are duplicates of others",)

    def test_progress_is_told(self, tmp_path: Path) -> None:
        put(tmp_path, "a.png", "b.png")
        told: list[tuple[str, int, int | None]] = []
        assert opened(tmp_path, progress=lambda *step: told.append(step)).content_hash
        assert told == [("hashing the data", done, 2) for done in (0, 1, 2)]


class TestReadyInputs:
    def test_arrays_by_name(self, tmp_path: Path) -> None:
        left, right = np.random.default_rng(0).standard_normal((10, 2)), np.arange(10)
        np.savez(tmp_path / "a.npz", right=right, left=left, labels=right % 3)
        items = [{"left": left[i], "right": right[i], "labels": i % 3} for i in range(10)]
        pairs = [({"left": left[i], "right": right[i]}, i % 3) for i in range(10)]
        batched = [({"left": left[i : i + 5], "right": right[i : i + 5]}, right[i : i + 5] % 3) for i in (0, 5)]
        for what in (tmp_path / "a.npz", items, pairs, batched, iter(items), {"left": left, "right": right}):
            data = opened(what, *PAIR, preprocessing=None, batch=4)
            feeds, labels = stacked(data)
            assert list(feeds) == ["left", "right"]
            assert [feeds[name].dtype for name in feeds] == [np.float32, np.int64]
            np.testing.assert_array_equal(feeds["left"], left.astype(np.float32))
            np.testing.assert_array_equal(feeds["right"], right)
            assert labels == ([] if isinstance(what, dict) else [i % 3 for i in range(10)])
            assert data.labelled is (not isinstance(what, dict))

    def test_a_lone_array_may_have_any_name(self, tmp_path: Path) -> None:
        array = np.random.default_rng(0).standard_normal((9, 3, 4, 4)).astype(np.float32)
        np.savez(tmp_path / "a.npz", whatever=array)
        np.save(tmp_path / "a.npy", array.astype(np.float64))
        for what in (tmp_path / "a.npz", tmp_path / "a.npy", array, list(array), [array[:5], array[5:]]):
            np.testing.assert_array_equal(stacked(opened(what, preprocessing=None))[0]["input"], array)
        assert opened(array).described == "9 samples of a Python ndarray"

    def test_a_missing_input(self) -> None:
        with pytest.raises(DataError, match="no array for the input right"):
            opened({"left": np.zeros((9, 2)), "wrong": np.zeros(9)}, *PAIR)

    def test_a_wrong_shape(self) -> None:
        with pytest.raises(DataError, match=r"shape \[3, 4, 5\], the model takes \[3, 4, 4\]"):
            opened(np.zeros((9, 3, 4, 5), np.float32))

    @pytest.mark.parametrize(("kind", "wanted"), [(np.int64, "float32"), (np.float32, "int64"), (np.uint8, "float32")])
    def test_a_wrong_type(self, kind: type, wanted: str) -> None:
        with pytest.raises(DataError, match=f"store it as {wanted}"):
            opened(np.zeros((9, 2), kind), TensorInfo("x", wanted, ("batch", 2)))

    def test_not_a_number_names_the_sample(self) -> None:
        array = np.zeros((9, 2), np.float32)
        array[4, 1] = np.nan
        with pytest.raises(DataError, match="NaN") as caught:
            list(opened(array, TensorInfo("x", "float32", ("batch", 2))))
        assert str(caught.value.where).endswith("4")

    def test_samples_of_several_shapes_need_a_batch_of_one(self) -> None:
        items = [np.zeros((3, side), np.float32) for side in (4, 5) * 5]
        info = TensorInfo("x", "float32", ("batch", 3, "width"))
        with pytest.raises(DataError, match="batch size of 1"):
            list(opened(items, info))
        assert len(list(opened(items, info, batch=1))) == 10


class TestPython:
    def test_a_data_set_is_indexed_when_it_is_needed(self) -> None:
        class Lazy:
            fetched = 0

            def __len__(self) -> int:
                return 50_000

            def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
                self.fetched += 1
                return pixels(1)[0], index % 10

        lazy = Lazy()
        data = opened(lazy, samples=20)
        assert len(stacked(data)[1]) == 20
        assert lazy.fetched < 30

    def test_a_loader_that_shuffles_is_held(self) -> None:
        class Shuffling:
            def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
                order = np.random.default_rng().permutation(12)
                for start in (0, 4, 8):
                    yield pixels(12)[order[start : start + 4]], order[start : start + 4]

        data = opened(Shuffling())
        first = stacked(data)
        again = stacked(data)
        np.testing.assert_array_equal(first[0]["input"], again[0]["input"])
        assert first[1] == first[0]["input"][:, 0, 0, 0].tolist() == again[1]

    def test_an_iterator_without_end(self) -> None:
        def endless() -> Iterator[np.ndarray]:
            while True:
                yield pixels(1)[0]

        with pytest.raises(DataError, match="how many samples"):
            opened(endless())
        assert opened(endless(), samples=9).count == 9

    def test_torch_tensors(self) -> None:
        torch = pytest.importorskip("torch")
        tensor = torch.randn(9, 3, 4, 4, requires_grad=True)
        loader = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(tensor.detach(), torch.arange(9)), batch_size=4
        )
        dataset = torch.utils.data.TensorDataset(tensor.detach(), torch.arange(9))
        for what in (loader, dataset, [(row, i) for i, row in enumerate(tensor)]):
            feeds, labels = stacked(opened(what))
            np.testing.assert_array_equal(feeds["input"], tensor.detach().numpy())
            assert labels == list(range(9))

    @pytest.mark.parametrize(
        ("what", "message"),
        [
            (iter(()), "no sample"),
            ([], "no sample"),
            (7, "The data is a int"),
            ([object()] * 9, "An item of the data is a object"),
            ([(pixels(1)[0], "cat")] * 9, "A label is 'cat'"),
            ([(pixels(1)[0], 5)] * 9, "label 5 is no class"),
            (b"bytes", "The data is a bytes"),
        ],
    )
    def test_what_cannot_be_data(self, what: Any, message: str) -> None:
        with pytest.raises(DataError, match=message):
            list(opened(what, classes=["a", "b"]))

    def test_a_broken_image_object_is_skipped(self, tmp_path: Path) -> None:
        put(tmp_path, *(f"{i}.png" for i in range(3)))
        Image.effect_noise((64, 64), 50).save(tmp_path / "1.png")
        (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:500])
        data = opened([Image.open(tmp_path / f"{i}.png") for i in range(3)])
        assert len(data.content_hash) == 64
        assert reds(data) == [0, 2]
        assert data.skipped.count == 1
