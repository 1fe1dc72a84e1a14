"""Dynamic batching: requests wait in a bounded queue, and those that fit together share a run."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Protocol

from s2mlp_deploy.serving.service.failures import RequestError
from s2mlp_deploy.serving.service.messages import Done, Item, Outcome


class Runner(Protocol):
    """Something that runs a batch."""

    async def run(self, items: list[Item]) -> Done:
        """The results, in order."""
        ...


class Runners(Protocol):
    """Those that there are."""

    @property
    def slots(self) -> int:
        """Batches that they take at a time."""
        ...

    async def acquire(self) -> Runner:
        """One that has room, once there is one."""
        ...

    async def release(self) -> None:
        """A batch is done."""
        ...


@dataclass(frozen=True)
class Phases:
    """Where the time of a request went, in seconds.

    Attributes:
        queue: Until its batch was handed over.
        prepare: Decoding, all of its batch.
        infer: The run.
        rows: Samples in its batch.
    """

    queue: float
    prepare: float
    infer: float
    rows: int


@dataclass(eq=False)
class _Job:
    item: Item
    rows: int
    key: Hashable
    future: asyncio.Future[tuple[Outcome, Phases]]
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """The queue of one model.

    Args:
        runners: What runs the batches.
        max_rows: Samples in a batch; a request with more has one for itself.
        max_delay: Seconds that the first request of a batch waits for others.
        bound: Requests that may wait.
    """

    def __init__(self, runners: Runners, *, max_rows: int, max_delay: float, bound: int) -> None:
        self._runners, self._max_rows, self._max_delay, self._bound = runners, max_rows, max_delay, bound
        self._waiting: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._slots = asyncio.Semaphore(runners.slots)
        self._running: set[asyncio.Task[None]] = set()
        self._seconds_a_row = 0.0
        self._idle = asyncio.Event()
        self._idle.set()
        self._loop = asyncio.create_task(self._dispatch())

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    def check_room(self) -> None:
        """Refuses before a body is read.

        Raises:
            RequestError: The queue is full.
        """
        if len(self._waiting) >= self._bound:
            rows = sum(job.rows for job in self._waiting)
            raise RequestError(
                "busy",
                f"{len(self._waiting)} requests wait for this model already",
                fix="try again later",
                retry_after=min(60, max(1, math.ceil(rows * self._seconds_a_row))),
            )

    async def submit(self, item: Item, rows: int, key: Hashable, timeout: float) -> tuple[Outcome, Phases]:
        """Runs a request, with others where they come together; whoever is cancelled leaves the queue.

        Args:
            item: The request.
            rows: Samples that it has.
            key: Requests of equal keys may share a run; None: it runs alone.
            timeout: Seconds.

        Raises:
            RequestError: The queue is full, it took too long, or its process died.
        """
        self.check_room()
        job = _Job(item, rows, key, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._idle.clear()
        self._arrived.set()
        try:
            async with asyncio.timeout(timeout):
                return await job.future
        except TimeoutError:
            raise RequestError(
                "late", f"there was no result within {timeout:g} seconds", fix="try again later", retry_after=1
            ) from None
        finally:
            # Removed at once, so that the bound counts only those who still wait.
            if job in self._waiting:
                self._waiting.remove(job)
            self._settle()  # Also where it was passed over as done: nothing else may come that would tell of the end.

    async def drain(self) -> None:
        """Until nobody waits and nothing runs."""
        await self._idle.wait()

    async def close(self) -> None:
        """Ends; whoever still waits is told so."""
        self._loop.cancel()
        for task in self._running:
            task.cancel()
        await asyncio.gather(self._loop, *self._running, return_exceptions=True)
        for job in self._waiting:
            if not job.future.done():
                job.future.set_exception(RequestError("unavailable", "the service ends", retry_after=1))

    def _settle(self) -> None:
        if not self._waiting and not self._running:
            self._idle.set()

    async def _dispatch(self) -> None:
        while True:
            await self._slots.acquire()
            jobs: list[_Job] = []
            while not jobs:
                await self._somebody()
                await self._company()
                # While no runner is there, requests stay in the queue: others join them, and they can be cancelled.
                runner = await self._runners.acquire()
                jobs = self._take()
            task = asyncio.create_task(self._run(runner, jobs))
            self._running.add(task)
            task.add_done_callback(self._ran)
            # Lets the runner count it before another one is chosen.
            await asyncio.sleep(0)

    async def _somebody(self) -> None:
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()

    async def _company(self) -> None:
        """Waits for others, until the batch is full or its first request has waited long enough."""
        while self._waiting:
            first = self._waiting[0]
            left = first.since + self._max_delay - time.monotonic()
            rows = sum(job.rows for job in self._waiting if job.key == first.key)
            if left <= 0 or first.key is None or rows >= self._max_rows:
                return
            self._arrived.clear()
            try:
                async with asyncio.timeout(left):
                    await self._arrived.wait()
            except TimeoutError:
                return

    def _take(self) -> list[_Job]:
        """The next batch, the longest waiting first; those that do not fit keep their places."""
        jobs: list[_Job] = []
        rows, stay = 0, deque[_Job]()
        for job in self._waiting:
            fits = not jobs or (job.key is not None and job.key == jobs[0].key and rows + job.rows <= self._max_rows)
            if job.future.done():
                continue
            if fits:
                jobs.append(job)
                rows += job.rows
            else:
                stay.append(job)
        self._waiting = stay
        return jobs

    async def _run(self, runner: Runner, jobs: list[_Job]) -> None:
        start = time.monotonic()
        rows = sum(job.rows for job in jobs)
        try:
            done = await runner.run([job.item for job in jobs])
        except Exception as error:  # A bug of ours is told to those whom it concerns, and the queue goes on.
            for job in jobs:
                if not job.future.done():
                    job.future.set_exception(error)
        else:
            self._seconds_a_row += 0.2 * (done.infer / rows - self._seconds_a_row)
            for job, outcome in zip(jobs, done.outcomes, strict=True):
                if not job.future.done():
                    job.future.set_result((outcome, Phases(start - job.since, done.prepare, done.infer, rows)))
        finally:
            self._slots.release()
            await self._runners.release()

    def _ran(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._settle()
