"""Whoever sends a second signal does not want to wait."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("httptools")
pytest.importorskip("prometheus_client")
from s2mlp_deploy.serving.service.lifecycle import _Ending


class Remote:
    """A server with a call that never ends; as gRPC's, a second stop cuts the time of the first."""

    def __init__(self):
        self.ended = asyncio.Event()

    async def stop(self, seconds):
        try:
            await asyncio.wait_for(self.ended.wait(), seconds)
        except TimeoutError:
            self.ended.set()


def test_a_second_signal_ends_the_grace_and_the_drain():
    async def main():
        server = SimpleNamespace(force_exit=False)
        ending = _Ending(server)
        ending.signal()
        await ending.wait(0.001)
        loop = asyncio.get_running_loop()
        stopping = asyncio.create_task(ending.stop(Remote(), 60))
        loop.call_later(0.01, ending.signal)
        async with asyncio.timeout(5):
            await ending.wait(60)
            await stopping
        assert server.force_exit

    asyncio.run(main())


def test_without_one_calls_have_their_time():
    async def main():
        remote, ending = Remote(), _Ending(SimpleNamespace(force_exit=False))
        asyncio.get_running_loop().call_later(0.01, remote.ended.set)
        async with asyncio.timeout(5):
            await ending.stop(remote, 60)

    asyncio.run(main())
