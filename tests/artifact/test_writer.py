"""The artifact appears whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
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
        assert writer.staging.parent in tmp_path.iterdir()
        assert all(path.name.startswith(".") for path in tmp_path.iterdir())


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


def test_force_replaces_an_artifact_but_not_strangers(tmp_path):
    write_tiny(tmp_path, b"old")
    (tmp_path / "notes.txt").write_bytes(b"mine")
    write_tiny(tmp_path, b"new", force=True)
    assert sorted(nano_artifact.snapshot(tmp_path)) == [MANIFEST, "model.fp32.onnx", "notes.txt"]
    verify_file(tmp_path, read_manifest(tmp_path).files[0])
    assert (tmp_path / "model.fp32.onnx").read_bytes() == b"new"


def test_a_forced_export_that_fails_leaves_the_old_artifact_to_the_byte(tmp_path):
    write_tiny(tmp_path, b"old")
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence" / "accuracy.json").write_bytes(b"scores")
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


WRITE = """
import sys, time
from pathlib import Path
from tiny_artifact import make_manifest
from s2mlp_deploy.artifact import ArtifactWriter
from s2mlp_deploy.errors import OutputError
directory, name = Path(sys.argv[1]), sys.argv[2]
(directory.parent / name).touch()
try:
    with ArtifactWriter(directory, force=sys.argv[3] == "force") as writer:
        # Both have begun before either ends.
        while not all((directory.parent / other).exists() for other in "ab"):
            time.sleep(0.01)
        time.sleep(0.3)
        if sys.argv[3] == "fail":
            raise OutputError("a failure")
        (writer.staging / "model.fp32.onnx").write_text(name)
        writer.commit(make_manifest(name=name), {"model.fp32.onnx": ("fp32", 1)})
except OutputError as error:
    sys.exit(error.problem)
"""


def write_at_once(directory: Path, how: tuple[str, str]) -> list[tuple[int, str]]:
    env = os.environ | {"PYTHONPATH": f"{nano_artifact.PACKAGE_ROOT}:{Path(nano_artifact.__file__).parent}"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITE, str(directory), *args], env=env, stderr=subprocess.PIPE, text=True
        )
        for args in zip("ab", how, strict=True)
    ]
    told = [worker.communicate(timeout=60)[1] for worker in workers]
    return sorted((worker.returncode, text.strip()) for worker, text in zip(workers, told, strict=True))


def test_the_second_of_two_writers_meets_the_artifact_of_the_first(tmp_path):
    results = write_at_once(tmp_path / "out", ("plain", "plain"))
    assert results == [(0, ""), (1, "an artifact was finished here meanwhile by another export")]
    verify_file(tmp_path / "out", read_manifest(tmp_path / "out").files[0])


def test_two_writers_that_may_replace_take_turns(tmp_path):
    assert write_at_once(tmp_path / "out", ("force", "force")) == [(0, ""), (0, "")]
    manifest = read_manifest(tmp_path / "out")
    assert verify_file(tmp_path / "out", manifest.files[0]).read_text() == manifest.name
    assert not list((tmp_path / "out").glob(".*"))


def test_a_writer_that_fails_leaves_the_place_to_the_next(tmp_path):
    for how in (("fail", "plain"), ("plain", "fail")):
        directory = tmp_path / how[0] / "deep" / "out"
        directory.parent.mkdir(parents=True)
        results = write_at_once(directory, how)
        met = "an artifact was finished here meanwhile by another export"
        assert results in ([(0, ""), (1, "a failure")], [(0, ""), (1, met)])
        verify_file(directory, read_manifest(directory).files[0])


def test_what_a_killed_writer_left_goes_with_the_next_one(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from s2mlp_deploy.artifact import ArtifactWriter\n"
        "with ArtifactWriter(Path(sys.argv[1])) as writer: os.kill(os.getpid(), signal.SIGKILL)"
    )
    env = os.environ | {"PYTHONPATH": nano_artifact.PACKAGE_ROOT}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=env, check=False)
    assert len(list(tmp_path.glob(".*"))) == 2
    write_tiny(tmp_path)
    assert not list(tmp_path.glob(".*"))
