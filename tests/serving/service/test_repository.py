"""What is taken from disk, and what is not."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from plain_artifact import write_plain

pytest.importorskip("prometheus_client")
from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.evidence.tune import EngineSettings
from s2mlp_deploy.files import write_file
from s2mlp_deploy.serving.plan import plan_run
from s2mlp_deploy.serving.service import pool, watching
from s2mlp_deploy.serving.service.core import Service
from s2mlp_deploy.serving.service.logs import line_of
from s2mlp_deploy.serving.service.messages import Opened, Setup
from s2mlp_deploy.serving.service.metrics import Metrics
from s2mlp_deploy.serving.service.options import EngineOptions, ServiceLimits
from s2mlp_deploy.serving.service.repository import Repository, find_places


class Workers:
    """What answers without processes."""

    slots, alive, reason, refused = 1, 1, "", False

    def __init__(self, *_):
        self.closed = False

    async def start(self):
        return Opened("e", "f", "fp32", "", (), (), (), (), 1, "", 0.0)

    async def acquire(self): ...

    async def release(self): ...

    async def close(self):
        self.closed = True


@pytest.fixture
def unreadable(monkeypatch):
    """Paths below these cannot be looked at."""
    places: set[Path] = set()
    look = Path.is_file

    def is_file(path):
        if places & {path, *path.parents}:
            raise PermissionError(13, "Permission denied", str(path))
        return look(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    return places


def test_what_cannot_be_read_for_a_moment_goes_on(tmp_path, unreadable):
    for version in ("1", "2"):
        write_plain(tmp_path / "many" / version, 0)
    write_plain(tmp_path / "one", 1)
    paths = [tmp_path / "many", tmp_path / "one"]

    async def main():
        repository = Repository(paths, EngineOptions(), ServiceLimits(), Workers)
        await repository.refresh()
        assert repository.ready
        served = [slot.served for slot in repository.slots]
        for place in (tmp_path / "many" / "2", tmp_path / "one"):
            unreadable.add(place)
            await repository.refresh()
            assert [slot.served for slot in repository.slots] == served
            unreadable.clear()
        await repository.close()

    asyncio.run(main())
    unreadable.add(tmp_path / "one")
    with pytest.raises(ArtifactError, match="Permission denied"):
        find_places(paths)


def test_what_was_refused_is_taken_once_it_is_measured(tmp_path, monkeypatch):
    """A file exported in place has no parity yet; measuring it leaves the manifest as it is."""
    write_plain(tmp_path / "a", 0)
    proof = tmp_path / "a" / "evidence" / "parity-model.fp32-noise-0.json"
    proof.parent.mkdir(exist_ok=True)

    def measure(path, at):
        """Writes evidence; files' clocks may stand still for a hundredth of a second, so time is set twice."""
        os.utime(proof.parent, (at, at))
        write_file(path, b"{}")
        os.utime(proof.parent, (at + 1, at + 1))

    os.utime(proof.parent, (0, 0))

    async def start(self):
        if not proof.exists():
            raise ArtifactError("parity was not measured")
        return Opened("e", "f", "fp32", "", (), (), (), (), 1, "", 0.0)

    monkeypatch.setattr(Workers, "start", start)

    async def main():
        repository = Repository([tmp_path / "a"], EngineOptions(), ServiceLimits(), Workers)
        for _ in range(2):
            await repository.refresh()
            assert "parity was not measured" in repository.slots[0].reason
        assert repository.failures == 1
        measure(proof, 0)
        await repository.refresh()
        assert repository.ready
        served = repository.slots[0].served
        await repository.refresh()
        assert repository.slots[0].served is served
        measure(proof.with_name("tune.json"), 1)
        await repository.refresh()
        assert repository.ready
        assert repository.slots[0].served is not served
        await repository.close()

    asyncio.run(main())


def test_what_is_measured_and_changes_nothing_of_what_runs_loads_nothing(tmp_path, monkeypatch):
    write_plain(tmp_path / "a", 0)
    evidence = tmp_path / "a" / "evidence"
    evidence.mkdir(exist_ok=True)
    settings = EngineSettings()

    def measure(at):
        (evidence / f"{at}.json").write_text("{}")
        os.utime(evidence, (at, at))

    def plan(*_, **options):
        return replace(plan_run(tmp_path / "a", allow_unproven=True), settings=settings)

    monkeypatch.setattr(watching, "plan_run", plan)

    async def main():
        nonlocal settings
        repository = Repository([tmp_path / "a"], EngineOptions(allow_unproven=True), ServiceLimits(), Workers)
        measure(1)
        await repository.refresh()
        (slot,) = repository.slots
        served = slot.served
        measure(2)
        await repository.refresh()
        assert slot.served is served
        settings = EngineSettings(threads=1)
        measure(3)
        await repository.refresh()
        assert slot.served is not served
        # The same file with another content, under a manifest that says so.
        served = slot.served
        write_plain(tmp_path / "a", 0, force=True, beside=True)
        await repository.refresh()
        assert slot.served is not served
        await repository.close()

    asyncio.run(main())


def test_the_log_says_when_a_model_can_be_asked(tmp_path, caplog):
    write_plain(tmp_path / "many" / "3", 0)

    async def main():
        repository = Repository([tmp_path / "many"], EngineOptions(), ServiceLimits(), Workers)
        await repository.refresh()
        await repository.close()
        return repository.slots[0].name

    with caplog.at_level("INFO", "s2mlp_deploy.serving"):
        name = asyncio.run(main())
    [record] = [record for record in caplog.records if "ready" in record.message]
    told = msgspec.json.decode(line_of(record))
    assert told["message"] == f"ready: {name} version 3"
    assert {told["file"], told["engine"]} == {"e", "f"}


def test_a_new_version_that_cannot_be_read_says_why(tmp_path, monkeypatch):
    write_plain(tmp_path / "many" / "1", 0)
    (tmp_path / "many" / "2").mkdir()
    monkeypatch.setattr("s2mlp_deploy.serving.service.repository._may_hold_one", lambda place: True)

    async def main():
        repository = Repository([tmp_path / "many"], EngineOptions(), ServiceLimits(), Workers)
        await repository.refresh()
        assert [(slot.state, "not an artifact" in slot.reason) for slot in repository.slots] == [
            ("ready", False),
            ("failed", True),
        ]
        await repository.close()

    asyncio.run(main())


def test_a_look_that_fails_is_logged_and_the_next_one_comes(tmp_path, monkeypatch, caplog):
    write_plain(tmp_path / "a", 0)

    async def main():
        repository = Repository([tmp_path / "a"], EngineOptions(), ServiceLimits(), Workers)
        service = Service(repository, ServiceLimits(), Metrics(repository, lambda: 0))
        start, failures = Workers.start, [MemoryError("none left")]

        async def fails_once(self):
            if failures:
                raise failures.pop()
            return await start(self)

        monkeypatch.setattr(Workers, "start", fails_once)
        watching = asyncio.create_task(service.watch(0.01))
        async with asyncio.timeout(5):
            while not repository.ready:
                await asyncio.sleep(0.005)
        watching.cancel()
        await repository.close()

    asyncio.run(main())
    assert "looking for new files failed" in caplog.text


def test_no_process_to_be_had_is_an_artifact_that_cannot_be_opened(monkeypatch):
    def popen(*_, **__):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(pool.subprocess, "Popen", popen)
    setup = Setup("a", None, None, 1, None, False, True, 1, 1, 1)
    with pytest.raises(ArtifactError, match="temporarily unavailable"):
        asyncio.run(pool.Worker.start(setup))
