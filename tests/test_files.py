"""Writing a file whole or not at all, JSON, and locks."""

from __future__ import annotations

import concurrent.futures
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nano_artifact
import pytest
from tiny_artifact import largest_file

from s2mlp_deploy import files
from s2mlp_deploy.errors import OutputError
from s2mlp_deploy.files import locked, remove_abandoned, replacing, scratch_directory, to_json, write_file


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


# Locks

COUNT = """
import sys, time
from pathlib import Path
from s2mlp_deploy.files import locked
root = Path(sys.argv[1])
for _ in range(40):
    with locked(root / ".lock"):
        value = int((root / "count").read_text())
        time.sleep(0.001)
        (root / "count").write_text(str(value + 1))
"""


def test_a_lock_is_held_by_one_process_at_a_time_and_leaves_nothing(tmp_path):
    (tmp_path / "count").write_text("0")
    env = os.environ | {"PYTHONPATH": nano_artifact.PACKAGE_ROOT}
    workers = [subprocess.Popen([sys.executable, "-c", COUNT, str(tmp_path)], env=env) for _ in range(3)]
    assert [worker.wait(timeout=60) for worker in workers] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "120"
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


def test_a_lock_is_held_by_one_thread_at_a_time(tmp_path):
    inside: list[int] = []

    def work(_: int) -> None:
        with locked(tmp_path / ".lock"):
            inside.append(1)
            assert len(inside) == 1
            time.sleep(0.002)
            inside.pop()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(20)))


def test_a_lock_that_is_never_free_is_told(tmp_path):
    def take():
        with locked(tmp_path / ".lock", wait=0.1):
            pytest.fail("it was held")

    with locked(tmp_path / ".lock"), pytest.raises(OutputError, match="another command") as caught:
        take()
    assert caught.value.where == str(tmp_path)


HOLD = """
import sys, time
from pathlib import Path
from s2mlp_deploy.files import locked
root = Path(sys.argv[1])
with locked(root / ".lock"):
    (root / "held").touch()
    time.sleep(60)
"""


def test_who_waits_is_told_for_whom_and_a_lock_ends_with_its_killed_holder(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(files, "_PATIENCE", 0.05)

    def take(wait: float) -> None:
        with locked(tmp_path / ".lock", wait=wait):
            pass

    env = os.environ | {"PYTHONPATH": nano_artifact.PACKAGE_ROOT}
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path), "two words"], env=env)
    try:
        while not (tmp_path / "held").exists():
            assert holder.poll() is None
            time.sleep(0.01)
        with pytest.raises(OutputError) as caught:
            take(2.0)  # A busy machine may sleep through less.
    finally:
        holder.kill()
        holder.wait()
    for text in (caplog.text, caught.value.problem):
        for said in (f"process {holder.pid}", platform.node(), "'two words'", time.strftime("%Y-%m-%d")):
            assert said in text
    take(0.0)
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1]", b'{"pid": 1}', b"[" * 100_000, b"x" * 10_000])
def test_a_lock_whose_file_says_nothing_is_told_too(tmp_path, content):
    def take():
        with locked(tmp_path / ".lock", wait=0.05):
            pytest.fail("it was held")

    with locked(tmp_path / ".lock"):
        (tmp_path / ".lock").write_bytes(content)
        with pytest.raises(OutputError, match="another command, which left no name"):
            take()


def test_a_lock_is_no_way_to_write_into_a_file_elsewhere(tmp_path):
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / ".lock").symlink_to("mine")
    os.mkfifo(tmp_path / ".pipe")
    (tmp_path / ".folder").mkdir()

    def take(name: str) -> None:
        with locked(tmp_path / name):
            pytest.fail("it was held")

    for name in (".lock", ".pipe", ".folder"):
        with pytest.raises(OutputError):
            take(name)
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_the_directory_of_a_lock_is_made_and_goes_if_nothing_was_put_there(tmp_path):
    with locked(tmp_path / "a" / "b" / ".lock"):
        (tmp_path / "a" / "kept").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["kept"]
    with locked(tmp_path / "c" / ".lock"):
        pass
    assert not (tmp_path / "c").exists()


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
    lock, seen = files._try_lock, []

    def late(handle):
        if not seen:  # Another process begins before this one has the lock of its own.
            seen.append(True)
            with scratch_directory():
                pass
        return lock(handle)

    monkeypatch.setattr(files, "_try_lock", late)
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
