"""Workers that cannot come back."""

from __future__ import annotations

import asyncio

import pytest
from plain_artifact import write_plain

pytest.importorskip("onnxruntime")
from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.serving.service import pool
from s2mlp_deploy.serving.service.failures import RequestError
from s2mlp_deploy.serving.service.messages import Opened, Setup
from s2mlp_deploy.serving.service.options import EngineOptions, ServiceLimits
from s2mlp_deploy.serving.service.repository import Repository


class FakeWorker:
    """A worker without a process, which refuses what is not the state that it finds."""

    state = "first"
    load = 0
    how_it_ended = "was ended"

    def __init__(self):
        self.opened = Opened("e", "f", "fp32", "", (), (), (), (), 1, "", 0.0, type(self).state)
        self.ended, self.alive = asyncio.Event(), True

    @classmethod
    async def start(cls, setup: Setup):
        if setup.state not in ("", cls.state):
            raise ArtifactError("its files were replaced")
        return cls()

    def die(self):
        self.alive = False
        self.ended.set()

    async def close(self):
        self.die()


async def until(done):
    async with asyncio.timeout(5):
        while not done():
            await asyncio.sleep(0.005)


def test_a_worker_that_finds_other_files_does_not_answer_until_they_are_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "Worker", FakeWorker)
    monkeypatch.setattr(pool, "_FIRST_WAIT", 0.01)
    monkeypatch.setattr(FakeWorker, "state", "first")
    write_plain(tmp_path / "a")

    async def main():
        repository = Repository([tmp_path / "a"], EngineOptions(), ServiceLimits(), pool.Pool)
        await repository.refresh()
        (slot,) = repository.slots
        served = repository.served("perceptron-0", None)
        FakeWorker.state = "second"
        served.workers._workers[0].die()
        await until(lambda: served.workers.refused)
        with pytest.raises(RequestError, match="its files were replaced") as caught:
            repository.served("perceptron-0", None)
        assert caught.value.status == 503
        assert not repository.ready
        await repository.refresh()
        assert slot.served is not served
        assert repository.served("perceptron-0", None).ready
        await repository.close()

    asyncio.run(main())
