"""Folders of images to labelled collections."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from image_files import put

from s2mlp_deploy.data.collect import collect
from s2mlp_deploy.data.images import some_images
from s2mlp_deploy.data.samples import Collection
from s2mlp_deploy.errors import DataError


def names(collection: Collection) -> list[str]:
    return [sample.path.relative_to(collection.root).as_posix() for sample in collection]


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
        (tmp_path / "notes").mkdir()  # without images it is no class
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
        assert "7 and cow" in message
        assert "cat and dog" in message

    def test_long_lists_are_shortened(self, tmp_path: Path) -> None:
        put(tmp_path, "cow/a.png")
        with pytest.raises(DataError, match="and 992 more"):
            collect(tmp_path, classes=[f"class {i}" for i in range(1000)])

    def test_two_folders_of_one_class(self, tmp_path: Path) -> None:
        put(tmp_path, "dog/a.png", "1/a.png")
        with pytest.raises(DataError, match="Several folders mean class 1: 1 and dog"):
            collect(tmp_path, classes=["cat", "dog"])

    def test_a_class_name_that_occurs_twice_needs_the_index(self, tmp_path: Path) -> None:
        put(tmp_path, "crane/a.png")
        with pytest.raises(DataError, match="several classes named crane"):
            collect(tmp_path, classes=["crane", "gull", "crane"])

    def test_an_empty_class_would_move_the_labels(self, tmp_path: Path) -> None:
        put(tmp_path, "ant/a.png", "cat/a.png")
        (tmp_path / "bee").mkdir()
        with pytest.raises(DataError, match="without an image: bee"):
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
        with pytest.raises(DataError, match="also folders with images"):
            collect(tmp_path)

    def test_no_images_lists_the_endings(self, tmp_path: Path) -> None:
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
        put(tmp_path, "a.png", "b.txt")
        assert collect(tmp_path / "a.png").paths == (tmp_path / "a.png",)
        with pytest.raises(DataError, match="not named like an image"):
            collect(tmp_path / "b.txt")

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


def test_a_look_at_some_images_lists_no_more_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, *(f"{folder}/{name}.png" for folder in "abc" for name in "12"), ".hidden/1.png", "notes.txt")
    assert len(some_images(tmp_path, 100)) == 6
    seen: list[str] = []
    monkeypatch.setattr("s2mlp_deploy.data.images.is_image", lambda name: seen.append(name) or True)
    assert len(some_images(tmp_path, 2)) == 2
    assert len(seen) <= 3
