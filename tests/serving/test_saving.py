"""Outputs in one file: whole or not at all, and over nobody's work."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_artifact import largest_file

from s2mlp_deploy.errors import OutputError
from s2mlp_deploy.serving.saving import check_target, save_outputs

ROWS = [{"logits": np.float32([1, 2]), "file": np.int64(3)}, {"logits": np.float32([3, 4]), "file": np.int64(4)}]


def test_numpy_reads_what_was_saved(tmp_path):
    save_outputs(tmp_path / "o.npz", ["a.png", "b ü.png"], ROWS)
    with np.load(tmp_path / "o.npz") as saved:
        assert sorted(saved.files) == ["file", "images", "logits"]
        assert saved["logits"].tolist() == [[1, 2], [3, 4]]
        assert saved["file"].tolist() == [3, 4]
        assert saved["images"].tolist() == ["a.png", "b ü.png"]


def test_outputs_whose_shapes_differ_are_kept_image_by_image(tmp_path):
    rows = [{"boxes": np.zeros((2, 4)), "images": np.float32(1)}, {"boxes": np.ones((3, 4)), "images": np.float32(2)}]
    save_outputs(tmp_path / "o.npz", ["a", "b"], rows)
    with np.load(tmp_path / "o.npz") as saved:
        assert saved["boxes/0"].shape == (2, 4)
        assert saved["boxes/1"].shape == (3, 4)
        assert saved["images"].tolist() == [1, 2]
        assert saved["images_"].tolist() == ["a", "b"]


def test_text_is_saved_without_pickling(tmp_path):
    save_outputs(tmp_path / "o.npz", ["a"], [{"word": np.array(["cat"], object)}])
    with np.load(tmp_path / "o.npz", allow_pickle=False) as saved:
        assert saved["word"].tolist() == [["cat"]]


def test_an_earlier_file_of_ours_is_replaced(tmp_path):
    target = tmp_path / "o.npz"
    save_outputs(target, ["a", "b"], ROWS)
    save_outputs(target, ["a"], ROWS[:1])
    with np.load(target) as saved:
        assert len(saved["logits"]) == 1
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("content", [b"", b"mine", None], ids=["empty", "text", "npz"])
def test_what_somebody_else_wrote_stays(tmp_path, content):
    target = tmp_path / "o.npz"
    if content is None:
        np.savez(target, logits=np.zeros(3))
    else:
        target.write_bytes(content)
    before = target.read_bytes()
    with pytest.raises(OutputError, match="there already"):
        check_target(target)
    with pytest.raises(OutputError, match="there already"):
        save_outputs(target, ["a", "b"], ROWS)
    assert target.read_bytes() == before


def test_a_link_is_not_followed(tmp_path):
    save_outputs(tmp_path / "o.npz", ["a", "b"], ROWS)
    (tmp_path / "link.npz").symlink_to(tmp_path / "o.npz")
    with pytest.raises(OutputError, match="there already"):
        check_target(tmp_path / "link.npz")


@pytest.mark.parametrize(
    ("name", "says"), [("o.npy", "saved as .npz"), ("o", "saved as .npz"), ("file/a/o.npz", "no directory")]
)
def test_a_place_that_cannot_be_is_refused(tmp_path, name, says):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=says):
        check_target(tmp_path / name)


def test_directories_that_are_missing_are_made(tmp_path):
    target = tmp_path / "no" / "such" / "o.npz"
    check_target(target)
    assert list(tmp_path.iterdir()) == []
    save_outputs(target, ["a", "b"], ROWS)
    assert list(target.parent.iterdir()) == [target]


def test_a_full_disk_leaves_the_earlier_file(tmp_path):
    target = tmp_path / "o.npz"
    save_outputs(target, ["a", "b"], ROWS)
    before = target.read_bytes()
    rows = [{"logits": np.zeros(100_000)}]
    with largest_file(10_000), pytest.raises(OutputError):
        save_outputs(target, ["a"], rows)
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]
