"""Locks between processes and threads, and what is told of who holds one."""

from __future__ import annotations

import concurrent.futures
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import nano_artifact
import pytest

from s2mlp_deploy import locks
from s2mlp_deploy.errors import OutputError
from s2mlp_deploy.locks import locked

COUNT = """
import sys, time
from pathlib import Path
from s2mlp_deploy.locks import locked
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
from s2mlp_deploy.locks import locked
root = Path(sys.argv[1])
with locked(root / ".lock"):
    (root / "held").touch()
    time.sleep(60)
"""


def test_who_waits_is_told_for_whom_and_a_lock_ends_with_its_killed_holder(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(locks, "_PATIENCE", 0.05)

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
        with pytest.raises(OutputError, match="somebody, who left no name"):
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


def test_a_place_where_no_directory_can_be_made_is_told_at_once(tmp_path, monkeypatch):
    def take(path: Path) -> None:
        with locked(path):
            pytest.fail("it was held")

    with monkeypatch.context() as patched:  # As /proc, where mkdir says that there is no such file.
        patched.setattr(Path, "mkdir", lambda self, **_: (tmp_path / "none").stat())
        start = time.monotonic()
        with pytest.raises(OutputError, match="cannot write: No such file"):
            take(tmp_path / "never" / ".lock")
        assert time.monotonic() - start < 3


def test_a_directory_that_another_holder_removes_meanwhile_is_made_again(tmp_path, monkeypatch):
    made = Path.mkdir
    gone = iter((True, True))

    def mkdir(self: Path, **options) -> None:
        made(self, **options)
        if next(gone, False):
            self.rmdir()

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with locked(tmp_path / "a" / ".lock") as held:
        assert held


def test_a_directory_that_is_removed_within_mkdir_is_made_again(tmp_path, monkeypatch):
    made = Path.mkdir
    gone = iter((True, True))

    def mkdir(self: Path, **options) -> None:
        if next(gone, False):
            raise FileExistsError(17, "File exists", str(self))  # It was there, and is no directory: it is gone.
        made(self, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with locked(tmp_path / "a" / ".lock") as held:
        assert held


@pytest.mark.parametrize("below", [(), ("deeper",)])
def test_a_link_that_leads_nowhere_is_named(tmp_path, below):
    (tmp_path / "link").symlink_to("gone")

    def take() -> None:
        with locked(tmp_path.joinpath("link", *below, ".lock")):
            pytest.fail("it was held")

    with pytest.raises(OutputError, match="a link that leads nowhere") as caught:
        take()
    assert caught.value.where == str(tmp_path / "link")
    assert "gone" in caught.value.fix
