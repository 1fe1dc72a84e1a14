"""What is not the artifact's survives every export, with and without ``force``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nano_artifact
import pytest
from tiny_artifact import add_tiny, write_tiny

from s2mlp_deploy.artifact import MANIFEST, ArtifactWriter, check_output, is_own_report, read_manifest, verify_file
from s2mlp_deploy.artifact.ownership import REPORT_MARKER, is_own_cache, own_sidecar
from s2mlp_deploy.errors import OutputError
from s2mlp_deploy.files import to_json

REPORT = f"<!DOCTYPE html><head>{REPORT_MARKER}</head>".encode()
STRANGERS = {
    "a web manifest": {"manifest.json": b'{"name": "my app", "icons": []}', "report.html": b"mine"},
    "a text": {"manifest.json": b"\xff\xfe not json"},
    "a later version": {"manifest.json": to_json({"schema_version": 99, "files": []})},
    "an old model": {"model.fp32.onnx": b"weights of years"},
    "weights": {"model.fp32.onnx.data": b"weights of years"},
    "a report": {"report.html": b"<html>the board's report</html>"},
    "evidence": {"evidence/photo.json": b"{}"},
}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("kind", STRANGERS)
def test_what_is_of_no_artifact_is_never_replaced(tmp_path, kind, force):
    for name, content in STRANGERS[kind].items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    before = nano_artifact.snapshot(tmp_path)
    with pytest.raises(OutputError) as caught:
        check_output(tmp_path, force=force)
    assert "another directory" in str(caught.value.fix)
    with pytest.raises(OutputError):
        write_tiny(tmp_path, force=force)
    assert nano_artifact.snapshot(tmp_path) == before


def test_a_link_that_leads_nowhere_is_something_too(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.fp32.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(OutputError, match=r"model\.fp32\.onnx"):
        write_tiny(tmp_path / "out", force=True)
    assert not (tmp_path / "elsewhere.onnx").exists()


def test_a_forced_export_removes_what_the_old_one_made_and_nothing_else(tmp_path):
    write_tiny(tmp_path, b"old")
    add_tiny(tmp_path, {"model.int8.onnx": b"int8"})
    (tmp_path / "evidence").mkdir()
    made = {
        "report.html": REPORT,
        "evidence/accuracy.json": b"{}",
        "evidence/tune.json": to_json({"kind": "tune", "schema_version": 7}),
        "model.int8.tensorrt-rtx.sm89.engine": b"engine",
        "model.int8.tensorrt-rtx.sm89.engine.json": to_json({"kind": "build", "onnx": "model.int8.onnx"}),
        "mine.onnxruntime.cpu.onnx": b"optimized",
        "mine.onnxruntime.cpu.onnx.json": to_json({"optimized_sha256": "0", "onnx": "model.fp32.onnx"}),
    }
    mine = {
        "notes.txt": b"mine",
        "model.v1.onnx": b"mine",
        "model.my.engine": b"mine",
        "evidence/photo.json": b'{"who": "me"}',
        "evidence/notes.txt": b"mine",
        "other.engine": b"of another model",
        "other.engine.json": to_json({"kind": "build", "onnx": "other.onnx"}),
        "calibration.npz": b"no cache",
    }
    for name, content in (made | mine).items():
        (tmp_path / name).write_bytes(content)
    write_tiny(tmp_path, b"new", force=True)
    after = nano_artifact.snapshot(tmp_path)
    assert set(after) == {*mine, MANIFEST, "model.fp32.onnx"}
    assert {name: after[name] for name in mine} == mine


def test_the_cache_of_an_artifact_goes_with_it_unless_it_was_just_used(tmp_path):
    write_tiny(tmp_path)
    with zipfile.ZipFile(tmp_path / "calibration.npz", "w") as archive:
        archive.writestr("described.npy", b"")
    assert is_own_cache(tmp_path / "calibration.npz")
    write_tiny(tmp_path, force=True)
    assert not (tmp_path / "calibration.npz").exists()


def test_a_file_that_the_manifest_does_not_list_is_not_replaced_by_adding(tmp_path):
    write_tiny(tmp_path)
    (tmp_path / "model.int8.onnx").write_bytes(b"made by hand")
    before = nano_artifact.snapshot(tmp_path)
    with pytest.raises(OutputError, match=r"model\.int8\.onnx, which would be replaced"):
        add_tiny(tmp_path, {"model.int8.onnx": b"new"})
    with pytest.raises(OutputError, match=r"model\.int8\.onnx"):
        ArtifactWriter(tmp_path, force=True, files=["model.int8.onnx"])
    assert nano_artifact.snapshot(tmp_path) == before


def test_a_manifest_cannot_have_files_elsewhere_removed(tmp_path):
    outside = tmp_path / "precious"
    outside.write_bytes(b"mine")
    directory = tmp_path / "out"
    write_tiny(directory)
    document = json.loads((directory / MANIFEST).read_bytes())
    entry = document["files"][0]
    document["files"] += [entry | {"path": path} for path in ("../precious", str(outside), "link/precious")]
    (directory / "link").symlink_to(tmp_path)
    (directory / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(OutputError, match="no file of its directory"):
        write_tiny(directory, b"new", force=True)
    assert outside.read_bytes() == b"mine"


@pytest.mark.parametrize("kind", ["a link", "a file"])
def test_evidence_that_is_no_folder_is_nobodys(tmp_path, kind):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "accuracy.json").write_bytes(b"mine")
    directory = tmp_path / "out"
    write_tiny(directory)
    if kind == "a link":
        (directory / "evidence").symlink_to(tmp_path / "elsewhere")
    else:
        (directory / "evidence").write_bytes(b"mine")
    before = nano_artifact.snapshot(tmp_path)
    with pytest.raises(OutputError, match="evidence"):
        write_tiny(directory, force=True)
    assert nano_artifact.snapshot(tmp_path) == before


# Killed at the moment when the old manifest is gone and the new one is not there yet.
KILL = """
import os, signal, sys
from pathlib import Path
from tiny_artifact import make_manifest
from s2mlp_deploy.artifact import ArtifactWriter
directory, target = Path(sys.argv[1]), sys.argv[2]
move = Path.replace
def ending(path, to):
    if Path(to) == directory / target:
        os.kill(os.getpid(), signal.SIGKILL)
    return move(path, to)
