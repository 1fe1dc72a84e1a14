"""Who works on the chunks: this process, several of this machine, or Ray. All run the same worker."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Protocol

from s2mlp_deploy.errors import CheckFailedError
from s2mlp_deploy.serving.batch.inputs import Chunk
from s2mlp_deploy.serving.batch.worker import ChunkResult, Worker, WorkerOptions

_WAITING = 2
"""Chunks for each worker that are handed out: one that it works on, and the next."""

_DEATHS = 3
"""How often workers may die with no chunk done between."""


class Pool(Protocol):
    """Who works on chunks."""

    def map(self, chunks: Iterable[Chunk]) -> Iterator[ChunkResult]:
        """The result of each chunk, as they come.

        Raises:
            S2MLPDeployError: The artifact cannot be run.
            CheckFailedError: Workers died again and again.
        """
        ...


class InThisProcess:
    """One worker, here.

    Args:
        options: How it works.
    """

    def __init__(self, options: WorkerOptions) -> None:
        self._worker = Worker(options)

    def map(self, chunks: Iterable[Chunk]) -> Iterator[ChunkResult]:
        """See :class:`Pool`."""
        return map(self._worker, chunks)


class Processes:
    """Workers in processes of their own: one that dies loses its chunk, which another one does.

    Args:
        options: How they work.
        workers: How many.
    """

    def __init__(self, options: WorkerOptions, workers: int) -> None:
        self._options = options
        self._workers = workers

    def map(self, chunks: Iterable[Chunk]) -> Iterator[ChunkResult]:
        """See :class:`Pool`."""
        left = iter(chunks)
        again: list[Chunk] = []
        deaths = 0
        while True:
            executor = ProcessPoolExecutor(
                # A fork of a process that has threads or an engine may hang.
                self._workers,
                multiprocessing.get_context("spawn"),
                _begin,
                (self._options,),
            )
            running: dict[Future[ChunkResult], Chunk] = {}
            try:
                while True:
                    while len(running) < self._workers * _WAITING and (again or (more := next(left, None)) is not None):
                        chunk = again.pop() if again else more
                        assert chunk is not None
                        try:
                            running[executor.submit(_work, chunk)] = chunk
                        except BrokenProcessPool:
                            again.append(chunk)
                            raise
                    if not running:
                        return
                    done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                    for future in done:
                        result = future.result()
                        del running[future]
                        deaths = 0
                        yield result
            except BrokenProcessPool as error:
                deaths += 1
                again += running.values()
                if deaths >= _DEATHS:
                    raise _died(again) from error
            finally:
                _end(executor)


def _end(executor: ProcessPoolExecutor) -> None:
    """Ends an executor with its workers, whatever they work on: a chunk can take minutes."""
    processes = list((getattr(executor, "_processes", None) or {}).values())
    executor.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        with contextlib.suppress(OSError, ValueError):
            process.terminate()


def _died(chunks: list[Chunk]) -> CheckFailedError:
    names = [next((image.name for image in chunk.images()), "") for chunk in chunks[:1]]
    return CheckFailedError(
        f"processes that classify died {_DEATHS} times, one after the other, near {''.join(names)}",
        fix="fewer --workers where memory runs out (`dmesg` says so); from a script, call batch below "
        "`if __name__ == '__main__':`; the same command goes on where it stopped",
    )


_WORKER: Worker | None = None


def _begin(options: WorkerOptions) -> None:
    global _WORKER
    _WORKER = Worker(options)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(parent: int) -> None:
    """Ends this process with the one that began it, which may have been killed and tells nobody."""
    wait([parent])
    os._exit(1)


def _work(chunk: Chunk) -> ChunkResult:
    assert _WORKER is not None
    return _WORKER(chunk)
