"""Collections to batches."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from image_files import put
from PIL import Image

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.data.batches import batches
from s2mlp_deploy.data.collect import collect
from s2mlp_deploy.data.feeds import ModelInputs
from s2mlp_deploy.data.images import ImageCollection
from s2mlp_deploy.data.samples import Collection, Sample, Skipped
from s2mlp_deploy.errors import DataError, ImageError, InputError
from s2mlp_deploy.preprocess import Preprocessing, preprocess

PLAIN = Preprocessing((4, 4), (0, 0, 0), (1, 1, 1), scale=1)


def takes(preprocessing: Preprocessing) -> ModelInputs:
    """The inputs of a model of images."""
    return ModelInputs((TensorInfo("input", "float32", ("batch", 3, *preprocessing.size)),), preprocessing)


class TestBatches:
    @pytest.mark.parametrize("workers", [0, 1, 3])
    def test_order_shapes_and_labels(self, tmp_path: Path, workers: int) -> None:
        put(tmp_path, *(f"a/{i}.png" for i in range(4)), *(f"b/{i}.png" for i in range(3)))
        collection = collect(tmp_path)
        found = list(batches(collection, takes(PLAIN), 3, workers=workers))
        assert [batch.feeds["input"].shape for batch in found] == [(3, 3, 4, 4), (3, 3, 4, 4), (1, 3, 4, 4)]
        assert tuple(path for batch in found for path in batch.paths) == collection.paths
        joined = np.concatenate([batch.feeds["input"] for batch in found])
        np.testing.assert_array_equal(joined, preprocess(collection.paths, PLAIN))
        np.testing.assert_array_equal(joined[:, 0, 0, 0], range(7))
        labels = np.concatenate([batch.labels for batch in found])  # type: ignore[arg-type]
        assert labels.dtype == np.int64
        assert labels.tolist() == [0, 0, 0, 0, 1, 1, 1]

    def test_no_labels(self, tmp_path: Path) -> None:
        put(tmp_path, "a.png")
        (batch,) = batches(collect(tmp_path), takes(PLAIN), 8)
        assert batch.labels is None
        assert batch.feeds["input"].shape == (1, 3, 4, 4)

    @pytest.mark.parametrize("workers", [0, 2])
    def test_broken_images_raise_or_are_made_up_for(self, tmp_path: Path, workers: int) -> None:
        put(tmp_path, *(f"a/{i}.png" for i in range(6)))
        for broken in ("a/1.png", "a/4.png"):
            (tmp_path / broken).write_bytes(b"text")
        collection = collect(tmp_path)
        with pytest.raises(ImageError) as caught:
            list(batches(collection, takes(PLAIN), 2, workers=workers))
        assert str(tmp_path / "a/1.png") in str(caught.value)

        skipped = Skipped()
        found = list(batches(collection, takes(PLAIN), 3, workers=workers, on_broken="skip", skipped=skipped))
        assert [batch.feeds["input"][:, 0, 0, 0].tolist() for batch in found] == [[0, 2, 3], [5]]
        assert [path.name for batch in found for path in batch.paths] == ["0.png", "2.png", "3.png", "5.png"]
        assert [len(batch.labels) for batch in found if batch.labels is not None] == [3, 1]
        assert skipped.count == 2
        assert [path.name for path, _ in skipped.examples] == ["1.png", "4.png"]
        assert "not an image" in skipped.examples[0][1]

    def test_nothing_but_broken_images_is_an_error(self, tmp_path: Path) -> None:
        for number in range(30):
            (tmp_path / f"{number:02}.png").write_bytes(b"text")
        skipped = Skipped()
        with pytest.raises(DataError, match="None of the 30 images") as caught:
            list(batches(collect(tmp_path), takes(PLAIN), 4, on_broken="skip", skipped=skipped))
        assert "00.png" in str(caught.value.where)
        assert skipped.count == 30
        assert len(skipped.examples) == 20  # stays short

    def test_broken_images_after_a_full_batch_are_only_skipped(self, tmp_path: Path) -> None:
        put(tmp_path, "0.png", "1.png")
        (tmp_path / "1.png").write_bytes(b"text")
        assert len(list(batches(collect(tmp_path), takes(PLAIN), 1, on_broken="skip"))) == 1

    def test_threads_do_not_run_far_ahead(self) -> None:
        class Counted:
            root = Path("counted")
            class_names = None
            handed_out = 0

            def __len__(self) -> int:
                return 500

            def __iter__(self) -> Iterator[Sample]:
                for self.handed_out in range(1, 501):
                    yield Sample(self.root, Image.new("RGB", (4, 4)), None)

        collection = Counted()
        iterator = batches(collection, takes(PLAIN), 4, workers=2)
        next(iterator)
        assert 4 <= collection.handed_out <= 4 + 2 * 2 + 1
        iterator.close()  # type: ignore[attr-defined]

    def test_batches_do_not_share_memory(self, tmp_path: Path) -> None:
        put(tmp_path, *(f"{i}.png" for i in range(5)))
        found = list(batches(collect(tmp_path), takes(PLAIN), 2))
        assert [batch.feeds["input"][:, 0, 0, 0].tolist() for batch in found] == [[0, 1], [2, 3], [4]]

    def test_arguments_are_checked_before_iterating(self, tmp_path: Path) -> None:
        put(tmp_path, "a.png")
        collection = collect(tmp_path)
        with pytest.raises(InputError, match="batch size"):
            batches(collection, takes(PLAIN), 0)
        with pytest.raises(InputError, match="workers"):
            batches(collection, takes(PLAIN), 1, workers=-1)
        with pytest.raises(InputError, match="on_broken"):
            batches(collection, takes(PLAIN), 1, on_broken="ignore")  # type: ignore[arg-type]

    def test_other_collections_fit(self) -> None:
        class InMemory:
            """What an archive reader would look like."""

            root = Path("archive.zip")
            class_names = None

            def __len__(self) -> int:
                return 2

            def __iter__(self) -> Iterator[Sample]:
                for value in (5, 6):
                    yield Sample(self.root / f"{value}.png", Image.new("RGB", (4, 4), (value, 0, 0)), value)

        collection: Collection = InMemory()
        (batch,) = batches(collection, takes(PLAIN), 2)
        assert batch.feeds["input"][:, 0, 0, 0].tolist() == [5, 6]
        assert batch.labels is not None
        assert batch.labels.tolist() == [5, 6]
        assert batch.paths[1] == Path("archive.zip/6.png")

    @pytest.mark.parametrize("workers", [0, 2])
    def test_memory_does_not_grow_with_the_collection(self, tmp_path: Path, workers: int) -> None:
        put(tmp_path, "a.png")
        large = Preprocessing((128, 128), (0, 0, 0), (1, 1, 1), scale=1)  # 192 KiB an image
        peaks = []
        for count in (20, 200):
            collection = ImageCollection((tmp_path / "a.png",) * count, None, None, tmp_path)
            tracemalloc.start()
            for batch in batches(collection, takes(large), 4, workers=workers):
                assert len(batch.feeds["input"]) == 4
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert peaks[1] < peaks[0] + 1_500_000  # 180 more images would be 35 MB

    def test_threads_end_when_the_iteration_is_given_up(self, tmp_path: Path) -> None:
        put(tmp_path, *(f"{i}.png" for i in range(20)))
        iterator = batches(collect(tmp_path), takes(PLAIN), 2, workers=2)
        next(iterator)
        assert any(thread.name.startswith("images") for thread in threading.enumerate())
        iterator.close()  # type: ignore[attr-defined]
        assert not any(thread.name.startswith("images") for thread in threading.enumerate())


@pytest.mark.data
class TestImageNetSample:
    @pytest.fixture
    def folder(self, data_dir: Path) -> Path:
        return data_dir / "imagenet_sample"

    def test_photographs_become_plausible_inputs(self, folder: Path) -> None:
        description = Preprocessing((224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), crop_pct=0.875)
        skipped = Skipped()
        collection = collect(folder, limit=24)
        found = list(batches(collection, takes(description), 8, workers=2, on_broken="skip", skipped=skipped))
        assert skipped.count == 0
        joined = np.concatenate([batch.feeds["input"] for batch in found])
        assert joined.shape == (24, 3, 224, 224)
        # Normalised by the statistics of this very kind of image.
        assert np.abs(joined.mean(axis=(0, 2, 3))).max() < 0.6
        assert 0.7 < joined.std() < 1.4
