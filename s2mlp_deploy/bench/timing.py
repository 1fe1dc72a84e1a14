"""Timing that holds on a noisy machine: process CPU time, one thread, candidates in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Milliseconds of process CPU time."""

    min: float
    median: float


def interleaved(candidates: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 2) -> dict[str, Timing]:
    """Runs every candidate once a round, so that drift of the machine falls on all of them alike.

    Process CPU time leaves out what other processes take; with one thread it is the work itself.
    """
    for run in candidates.values():
        for _ in range(warmup):
            run()
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            start = time.process_time()
            run()
            samples[name].append((time.process_time() - start) * 1e3)
    return {name: Timing(min(times), statistics.median(times)) for name, times in samples.items()}
