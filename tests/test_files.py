"""Writing a file whole or not at all, JSON, and locks."""

from __future__ import annotations

import concurrent.futures
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import nano_artifact
import pytest
from tiny_artifact import largest_file

from s2mlp_deploy.errors import OutputError
from s2mlp_deploy.files import holding, is_abandoned, locked, replacing, to_json, write_file


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


def test_a_held_file_is_not_abandoned_and_a_left_one_is(tmp_path):
    with holding(tmp_path / "alive"):
        assert not is_abandoned(tmp_path / "alive")
    assert is_abandoned(tmp_path / "alive")
    assert not is_abandoned(tmp_path / "never was")


def test_writing_never_touches_the_umask_of_the_process(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("other threads would make files with this mask"))
    write_file(tmp_path / "file", b"x")
