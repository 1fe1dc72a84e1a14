"""Checkpoints that claim more than they can hold are refused before anything is made of them."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from s2mlp_deploy.errors import CheckpointError
from s2mlp_deploy.sources.bounds import MAX_HEADER, MAX_STEPS
from s2mlp_deploy.sources.checkpoint import read_weights

MEGABYTE = 2**20


def compressed(path: Path, ending: str, start: bytes, filling: bytes, end: bytes = b"") -> Path:
    """A sound checkpoint, but for one member that is a hundred megabytes in a file of a hundred kilobytes."""
    torch.save({"w": torch.zeros(4)}, path.with_suffix(".sound"))
    with zipfile.ZipFile(path.with_suffix(".sound")) as sound, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for member in sound.infolist():
            if not member.filename.endswith(ending):
                bomb.writestr(member.filename, sound.read(member))
                continue
            with bomb.open(member.filename, "w", force_zip64=True) as stream:
                stream.write(start)
                for _ in range(100):
                    stream.write(filling * MEGABYTE)
                stream.write(end)
    return path


@pytest.mark.parametrize(
    ("ending", "start", "filling", "end"), [("data/0", b"", b"\0", b""), (".pkl", b"\x80\x02](", b"]", b"e.")]
)
def test_an_archive_whose_members_are_larger_than_the_file(tmp_path, monkeypatch, ending, start, filling, end):
    path = compressed(tmp_path / "bomb.pt", ending, start, filling, end)
    assert path.stat().st_size < MEGABYTE
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(CheckpointError, match="its members have 104,857,"):
        read_weights(path)


@pytest.mark.parametrize("archive", [True, False])
def test_a_pickle_of_very_many_steps(tmp_path, monkeypatch, archive):
    path, steps = tmp_path / "steps.pt", b"\x80\x02](" + b"]" * MAX_STEPS + b"e."
    if archive:
        with zipfile.ZipFile(path, "w") as stored:
            stored.writestr("steps/data.pkl", steps)
    else:
        path.write_bytes(steps)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(CheckpointError, match="more than 1,000,000 steps"):
        read_weights(path)


def test_the_steps_of_all_pickles_of_an_old_file_count(tmp_path, monkeypatch):
    path, half = tmp_path / "old.pt", b"\x80\x02](" + b"]" * (MAX_STEPS // 2) + b"e."
    path.write_bytes(b"\x80\x02K\x01." + half + half)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(CheckpointError, match="more than 1,000,000 steps"):
        read_weights(path)


def test_safetensors_of_more_tensors_than_any_model_has(tmp_path):
    names = {f"t{index}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for index in range(80_000)}
    header = json.dumps(names).encode()
    assert len(header) > MAX_HEADER
    path = tmp_path / "many.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(CheckpointError, match="its list of tensors has"):
        read_weights(path)


@pytest.mark.parametrize("archive", [True, False])
def test_what_training_saves_passes(tmp_path, archive):
    weights = {f"blocks.{index}.weight": torch.full((3,), float(index)) for index in range(5_000)}
    torch.save({"model": weights, "epoch": 3}, tmp_path / "a.pt", _use_new_zipfile_serialization=archive)
    read = read_weights(tmp_path / "a.pt")
    assert read.keys() == weights.keys()
    assert torch.equal(read["blocks.17.weight"], torch.full((3,), 17.0))
