"""The artifact appears whole or not at all."""

from __future__ import annotations

from pathlib import Path

import nano_artifact
import pytest
from tiny_artifact import CrashError, largest_file, make_manifest, write_half, write_tiny

from s2mlp_deploy.artifact import (
    MANIFEST,
    ArtifactWriter,
    check_output,
    read_manifest,
    verify_file,
)
from s2mlp_deploy.errors import OutputError


@pytest.mark.parametrize("error", [CrashError, KeyboardInterrupt, SystemExit])
def test_an_exception_removes_staging_and_every_directory_it_made(tmp_path, error):
    with pytest.raises(error):
        write_half(tmp_path / "a" / "b" / "c", error)
    assert list(tmp_path.iterdir()) == []


def test_an_exception_leaves_a_directory_that_was_there(tmp_path):
    (tmp_path / "notes.txt").write_bytes(b"mine")
    with pytest.raises(CrashError):
        write_half(tmp_path)
    assert nano_artifact.snapshot(tmp_path) == {"notes.txt": b"mine"}


def test_leaving_without_a_commit_writes_nothing(tmp_path):
    with ArtifactWriter(tmp_path / "out") as writer:
        (writer.staging / "model.fp32.onnx").write_bytes(b"graph")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_an_artifact_before_the_commit(tmp_path):
    with ArtifactWriter(tmp_path) as writer:
        (writer.staging / "model.fp32.onnx").write_bytes(b"graph")
        assert list(tmp_path.iterdir()) == [writer.staging.parent]
        assert writer.staging.parent.name.startswith(".")


def test_the_manifest_is_moved_last(tmp_path, monkeypatch):
    order = []
    move = Path.replace

    def record(self: Path, target: Path) -> Path:
        if Path(target).parent == tmp_path:
            order.append(Path(target).name)
        return move(self, target)

    monkeypatch.setattr(Path, "replace", record)
    with ArtifactWriter(tmp_path) as writer:
        for name in ("model.fp32.onnx", "model.fp32.onnx.data", "zzz.txt"):
            (writer.staging / name).write_bytes(b"x")
        writer.commit(make_manifest(), {"model.fp32.onnx": ("fp32", 1)})
    assert sorted(order[:-1]) == ["model.fp32.onnx", "model.fp32.onnx.data", "zzz.txt"]
    assert order[-1] == MANIFEST


def test_an_interruption_between_two_files_leaves_no_manifest_old_or_new(tmp_path, monkeypatch):
    write_tiny(tmp_path, b"old")
    move = Path.replace

    def interrupt(self: Path, target: Path) -> Path:
        if Path(target) == tmp_path / "model.fp32.onnx":
            assert not (tmp_path / MANIFEST).exists(), "the old manifest speaks of files that are gone"
            raise KeyboardInterrupt
        return move(self, target)

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_tiny(tmp_path, b"new", force=True)
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_that_is_there_is_refused_before_anything_is_written(tmp_path):
    write_tiny(tmp_path, b"old")
    before = nano_artifact.snapshot(tmp_path)
    with pytest.raises(OutputError, match=r"already holds an artifact[\s\S]*--force"):
        write_tiny(tmp_path, b"new")
    assert nano_artifact.snapshot(tmp_path) == before


def test_force_replaces_files_evidence_engines_and_report_but_not_strangers(tmp_path):
    write_tiny(tmp_path, b"old")
    (tmp_path / "evidence").mkdir()
    for name in (
        "evidence/parity-model.fp32.json",
        "report.html",
        "model.fp16.onnx",
        "model.fp16.onnx.data",
        "model.fp32.tensorrt-rtx.sm89.engine",
    ):
        (tmp_path / name).write_bytes(b"old")
    (tmp_path / "notes.txt").write_bytes(b"mine")
    write_tiny(tmp_path, b"new", force=True)
    assert sorted(nano_artifact.snapshot(tmp_path)) == [MANIFEST, "model.fp32.onnx", "notes.txt"]
    assert not (tmp_path / "evidence").exists()
    verify_file(tmp_path, read_manifest(tmp_path).files[0])
    assert (tmp_path / "model.fp32.onnx").read_bytes() == b"new"


def test_a_forced_export_that_fails_leaves_the_old_artifact_to_the_byte(tmp_path):
    write_tiny(tmp_path, b"old")
    (tmp_path / "report.html").write_bytes(b"report")
    before = nano_artifact.snapshot(tmp_path)
    with pytest.raises(CrashError):
        write_half(tmp_path, force=True)
    assert nano_artifact.snapshot(tmp_path) == before


@pytest.mark.parametrize("full_at", ["graph", "manifest"])
def test_a_full_disk_leaves_the_old_artifact_to_the_byte(tmp_path, full_at):
    write_tiny(tmp_path, b"old")
    before = nano_artifact.snapshot(tmp_path)
    content, changes = (bytes(9000), {}) if full_at == "graph" else (b"new", {"classes": ("long name" * 1000,)})
    with largest_file(4000), pytest.raises(OutputError) as caught:
        write_tiny(tmp_path, content, force=True, **changes)
    assert "room" in str(caught.value)
    assert nano_artifact.snapshot(tmp_path) == before


