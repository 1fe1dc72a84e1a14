"""Adding files to an artifact: nothing is lost, and the manifest is true at every moment."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import nano_artifact
import pytest
from tiny_artifact import CrashError, add_tiny, largest_file, write_half, write_tiny

from s2mlp_deploy.artifact import (
    MANIFEST,
    ArtifactWriter,
    read_manifest,
    verify_file,
)
from s2mlp_deploy.errors import ArtifactError, OutputError


def test_added_files_join_the_others(tmp_path):
    write_tiny(tmp_path)
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence" / "parity.json").write_text("{}")
    before = nano_artifact.snapshot(tmp_path)
    returned = add_tiny(tmp_path, {"model.int8.onnx": b"int8", "model.fp16.onnx": b"fp16"}, notes=("more",))
    manifest = read_manifest(tmp_path)
    assert manifest == returned
    assert [file.precision for file in manifest.files] == ["fp32", "int8", "fp16"]
    assert manifest.notes == ("more",)
    for record in manifest.files:
        verify_file(tmp_path, record)
    after = nano_artifact.snapshot(tmp_path)
    assert set(after) == set(before) | {"model.int8.onnx", "model.fp16.onnx"}
    assert all(after[name] == content for name, content in before.items() if name != MANIFEST)


def test_an_added_file_replaces_the_older_one(tmp_path):
    write_tiny(tmp_path)
    add_tiny(tmp_path, {"model.int8.onnx": b"old"})
    add_tiny(tmp_path, {"model.int8.onnx": b"new"})
    assert [file.path for file in read_manifest(tmp_path).files] == ["model.fp32.onnx", "model.int8.onnx"]
    assert verify_file(tmp_path, read_manifest(tmp_path).file("int8")).read_bytes() == b"new"


def test_an_error_before_adding_leaves_everything(tmp_path):
    write_tiny(tmp_path)
    before = nano_artifact.snapshot(tmp_path)
    with pytest.raises(CrashError):
        write_half(tmp_path, force=True)
    assert nano_artifact.snapshot(tmp_path) == before
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_while_adding_leaves_everything(tmp_path):
    write_tiny(tmp_path)
    before = nano_artifact.snapshot(tmp_path)
    with largest_file(300), pytest.raises(OutputError):
        add_tiny(tmp_path, {"model.int8.onnx": b"new"}, classes=("long name" * 1000,))
    assert nano_artifact.snapshot(tmp_path) == before


def test_at_every_moment_of_adding_the_manifest_is_true(tmp_path, monkeypatch):
    """Ending it after each rename leaves an artifact whose every listed file is the one that is described."""
    replaced = Path.replace
    names = {"model.fp16.onnx", "model.int8.onnx"}
    for moment in range(5):
        directory = tmp_path / str(moment)
        write_tiny(directory)
        add_tiny(directory, dict.fromkeys(names, b"old"))
        done = []

        def ending(path: Path, target: Path, directory=directory, done=done, moment=moment) -> Path:
            # Writing a manifest beside its place is a rename too, and none of the artifact.
            if Path(target).parent == directory:
                if len(done) == moment:
                    raise CrashError
                done.append(target)
            return replaced(path, target)

        with monkeypatch.context() as patch, contextlib.suppress(CrashError):
            patch.setattr(Path, "replace", ending)
            add_tiny(directory, dict.fromkeys(names, b"new"))
        manifest = read_manifest(directory)
        for record in manifest.files:
            verify_file(directory, record)
        assert len(manifest.files) == (3 if moment in (0, 4) else 1)


ADD = """
import sys, time
from dataclasses import replace
from pathlib import Path
from s2mlp_deploy.artifact import ArtifactWriter
directory, name = Path(sys.argv[1]), sys.argv[2]
(directory.parent / name).touch()
with ArtifactWriter(directory, force=True) as writer:
    (writer.staging / name).write_bytes(name.encode())
    # Both have begun before either ends.
    while len(list(directory.parent.glob("model.*"))) < 2:
        time.sleep(0.01)
    def renew(manifest):
        time.sleep(0.2)
        return replace(manifest, notes=(*manifest.notes, name))
    writer.add(renew, {name: (name.split(".")[1], 1)})
"""


def test_two_commands_that_add_at_once_are_both_in_the_manifest(tmp_path):
    artifact = tmp_path / "artifact"
    write_tiny(artifact)
    names = ["model.int8.onnx", "model.fp16.onnx"]
    env = os.environ | {"PYTHONPATH": nano_artifact.PACKAGE_ROOT}
    workers = [subprocess.Popen([sys.executable, "-c", ADD, str(artifact), name], env=env) for name in names]
    assert [worker.wait(timeout=60) for worker in workers] == [0, 0]
    manifest = read_manifest(artifact)
    assert sorted(record.path for record in manifest.files) == sorted(["model.fp32.onnx", *names])
    assert sorted(manifest.notes) == sorted(names)
    for record in manifest.files:
        verify_file(artifact, record)
    assert not list(artifact.glob(".*"))


def test_adding_to_an_artifact_that_is_gone_is_refused(tmp_path):
    write_tiny(tmp_path)
    with ArtifactWriter(tmp_path, force=True) as writer:
        (tmp_path / MANIFEST).unlink()
        with pytest.raises(ArtifactError, match="not an artifact"):
            writer.add(lambda manifest: manifest, {})
