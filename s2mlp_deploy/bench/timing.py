"""Timing runs: each by the clock, by the processor time of the process, and on a GPU by CUDA events."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

MIN_WARMUP = 2
"""Runs before anything counts: the first one allocates, and on a GPU the second one records a CUDA graph."""


@dataclass(frozen=True)
class Run:
    """Milliseconds of one run, or of one of several runs on average.

    Attributes:
        wall: By the clock.
        cpu: Of the process, all its threads together: what other processes take is left out.
        gpu: Between two CUDA events; None where no GPU ran.
        enqueue: Of the host, to queue that; None where no GPU ran.
    """

    wall: float
    cpu: float
    gpu: float | None = None
    enqueue: float | None = None


class Timed(Protocol):
    """Something that can be run and timed."""

    def once(self) -> Run:
        """One run from inputs of the host to outputs of the host, alone."""
        ...

    def many(self, count: int) -> Run:
        """Runs one after the other as fast as they go; the mean."""
        ...


class Calls:
    """Calls of a function.

    Args:
        run: What is timed.
        many: Runs it so often, some at once: for an engine that has another way to do that.
    """

    def __init__(self, run: Callable[[], object], many: Callable[[int], object] | None = None) -> None:
        self._run = run
        self._many = many

    def once(self) -> Run:
        """See :class:`Timed`."""
        return self.many(1)

    def many(self, count: int) -> Run:
        """See :class:`Timed`."""
        run = self._run
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        if self._many is not None and count > 1:
            self._many(count)
        else:
            for _ in range(count):
                run()
        wall, cpu = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
        return Run(wall / count / 1e6, cpu / count / 1e6)


def warm_up(candidate: Timed, seconds: float) -> list[Run]:
    """Runs that do not count.

    Args:
        candidate: What is run.
        seconds: For so long, and at least :data:`MIN_WARMUP` times.
    """
    runs: list[Run] = []
    end = time.perf_counter() + seconds
    while len(runs) < MIN_WARMUP or time.perf_counter() < end:
        runs.append(candidate.once())
    return runs


@dataclass(frozen=True)
class Timing:
    """Milliseconds of process CPU time."""

    min: float
    median: float


def interleaved(candidates: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 2) -> dict[str, Timing]:
    """Times functions of this process: every candidate once a round, so that drift of the machine falls on all alike.

    Process CPU time leaves out what other processes take; with one thread it is the work itself. For files and engines
    there is :func:`~s2mlp_deploy.bench.run.measure`, which gives each a process of its own.
    """
    calls = {name: Calls(run) for name, run in candidates.items()}
    for candidate in calls.values():
        for _ in range(warmup):
            candidate.once()
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, candidate in calls.items():
            samples[name].append(candidate.once().cpu)
    return {name: Timing(min(times), statistics.median(times)) for name, times in samples.items()}


def median_of(runs: Sequence[Run]) -> Run:
    """The median of each figure."""

    def middle(values: list[float]) -> float | None:
        return statistics.median(values) if values else None

    return Run(
        statistics.median(run.wall for run in runs),
        statistics.median(run.cpu for run in runs),
        middle([run.gpu for run in runs if run.gpu is not None]),
        middle([run.enqueue for run in runs if run.enqueue is not None]),
    )