Path.replace = ending
with ArtifactWriter(directory, force=True) as writer:
    for name in ("model.fp32.onnx", "model.int8.onnx"):
        (writer.staging / name).write_bytes(b"new")
    writer.commit(make_manifest(), {"model.fp32.onnx": ("fp32", 1), "model.int8.onnx": ("int8", 1)})
"""


@pytest.mark.parametrize("target", ["model.fp32.onnx", "model.int8.onnx", "manifest.json"])
@pytest.mark.parametrize("old", [True, False])
def test_what_a_writer_left_that_was_killed_between_two_manifests_is_known(tmp_path, old, target):
    directory = tmp_path / "out"
    if old:
        write_tiny(directory, b"old")
        add_tiny(directory, {"model.fp16.onnx": b"old"})
        (directory / "report.html").write_bytes(REPORT)
    env = os.environ | {"PYTHONPATH": f"{nano_artifact.PACKAGE_ROOT}:{Path(nano_artifact.__file__).parent}"}
    subprocess.run([sys.executable, "-c", KILL, str(directory), target], env=env, check=False)
    assert not (directory / MANIFEST).exists()
    write_tiny(directory, b"next")
    assert sorted(nano_artifact.snapshot(directory)) == [MANIFEST, "model.fp32.onnx"]
    verify_file(directory, read_manifest(directory).files[0])
    assert not list(directory.glob(".*"))


def test_a_report_is_known_by_its_head_and_no_link_is_one(tmp_path):
    (tmp_path / "ours.html").write_bytes(REPORT)
    (tmp_path / "link.html").symlink_to("ours.html")
    (tmp_path / "late.html").write_bytes(b" " * 5000 + REPORT)
    (tmp_path / "folder.html").mkdir()
    os.mkfifo(tmp_path / "pipe.html")
    assert not is_own_cache(tmp_path / "pipe.html")
    assert {path.name for path in tmp_path.iterdir() if is_own_report(path)} == {"ours.html"}


@pytest.mark.parametrize("content", [b"", b"[]", b'{"kind": "parity"}', b"[" * 10**5, b"\xff", b'{"a": 1}'])
def test_only_a_record_of_a_build_is_a_sidecar(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    assert own_sidecar(tmp_path / "x.json") is None
    assert not is_own_cache(tmp_path / "x.json")


def test_an_artifact_that_is_copied_without_its_manifest_is_nobodys(tmp_path):
    write_tiny(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / MANIFEST).unlink()
    with pytest.raises(OutputError, match=r"model\.fp32\.onnx"):
        write_tiny(tmp_path / "b", force=True)
