"""Writing a file whole or not at all, and JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nano_artifact
import pytest
from tiny_artifact import largest_file

from s2mlp_deploy import files
from s2mlp_deploy.errors import OutputError
from s2mlp_deploy.files import (
    check_parents,
    no_empty_parents,
    remove_abandoned,
    replacing,
    scratch_directory,
    to_json,
    write_file,
)


def test_replacing_puts_the_new_content_in_place(tmp_path):
    path = tmp_path / "deep" / "file.bin"
    write_file(path, b"one")
    write_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("crash"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_crash_while_replacing_leaves_the_old_file_and_no_temporary(tmp_path, error):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    def crash():
        with replacing(path) as temporary:
            temporary.write_bytes(b"half of the ne")
            assert path.read_bytes() == b"old"
            raise error

    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)):
        crash()
    assert nano_artifact.snapshot(tmp_path) == {"file.bin": b"old"}


def test_directories_that_are_made_for_a_file_go_where_it_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="crash"), replacing(tmp_path / "a" / "b" / "file.bin"):
        raise ValueError("crash")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_another_process_removes_meanwhile_is_made_again(tmp_path, monkeypatch):
    made, gone = Path.mkdir, iter((True, True))

    def mkdir(self: Path, **options) -> None:
        made(self, **options)
        if next(gone, False):
            self.rmdir()

    monkeypatch.setattr(Path, "mkdir", mkdir)
    write_file(tmp_path / "a" / "file", b"x")
    assert nano_artifact.snapshot(tmp_path) == {"a/file": b"x"}


def test_a_path_that_leaves_a_new_directory_again_leads_to_what_was_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_file(Path("new/../file"), b"x")
    assert Path("new/../file").read_bytes() == b"x"
    with no_empty_parents(Path("new/../a/b/c")):
        Path("a/b").mkdir(parents=True)
    assert not Path("a").exists()


def test_a_drive_that_is_not_there_is_no_place(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "lexists", lambda _: False)
    monkeypatch.setattr(Path, "is_dir", lambda _: False)
    with pytest.raises(OutputError, match="no directory"):
        check_parents(tmp_path / "a" / "file")


@pytest.mark.parametrize("name", ["file/a", "file/a/b", "link/a"])
def test_a_place_below_something_that_is_no_directory_is_refused(tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="no directory"):
        check_parents(tmp_path / name)
    check_parents(tmp_path / "new" / "a" / "b")


def test_a_replaced_file_gets_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    write_file(tmp_path / "written", b"x")
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_full_disk_while_writing_a_file_names_the_file_and_leaves_nothing(tmp_path):
    with largest_file(1000), pytest.raises(OutputError) as caught:
        write_file(tmp_path / "file.bin", bytes(5000))
    assert str(tmp_path / "file.bin") in str(caught.value)
    assert "fix:" in str(caught.value)
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_json_of_a_name_that_is_not_utf8_can_be_written_and_read():
    document = json.loads(to_json({"image": os.fsdecode(b"b\xff.png"), "n": [1, ("é",)]}))
    assert document == {"image": "b?.png", "n": [1, ["é"]]}


def test_json_holds_paths_as_text(tmp_path):
    assert json.loads(to_json({"out": tmp_path, "odd": Path(os.fsdecode(b"\xff"))})) == {
        "out": str(tmp_path),
        "odd": "?",
    }


def test_only_what_a_killed_process_of_ours_left_is_removed(tmp_path):
    for name in (".mine.tmp", ".a.0123456789ab.tmp", ".a.0123456789xy.tmp"):
        (tmp_path / name).touch()
    with replacing(tmp_path / "b") as alive:
        remove_abandoned(tmp_path)
        assert alive.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.0123456789xy.tmp", ".mine.tmp", "b"]


def test_writing_never_touches_the_umask_of_the_process(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("other threads would make files with this mask"))
    write_file(tmp_path / "file", b"x")


def test_a_scratch_directory_that_is_not_locked_yet_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    lock, seen = files.try_lock, []

    def late(handle):
        if not seen:  # Another process begins before this one has the lock of its own.
            seen.append(True)
            with scratch_directory():
                pass
        return lock(handle)

    monkeypatch.setattr(files, "try_lock", late)
    with scratch_directory() as directory:
        assert directory.is_dir()
        (directory / "model.onnx").touch()
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_directory_goes_and_takes_what_killed_processes_left(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    script = (
        "import os, s2mlp_deploy.files as f\nwith f.scratch_directory() as d: (d / 'model.onnx').touch(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "TMPDIR": str(tmp_path)}, check=False)
    (left,) = tmp_path.iterdir()
    assert (left / "model.onnx").exists()
    others = [tmp_path / "s2mlp-deploy-notes", tmp_path / "s2mlp-deploy-folder" / "x"]
    others[0].write_text("mine")
    others[1].mkdir(parents=True)
    with scratch_directory() as first, scratch_directory() as second:
        assert first.is_dir()  # A living process holds it.
        assert second.is_dir()
        assert first != second
        assert not left.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s2mlp-deploy-folder", "s2mlp-deploy-notes"]


def test_no_place_for_temporary_files_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(OutputError, match="cannot write"), scratch_directory():
        pass


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a" * 256, "é" * 128, "a\0", "\ud800"])
def test_what_is_no_name_of_a_file(tmp_path, name):
    assert not files.is_plain_name(name)
    for good in ("a" * 255, "é" * 127, "a.onnx"):
        assert files.is_plain_name(good)
        assert not (tmp_path / good).is_file()
