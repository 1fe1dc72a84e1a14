"""Figures of measured times: quantiles, how far rounds spread, and ratios with bootstrap intervals.

Times of one process are not independent: where its memory lies, and what the processor was doing when it started, stay
with it. So rounds are resampled within processes, and processes among each other (a hierarchical bootstrap; Kalibera
and Jones, "Rigorous benchmarking in reasonable time", 2013, for the levels).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.evidence.bench import Latency, Launch, Ratio, ServerResult

RESAMPLES = 2000
CONFIDENCE = 0.95

MAX_SPREAD = 0.025
"""Spread of rounds from which on a measurement is not to be trusted."""

Times = Sequence[Sequence[float]]
"""By process, the time of each round."""


def latency_of(milliseconds: Sequence[float]) -> Latency:
    """Quantiles of single runs. A quantile is a run's own time, never a mean of two: the smallest that is enough."""
    times = np.asarray(milliseconds, np.float64)
    p50, p90, p99 = (float(value) for value in np.quantile(times, (0.5, 0.9, 0.99), method="inverted_cdf"))
    return Latency(len(times), float(times.min()), float(times.mean()), p50, p90, p99)


def spread(launches: Sequence[Launch]) -> float:
    """The interquartile range of all rounds, as a share of their median.

    Not the standard deviation, which one interrupted round decides.
    """
    rounds = np.concatenate([launch.wall_ms for launch in launches])
    low, middle, high = np.quantile(rounds, (0.25, 0.5, 0.75))
    return float((high - low) / middle) if middle else 0.0


def gaps_of(server: ServerResult) -> list[list[float]]:
    """Of each process the gap between two queries at the highest rate, in ms; nothing where a process held no rate."""
    return [[1e3 / rate] for rate in server.rates] if all(server.rates) else []


def paired_ratio(candidate: Times, baseline: Times, *, over: str, seed: int = 0) -> Ratio:
    """The ratio of two candidates that ran in the same rounds: the median of the rounds' own ratios.

    What disturbs a round disturbs both, and cancels.

    Args:
        candidate: As many processes and rounds as:
        baseline: What it is compared with.
        over: Name of the baseline.
        seed: Of the resampling.
    """
    ratios = np.asarray(candidate, np.float64) / np.asarray(baseline, np.float64)
    resampled = np.median(_resampled(ratios, np.random.default_rng(seed)), axis=1)
    return _interval(float(np.median(ratios)), resampled, over, len(ratios))


def unpaired_ratio(candidate: Times, baseline: Times, *, over: str, seed: int = 0) -> Ratio:
    """The ratio of two runs at different times: of their medians.

    Args:
        candidate: Rounds of each process.
        baseline: What it is compared with; its processes and rounds may be fewer or more.
        over: Name of the baseline.
        seed: Of the resampling.
    """
    generator = np.random.default_rng(seed)
    tables = [np.asarray(times, np.float64) for times in (candidate, baseline)]
    above, below = (np.median(_resampled(table, generator), axis=1) for table in tables)
    value = float(np.median(tables[0]) / np.median(tables[1]))
    return _interval(value, above / below, over, min(map(len, tables)))


def _resampled(table: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    """Draws of processes, and of rounds within each, from a table [processes, rounds].

    Returns:
        [resamples, processes * rounds].
    """
    processes, rounds = table.shape
    chosen = generator.integers(processes, size=(RESAMPLES, processes, 1))
    within = generator.integers(rounds, size=(RESAMPLES, processes, rounds))
    return table[chosen, within].reshape(RESAMPLES, -1)


def _interval(value: float, resampled: NDArray[np.float64], over: str, processes: int) -> Ratio:
    tail = (1 - CONFIDENCE) / 2
    low, high = (float(end) for end in np.quantile(resampled, (tail, 1 - tail)))
    # Draws of n processes vary less than processes do, by n - 1 to n: with five the interval is a tenth too short.
    wider = math.sqrt(processes / (processes - 1)) if processes > 1 else 1.0
    # The value itself always lies inside: few rounds can be drawn lopsidedly.
    low, high = value - max(value - low, 0.0) * wider, value + max(high - value, 0.0) * wider
    return Ratio(over, value, max(low, 0.0), high)
