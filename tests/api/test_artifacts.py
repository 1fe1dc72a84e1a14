"""An artifact's checkpoint is found by name and hash in the usual places, and nowhere else."""

from __future__ import annotations

import hashlib
import os

import pytest

pytest.importorskip("torch")
from s2mlp_deploy.api.artifacts import find_checkpoint, is_same_source, known_of
from s2mlp_deploy.artifact import SourceInfo
from s2mlp_deploy.errors import CheckpointError

TOLD = SourceInfo("net.py:f", checkpoint="w.pt", checkpoint_sha256=hashlib.sha256(b"weights").hexdigest())


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with an artifact and a source somewhere else."""
    for folder in ("work/out", "elsewhere/art", "code"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


@pytest.mark.parametrize(
    ("lies", "artifact"),
    [
        ("work/w.pt", "out"),
        ("work/weights/w.pt", "out"),
        ("work/out/w.pt", "out"),
        ("elsewhere/w.pt", "../elsewhere/art"),
        ("elsewhere/weights/w.pt", "../elsewhere/art"),
        ("code/w.pt", "out"),
    ],
)
def test_it_is_found_in_the_usual_places(place, lies, artifact):
    from pathlib import Path

    (place / lies).parent.mkdir(exist_ok=True)
    (place / lies).write_bytes(b"weights")
    found = find_checkpoint(TOLD, Path(artifact), "../code/net.py:f")
    assert found.resolve() == (place / lies).resolve()
    assert not found.is_absolute()


@pytest.mark.parametrize("lies", ["work/a/b/w.pt", "work/.hidden/w.pt", "work/other.pt", "else/w.pt"])
def test_elsewhere_it_is_not_and_the_message_says_where_it_was_looked_for(place, lies):
    (place / lies).parent.mkdir(parents=True, exist_ok=True)
    (place / lies).write_bytes(b"weights")
    with pytest.raises(CheckpointError) as raised:
        find_checkpoint(TOLD, place / "work" / "out", "net.py:f")
    assert "w.pt" in raised.value.problem
    assert str(place / "work" / "out") in str(raised.value.where)
    assert "--checkpoint PATH" in str(raised.value.fix)
    assert str(TOLD.checkpoint_sha256)[:12] in str(raised.value.fix)


def test_a_file_of_that_name_with_other_contents_is_named_and_not_taken(place):
    (place / "work" / "w.pt").write_bytes(b"others")
    with pytest.raises(CheckpointError, match=r"w\.pt has other contents"):
        find_checkpoint(TOLD, place / "work" / "out", "net.py:f")


def test_a_pipe_of_that_name_is_not_opened(place):
    os.mkfifo(place / "work" / "w.pt")
    with pytest.raises(CheckpointError):
        find_checkpoint(TOLD, place / "work" / "out", "net.py:f")


def test_a_manifest_cannot_name_a_file_of_another_folder(place):
    (place / "secret").write_bytes(b"weights")
    told = SourceInfo("net.py:f", checkpoint="../../secret", checkpoint_sha256=TOLD.checkpoint_sha256)
    with pytest.raises(CheckpointError):
        find_checkpoint(told, place / "work" / "out", "net.py:f")


@pytest.mark.parametrize(
    ("told", "given", "same"),
    [
        ("s2mlp_wide", "s2mlp_wide", True),
        ("s2mlp_wide", "s2mlp_deep", False),
        ("net.py:f", "../code/net.py:f", True),
        ("a/net.py:f", "b/net.py:g", False),
        ("net.pt2", "models/net.pt2", True),
        ("a.b:f", "a.c:f", False),
        ("a/b:f", "c/b:f", False),
    ],
)
def test_the_same_source_may_be_named_from_elsewhere(told, given, same):
    assert is_same_source(told, given) == same


def test_a_file_that_no_manifest_lists_is_known_nothing_of(tmp_path):
    from tiny_artifact import write_tiny

    write_tiny(tmp_path / "art")
    assert known_of("tiny", [tmp_path / "art" / "model.fp32.onnx"], checkpoint=None).seed == 0
    for name in ("art/other.onnx", "lone.onnx"):
        known = known_of("tiny", [tmp_path / name], checkpoint=None)
        assert (known.description, known.seed, known.overrides) == (None, None, {})