@pytest.mark.parametrize("full_at", ["graph", "manifest"])
def test_a_full_disk_leaves_no_new_directory(tmp_path, full_at):
    content, changes = (bytes(9000), {}) if full_at == "graph" else (b"new", {"classes": ("long name" * 1000,)})
    with largest_file(4000), pytest.raises(OutputError):
        write_tiny(tmp_path / "a" / "b", content, **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_moved_into_place_leaves_no_manifest_and_no_graph(tmp_path):
    (tmp_path / "zz.bin").mkdir()

    def write():
        with ArtifactWriter(tmp_path) as writer:
            (writer.staging / "model.fp32.onnx").write_bytes(b"graph")
            (writer.staging / "zz.bin").write_bytes(b"x")
            writer.commit(make_manifest(), {"model.fp32.onnx": ("fp32", 1)})

    with pytest.raises(OutputError):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["zz.bin"]


@pytest.mark.parametrize("stop_after", [0, 1, 2])
def test_ctrl_c_while_files_are_moved_leaves_none_of_them(tmp_path, monkeypatch, stop_after):
    write_tiny(tmp_path, b"old")
    moves, move = [], Path.replace

    def interrupted(self: Path, target: Path) -> Path:
        if Path(target).parent != tmp_path:
            return move(self, target)
        if len(moves) == stop_after:
            raise KeyboardInterrupt
        moves.append(target)
        return move(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)

    def write():
        with ArtifactWriter(tmp_path, force=True) as writer:
            for name in ("model.fp32.onnx", "model.int8.onnx"):
                (writer.staging / name).write_bytes(b"new")
            writer.commit(make_manifest(), {"model.fp32.onnx": ("fp32", 1), "model.int8.onnx": ("int8", 1)})

    with pytest.raises(KeyboardInterrupt):
        write()
    assert len(moves) == stop_after
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_writer_that_cannot_begin_leaves_no_staging(tmp_path, monkeypatch, error):
    make = Path.mkdir

    def failing(self: Path, *args, **kwargs) -> None:
        if self.name == "files":
            raise error
        make(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", failing)
    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt):
        ArtifactWriter(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_reading_elsewhere_is_not_told_as_one_of_writing(tmp_path):
    with pytest.raises(FileNotFoundError), ArtifactWriter(tmp_path / "out"):
        (tmp_path / "elsewhere").read_bytes()
    with pytest.raises(OutputError), ArtifactWriter(tmp_path / "out") as writer:
        (writer.staging / "no" / "such").write_bytes(b"")
    assert list(tmp_path.iterdir()) == []


def bad_outputs(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "file").write_bytes(b"mine")
    return {
        "a file": tmp_path / "file",
        "below a file": tmp_path / "file" / "out",
        "deep below a file": tmp_path / "file" / "a" / "b",
        "a place the kernel refuses": Path("/proc/self/out"),
        "a name that is too long": tmp_path / ("x" * 300),
    }


@pytest.mark.parametrize(
    "kind", ["a file", "below a file", "deep below a file", "a place the kernel refuses", "a name that is too long"]
)
def test_a_place_that_cannot_be_written_is_refused_with_a_fix_and_left_alone(tmp_path, kind):
    path = bad_outputs(tmp_path)[kind]
    with pytest.raises(OutputError) as caught:
        write_tiny(path)
    assert caught.value.where
    assert caught.value.fix
    assert nano_artifact.snapshot(tmp_path) == {"file": b"mine"}
    assert sorted(item.name for item in tmp_path.iterdir()) == ["file"]


def test_a_file_as_output_is_refused_even_with_force(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(OutputError, match="the output is a file"):
        check_output(tmp_path / "file", force=True)


def test_checking_an_output_makes_nothing(tmp_path):
    check_output(tmp_path / "a" / "b", force=False)
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_that_another_command_wrote_meanwhile_is_not_replaced(tmp_path):
    directory = tmp_path / "out"
    with ArtifactWriter(directory) as writer:
        (writer.staging / "model.fp32.onnx").write_bytes(b"slow")
        write_tiny(directory, b"quick")
        before = {name: content for name, content in nano_artifact.snapshot(directory).items() if "/" not in name}
        with pytest.raises(OutputError, match="already holds an artifact"):
            writer.commit(make_manifest(), {"model.fp32.onnx": ("fp32", 1)})
    assert nano_artifact.snapshot(directory) == before


def test_a_writer_that_is_at_work_loses_nothing_to_another(tmp_path):
    with ArtifactWriter(tmp_path) as slow:
        (slow.staging / "model.fp32.onnx").write_bytes(b"slow")
        write_tiny(tmp_path, b"quick")
        assert (slow.staging / "model.fp32.onnx").exists()
