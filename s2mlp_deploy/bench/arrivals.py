"""The server scenario: queries arrive when they arrive, whether or not the last one is answered (an open loop).

A loop that sends the next query when the last is answered leaves out all that would have arrived during a slow one
(coordinated omission). Here the moments are drawn beforehand, and the latency of a query counts from the moment at
which it was to be sent, also where the engine was busy then.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from s2mlp_deploy.evidence.bench import RateTrial

ALLOWED_LATE = 0.01
"""Share of queries that may be late: the bound is one of the 99th percentile."""

_STEPS = 6
"""Halvings of the gap between a rate that holds and one that does not: to 2 % of the capacity."""

_HEADROOM = 1.25
"""How far above its measured capacity an engine may get: that was measured for a moment only."""

_BOUNDS = 50
"""A trial lasts so many times the bound: in a shorter one an engine that is too slow does not fall behind."""

_BACKOFF = 0.95
"""A rate that does not hold a second time is lowered by this factor."""

_LOWEST = 0.02
"""Share of what the engine can do at most, below which no rate is tried: it is the bound that is too short then."""


def arrival_times(rate: float, queries: int, seed: int) -> list[float]:
    """Seconds from the start at which queries of a Poisson process arrive.

    Args:
        rate: Queries a second, on average.
        queries: How many.
        seed: Of the gaps between them, which are exponential.
    """
    gaps = np.random.default_rng(seed).exponential(1 / rate, queries)
    return [float(moment) for moment in np.cumsum(gaps)]


def serve_arrivals(
    run: Callable[[], object],
    rate: float,
    queries: int,
    *,
    bound_ms: float,
    seed: int,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> RateTrial:
    """Answers queries in the order of their arrival, one at a time.

    Args:
        run: Answers one.
        rate: Queries a second.
        queries: How many; fewer where so many are late that no others could mend it.
        bound_ms: What counts as late, in ms from the arrival.
        seed: Of the arrivals.
        clock: Seconds.
        sleep: Waits so many.
    """
    allowed = int(ALLOWED_LATE * queries)
    latencies: list[float] = []
    late = 0
    start = clock()
    for moment in arrival_times(rate, queries, seed):
        early = start + moment - clock()
        if early > 0:
            sleep(early)
        run()
        latencies.append((clock() - start - moment) * 1e3)
        late += latencies[-1] > bound_ms
        if late > allowed:
            break
    p99 = float(np.quantile(latencies, 0.99, method="inverted_cdf"))
    return RateTrial(rate, len(latencies), late, p99, late <= allowed)


@dataclass
class RateSearch:
    """The next rate to try: a bisection between one that holds and one that does not, whose result is tried again.

    Attributes:
        capacity: Queries a second that arrive at just the pace at which they can be answered.
        steps: Halvings that are left.
        low: The highest rate that held; 0 before one did.
        high: The lowest rate that did not.
        confirmed: Whether the result held a second time, with other arrivals.
    """

    capacity: float
    steps: int = _STEPS
    low: float = 0.0
    high: float = field(init=False)
    confirmed: bool = False

    def __post_init__(self) -> None:
        self.high = _HEADROOM * self.capacity

    @property
    def next(self) -> float | None:
        """The rate to try; None at the end."""
        if self.confirmed:
            return None
        if self.steps > 0:
            return (self.low + self.high) / 2
        return self.low if self.low > _LOWEST * self.capacity else None

    @property
    def rate(self) -> float:
        """The result; 0 where no rate holds."""
        return self.low if self.confirmed else 0.0

    def add(self, trial: RateTrial) -> None:
        """Takes the result of a trial of :attr:`next`."""
        if self.steps > 0:
            self.steps -= 1
            if trial.holds:
                self.low = trial.rate
            else:
                self.high = trial.rate
        elif trial.holds:
            self.confirmed = True
        else:
            self.low = trial.rate * _BACKOFF


def queries_for(rate: float, bound_ms: float, least: int) -> int:
    """Queries of a trial.

    Args:
        rate: Queries a second.
        bound_ms: What they must keep.
        least: At least so many.
    """
    return max(least, math.ceil(rate * bound_ms / 1e3 * _BOUNDS))
