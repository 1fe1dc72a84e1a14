"""The worker processes of one model: started, asked, replaced when they die, ended when nobody needs them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec

from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.files import import_path
from s2mlp_deploy.serving.service.failures import RequestError
from s2mlp_deploy.serving.service.messages import ANSWERS, LENGTH, Batch, Done, Item, Opened, Refused, Setup, encode

LOG = logging.getLogger(__name__)

DEPTH = 2
"""Batches that a worker has at a time: one that runs, and one that is decoded meanwhile."""

_PROGRAM = "from s2mlp_deploy.serving.service.worker import main; main()"
_BUFFER = 8 * 2**20
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 30.0


class Worker:
    """One process. Made by :meth:`start`."""

    def __init__(self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: Any) -> None:
        self._process, self._reader, self._writer = process, reader, writer
        self._asked: dict[int, asyncio.Future[Done]] = {}
        self._number = 0
        self.opened: Opened
        self.alive = True
        self.ended = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def load(self) -> int:
        """Batches that it has."""
        return len(self._asked)

    @classmethod
    async def start(cls, setup: Setup) -> Worker:
        """Starts one and waits until it is warm.

        Raises:
            ArtifactError: It cannot open what it is to serve.
        """
        try:
            ours, process = _started()
        except OSError as error:  # No memory, processes or open files are left.
            raise ArtifactError(
                f"no process can be started for it: {error.strerror or error}",
                where=setup.directory,
                fix="raise the limits of processes and open files, or serve less",
            ) from error
        reader, writer = await asyncio.open_connection(sock=ours, limit=_BUFFER)
        worker = cls(process, reader, writer)
        try:
            writer.write(encode(setup))
            await writer.drain()
            answer = await worker._receive()
        except (OSError, EOFError, msgspec.DecodeError):
            await worker.close()
            raise ArtifactError(
                f"the process that was to open it {worker.how_it_ended}",
                where=setup.directory,
                fix="look at its messages on stderr; bench runs the file in a process of its own",
            ) from None
        except BaseException:
            process.kill()
            await worker.close()
            raise
        if isinstance(answer, Refused):
            await worker.close()
            raise ArtifactError(answer.problem, where=setup.directory, fix=answer.fix)
        assert isinstance(answer, Opened)
        worker.opened = answer
        worker._listener = asyncio.create_task(worker._listen())
        return worker

    async def run(self, items: list[Item]) -> Done:
        """Runs requests.

        Raises:
            RequestError: The process ended before it answered.
        """
        self._number += 1
        number = self._number
        future: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        try:
            if not self.alive:
                raise self._gone()
            self._writer.write(encode(Batch(number, items)))
            return await future
        finally:
            self._asked.pop(number, None)

    async def _listen(self) -> None:
        try:
            while True:
                answer = await self._receive()
                assert isinstance(answer, Done)
                if (future := self._asked.get(answer.number)) and not future.done():
                    future.set_result(answer)
        except (OSError, EOFError, msgspec.DecodeError):
            self.alive = False
        await self._wait()
        for future in self._asked.values():
            if not future.done():
                future.set_exception(self._gone())
        self.ended.set()

    async def _receive(self) -> Any:
        (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
        return ANSWERS.decode(await self._reader.readexactly(length))

    async def _wait(self) -> None:
        """Until the process is gone; one that hung up and lives on is killed."""
        with contextlib.suppress(OSError):
            self._writer.close()
        deadline = time.monotonic() + 5
        while self._process.poll() is None:
            if time.monotonic() > deadline:
                self._process.kill()
            await asyncio.sleep(0.01)

    @property
    def how_it_ended(self) -> str:
        """In words."""
        code = self._process.returncode or 0
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        return f"was ended by signal {-code}"

    def _gone(self) -> RequestError:
        return RequestError(
            "unavailable",
            f"the process that ran this request {self.how_it_ended}; another one is started",
            fix="try again",
            retry_after=1,
        )

    async def close(self) -> None:
        """Hangs up, upon which the process ends."""
        self.alive = False
        with contextlib.suppress(OSError):
            self._writer.close()
        if self._listener is not None:
            await self._listener
        else:
            await self._wait()


def _started() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """A process, and this end of the connection to it."""
    ours, theirs = socket.socketpair()
    # The same package as this one's, wherever that was found; -P: nothing from the current folder.
    program = f"import sys; sys.path[:] = {import_path()!r}; {_PROGRAM}"
    with theirs:
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", program, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        except BaseException:
            ours.close()
            raise
    return ours, process


class Pool:
    """The workers of a model.

    Args:
        setup: What each of them opens.
        size: How many.
        on_restart: Called when one died.
    """

    def __init__(self, setup: Setup, size: int, on_restart: Callable[[], None] = lambda: None) -> None:
        self._setup, self._size, self._on_restart = setup, size, on_restart
        self._workers: list[Worker] = []
        self._free = asyncio.Condition()
        self._keepers: list[asyncio.Task[None]] = []
        self.slots = size * DEPTH
        self.reason = ""
        self.refused = False

    async def start(self) -> Opened:
        """Starts all and waits until they are warm.

        Raises:
            ArtifactError: One cannot open the model.
        """
        # One after the other: each takes all cores while it is compiled.
        try:
            for _ in range(self._size):
                self._workers.append(await Worker.start(self._setup))
                # Whoever comes later opens the same, or nothing.
                self._setup = msgspec.structs.replace(self._setup, state=self._workers[0].opened.state)
        except BaseException:
            await self.close()
            raise
        self._keepers = [asyncio.create_task(self._keep(index)) for index in range(self._size)]
        return self._workers[0].opened

    @property
    def alive(self) -> int:
        """How many can be asked now."""
        return sum(worker.alive for worker in self._workers)

    async def acquire(self) -> Worker:
        """The worker with the least to do, once there is one with room."""
        async with self._free:
            while True:
                free = [worker for worker in self._workers if worker.alive and worker.load < DEPTH]
                if free:
                    return min(free, key=lambda worker: worker.load)
                await self._free.wait()

    async def release(self) -> None:
        """A batch is done: whoever waits for a worker looks again."""
        async with self._free:
            self._free.notify_all()

    async def _keep(self, index: int) -> None:
        """Replaces a worker whenever it ends; ever more slowly where its successors die too."""
        wait = _FIRST_WAIT
        while True:
            started = time.monotonic()
            await self._workers[index].ended.wait()
            if time.monotonic() - started > _LONGEST_WAIT:
                wait = _FIRST_WAIT
            self.reason = f"its process {self._workers[index].how_it_ended} and is started again"
            LOG.error("a worker of %s %s", self._setup.directory, self._workers[index].how_it_ended)
            self._on_restart()
            while True:
                await asyncio.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
                try:
                    self._workers[index] = await Worker.start(self._setup)
                except ArtifactError as error:
                    self.reason = f"its process cannot be started again: {error.problem}"
                    self.refused = True
                    LOG.error("%s: %s", self._setup.directory, self.reason)
                else:
                    self.reason, self.refused = "", False
                    await self.release()
                    break

    async def close(self) -> None:
        """Ends all; what they still run is lost."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(worker.close() for worker in self._workers))
