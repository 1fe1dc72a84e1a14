"""Folders of pictures to labelled collections, and collections to batches."""

from __future__ import annotations

import os
import threading
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s2mlp_deploy.calibration.images import Collection, ImageCollection, Sample, Skipped, batches, collect
from s2mlp_deploy.errors import DataError, ImageError, InputError
from s2mlp_deploy.preprocess import Preprocessing, preprocess

PLAIN = Preprocessing((4, 4), (0, 0, 0), (1, 1, 1), scale=1)


def put(root: Path, *names: str) -> None:
    """Write a picture for each name; its red value is its number, so that an array tells which it was."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(path, "PNG")


def names(collection: ImageCollection) -> list[str]:
    return [path.relative_to(collection.root).as_posix() for path in collection.paths]


class TestCollect:
    def test_flat_folder(self, tmp_path: Path) -> None:
        put(tmp_path, "b.JPG", "a.png", "c.jpeg", ".hidden.png", "notes.txt", "._a.png", "__MACOSX/._a.png")
        collection = collect(tmp_path)
        assert names(collection) == ["a.png", "b.JPG", "c.jpeg"]
        assert collection.labels is None
        assert collection.class_names is None
        assert len(collection) == 3

    def test_class_folders_sorted(self, tmp_path: Path) -> None:
        put(tmp_path, "dog/2.png", "cat/b.png", "cat/a.png", "dog/deep/1.png", ".git/x.png")
        collection = collect(tmp_path)
        assert names(collection) == ["cat/a.png", "cat/b.png", "dog/2.png", "dog/deep/1.png"]
        assert collection.labels == (0, 0, 1, 1)
        assert collection.class_names == ("cat", "dog")

    def test_labels_are_indices_into_the_models_classes(self, tmp_path: Path) -> None:
        put(tmp_path, "dog/1.png", "cat/1.png")
        (tmp_path / "notes").mkdir()  # without pictures it is no class
        collection = collect(tmp_path, classes=["horse", "dog", "cat"])
        assert names(collection) == ["cat/1.png", "dog/1.png"]
        assert collection.labels == (2, 1)
        assert collection.class_names == ("horse", "dog", "cat")

    def test_whole_numbers_are_indices(self, tmp_path: Path) -> None:
        put(tmp_path, "0/a.png", "2/a.png", "10/a.png")
        collection = collect(tmp_path)
        assert names(collection) == ["0/a.png", "10/a.png", "2/a.png"]
        assert collection.labels == (0, 10, 2)
        assert collection.class_names is None
        assert collect(tmp_path, classes=[f"class {i}" for i in range(11)]).labels == (0, 10, 2)

    def test_a_class_named_by_a_number_is_matched_by_name_first(self, tmp_path: Path) -> None:
        put(tmp_path, "1/a.png")
        assert collect(tmp_path, classes=["9", "8", "1"]).labels == (2,)

    def test_a_folder_that_is_no_class_lists_both_sides(self, tmp_path: Path) -> None:
        put(tmp_path, "cat/a.png", "cow/a.png", "7/a.png")
        with pytest.raises(DataError) as caught:
            collect(tmp_path, classes=["cat", "dog"])
        message = str(caught.value)
        assert "7, cow" in message
        assert "cat, dog" in message

    def test_long_lists_are_shortened(self, tmp_path: Path) -> None:
        put(tmp_path, "cow/a.png")
        with pytest.raises(DataError, match="and 992 more"):
            collect(tmp_path, classes=[f"class {i}" for i in range(1000)])

    def test_two_folders_of_one_class(self, tmp_path: Path) -> None:
        put(tmp_path, "dog/a.png", "1/a.png")
        with pytest.raises(DataError, match="Several folders mean class 1: 1, dog"):
            collect(tmp_path, classes=["cat", "dog"])

    def test_a_class_name_that_occurs_twice_needs_the_index(self, tmp_path: Path) -> None:
        put(tmp_path, "crane/a.png")
        with pytest.raises(DataError, match="several classes named crane"):
            collect(tmp_path, classes=["crane", "gull", "crane"])

    def test_an_empty_class_would_move_the_labels(self, tmp_path: Path) -> None:
        put(tmp_path, "ant/a.png", "cat/a.png")
        (tmp_path / "bee").mkdir()
        with pytest.raises(DataError, match="without a picture: bee"):
            collect(tmp_path)

    def test_parts_of_a_data_set_are_no_classes(self, tmp_path: Path) -> None:
        put(tmp_path, "train/cat/a.png", "val/cat/a.png")
        for classes in (None, ["cat", "dog"]):
            with pytest.raises(DataError, match="parts of a data set") as caught:
                collect(tmp_path, classes=classes)
            assert str(tmp_path / "train") in str(caught.value.fix)
        assert collect(tmp_path / "val", classes=["dog", "cat"]).labels == (1,)

    def test_mixed_layouts(self, tmp_path: Path) -> None:
        put(tmp_path, "a.png", "cat/a.png")
        with pytest.raises(DataError, match="also folders with pictures"):
            collect(tmp_path)

    def test_no_pictures_lists_the_endings(self, tmp_path: Path) -> None:
        put(tmp_path, "notes.txt", "more/x.heic")
        with pytest.raises(DataError) as caught:
            collect(tmp_path)
        assert ".jpg" in str(caught.value.fix)
        assert ".webp" in str(caught.value.fix)
        assert caught.value.where == str(tmp_path)

    def test_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="does not exist"):
            collect(tmp_path / "absent")

    def test_single_file(self, tmp_path: Path) -> None:
        put(tmp_path, "a.png", "b.tar")
        assert collect(tmp_path / "a.png").paths == (tmp_path / "a.png",)
        with pytest.raises(DataError, match="not named like a picture"):
            collect(tmp_path / "b.tar")

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads every folder")
    def test_unreadable_folder(self, tmp_path: Path) -> None:
        put(tmp_path, "cat/a.png", "dog/a.png")
        (tmp_path / "dog").chmod(0)
        try:
            with pytest.raises(DataError, match="cannot be read"):
                collect(tmp_path)
        finally:
            (tmp_path / "dog").chmod(0o700)


class TestSampling:
    def test_classes_are_balanced_as_far_as_they_reach(self, tmp_path: Path) -> None:
        put(tmp_path, *(f"big/{i}.png" for i in range(30)), *(f"mid/{i}.png" for i in range(10)), "tiny/0.png")
        assert Counter(collect(tmp_path, limit=9).labels or ()) == {0: 4, 1: 4, 2: 1}
        assert Counter(collect(tmp_path, limit=3).labels or ()) == {0: 1, 1: 1, 2: 1}
        assert len(collect(tmp_path, limit=1000)) == 41

    def test_seeded_sorted_and_nested(self, tmp_path: Path) -> None:
        put(tmp_path, *(f"{i:02}.png" for i in range(40)))
        ten = names(collect(tmp_path, limit=10, seed=1))
        assert ten == sorted(ten)
        assert ten == names(collect(tmp_path, limit=10, seed=1))
        assert ten != names(collect(tmp_path, limit=10, seed=2))
        assert set(ten) < set(names(collect(tmp_path, limit=20, seed=1)))

    def test_the_sample_does_not_depend_on_where_the_folder_is(self, tmp_path: Path) -> None:
        for place in ("here", "there"):
            put(tmp_path / place, *(f"{i:02}.png" for i in range(20)))
        samples = [names(collect(tmp_path / place, limit=5)) for place in ("here", "there")]
        assert samples[0] == samples[1]

    @pytest.mark.parametrize("limit", [0, -3])
    def test_limit_must_be_positive(self, tmp_path: Path, limit: int) -> None:
        put(tmp_path, "a.png")
        with pytest.raises(DataError, match="limit"):
            collect(tmp_path, limit=limit)


class TestBatches:
    @pytest.mark.parametrize("workers", [0, 1, 3])
    def test_order_shapes_and_labels(self, tmp_path: Path, workers: int) -> None:
        put(tmp_path, *(f"a/{i}.png" for i in range(4)), *(f"b/{i}.png" for i in range(3)))
        collection = collect(tmp_path)
        found = list(batches(collection, PLAIN, 3, workers=workers))
        assert [batch.array.shape for batch in found] == [(3, 3, 4, 4), (3, 3, 4, 4), (1, 3, 4, 4)]
        assert tuple(path for batch in found for path in batch.paths) == collection.paths
        joined = np.concatenate([batch.array for batch in found])
        np.testing.assert_array_equal(joined, preprocess(collection.paths, PLAIN))
        np.testing.assert_array_equal(joined[:, 0, 0, 0], range(7))
        labels = np.concatenate([batch.labels for batch in found])  # type: ignore[arg-type]
        assert labels.dtype == np.int64
        assert labels.tolist() == [0, 0, 0, 0, 1, 1, 1]

    def test_no_labels(self, tmp_path: Path) -> None:
        put(tmp_path, "a.png")
        (batch,) = batches(collect(tmp_path), PLAIN, 8)
        assert batch.labels is None
        assert batch.array.shape == (1, 3, 4, 4)

    @pytest.mark.parametrize("workers", [0, 2])
    def test_broken_pictures_raise_or_are_made_up_for(self, tmp_path: Path, workers: int) -> None:
        put(tmp_path, *(f"a/{i}.png" for i in range(6)))
        for broken in ("a/1.png", "a/4.png"):
            (tmp_path / broken).write_bytes(b"text")
        collection = collect(tmp_path)
        with pytest.raises(ImageError) as caught:
            list(batches(collection, PLAIN, 2, workers=workers))
        assert str(tmp_path / "a/1.png") in str(caught.value)

        skipped = Skipped()
        found = list(batches(collection, PLAIN, 3, workers=workers, on_broken="skip", skipped=skipped))
        assert [batch.array[:, 0, 0, 0].tolist() for batch in found] == [[0, 2, 3], [5]]
        assert [path.name for batch in found for path in batch.paths] == ["0.png", "2.png", "3.png", "5.png"]
        assert [len(batch.labels) for batch in found if batch.labels is not None] == [3, 1]
        assert skipped.count == 2
        assert [path.name for path, _ in skipped.examples] == ["1.png", "4.png"]
        assert "not a picture" in skipped.examples[0][1]

    def test_nothing_but_broken_pictures_is_an_error(self, tmp_path: Path) -> None:
        for number in range(30):
            (tmp_path / f"{number:02}.png").write_bytes(b"text")
        skipped = Skipped()
        with pytest.raises(DataError, match="None of the 30 pictures") as caught:
            list(batches(collect(tmp_path), PLAIN, 4, on_broken="skip", skipped=skipped))
        assert "00.png" in str(caught.value.where)
        assert skipped.count == 30
        assert len(skipped.examples) == 20  # stays short

    def test_broken_pictures_after_a_full_batch_are_only_skipped(self, tmp_path: Path) -> None:
        put(tmp_path, "0.png", "1.png")
        (tmp_path / "1.png").write_bytes(b"text")
        assert len(list(batches(collect(tmp_path), PLAIN, 1, on_broken="skip"))) == 1

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
        iterator = batches(collection, PLAIN, 4, workers=2)
        next(iterator)
        assert 4 <= collection.handed_out <= 4 + 2 * 2 + 1
        iterator.close()  # type: ignore[attr-defined]

    def test_batches_do_not_share_memory(self, tmp_path: Path) -> None:
        put(tmp_path, *(f"{i}.png" for i in range(5)))
        found = list(batches(collect(tmp_path), PLAIN, 2))
        assert [batch.array[:, 0, 0, 0].tolist() for batch in found] == [[0, 1], [2, 3], [4]]

    def test_arguments_are_checked_before_iterating(self, tmp_path: Path) -> None:
        put(tmp_path, "a.png")
        collection = collect(tmp_path)
        with pytest.raises(InputError, match="batch size"):
            batches(collection, PLAIN, 0)
        with pytest.raises(InputError, match="workers"):
            batches(collection, PLAIN, 1, workers=-1)
        with pytest.raises(InputError, match="on_broken"):
            batches(collection, PLAIN, 1, on_broken="ignore")  # type: ignore[arg-type]

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
        (batch,) = batches(collection, PLAIN, 2)
        assert batch.array[:, 0, 0, 0].tolist() == [5, 6]
        assert batch.labels is not None
        assert batch.labels.tolist() == [5, 6]
        assert batch.paths[1] == Path("archive.zip/6.png")

    @pytest.mark.parametrize("workers", [0, 2])
    def test_memory_does_not_grow_with_the_collection(self, tmp_path: Path, workers: int) -> None:
        put(tmp_path, "a.png")
        large = Preprocessing((128, 128), (0, 0, 0), (1, 1, 1), scale=1)  # 192 KiB a picture
        peaks = []
        for count in (20, 200):
            collection = ImageCollection((tmp_path / "a.png",) * count, None, None, tmp_path)
            tracemalloc.start()
            for batch in batches(collection, large, 4, workers=workers):
                assert len(batch.array) == 4
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert peaks[1] < peaks[0] + 1_500_000  # 180 more pictures would be 35 MB

    def test_threads_end_when_the_iteration_is_given_up(self, tmp_path: Path) -> None:
        put(tmp_path, *(f"{i}.png" for i in range(20)))
        iterator = batches(collect(tmp_path), PLAIN, 2, workers=2)
        next(iterator)
        assert any(thread.name.startswith("pictures") for thread in threading.enumerate())
        iterator.close()  # type: ignore[attr-defined]
        assert not any(thread.name.startswith("pictures") for thread in threading.enumerate())


@pytest.mark.data
class TestImageNetSample:
    @pytest.fixture
    def folder(self) -> Path:
        named = os.environ.get("S2MLP_DATA")
        data = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "data"
        if not (data / "imagenet_sample").is_dir():
            pytest.skip("the data folder is not here; name it with S2MLP_DATA")
        return data / "imagenet_sample"

    def test_photographs_become_plausible_inputs(self, folder: Path) -> None:
        description = Preprocessing((224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), crop_pct=0.875)
        skipped = Skipped()
        collection = collect(folder, limit=24)
        found = list(batches(collection, description, 8, workers=2, on_broken="skip", skipped=skipped))
        assert skipped.count == 0
        joined = np.concatenate([batch.array for batch in found])
        assert joined.shape == (24, 3, 224, 224)
        # Normalised by the statistics of this very kind of picture.
        assert np.abs(joined.mean(axis=(0, 2, 3))).max() < 0.6
        assert 0.7 < joined.std() < 1.4
