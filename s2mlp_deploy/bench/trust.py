"""Why a candidate's figures are not to be trusted, in words, as trtexec says it of its own."""

from __future__ import annotations

import statistics

from s2mlp_deploy.bench.options import BenchOptions
from s2mlp_deploy.bench.statistics import MAX_SPREAD, spread
from s2mlp_deploy.evidence.bench import QUANTILE_RUNS, BenchResult

_MIN_LAUNCHES = 3
_MIN_ROUNDS = 10

_ENQUEUE_BOUND = 0.9
"""Share of the GPU's time that queueing may take: beyond it the host is what is measured."""

_MIN_QUERIES = 459
"""Queries of which none is late where fewer than 1 % are, in 1 of 100 cases only: 0.99 ** 459 is 0.01."""


def doubts(result: BenchResult, options: BenchOptions) -> tuple[str, ...]:
    """What speaks against a result.

    Args:
        result: Of a candidate.
        options: How it was measured.
    """
    if result.failure or not result.launches:
        return ()
    found = []
    if result.server is not None:
        if (queries := options.queries * len(result.launches)) < _MIN_QUERIES:
            found.append(
                f"{queries} queries at a rate tell little of 1 in 100: more --queries or --launches, "
                f"{_MIN_QUERIES} together"
            )
        if len(result.launches) < _MIN_LAUNCHES:
            found.append(f"too few processes for an interval ({len(result.launches)}): --launches {_MIN_LAUNCHES}")
        if result.server.rate is None:
            alone = result.launches[0].wall_ms[0]
            found.append(f"no rate keeps {result.server.bound_ms:g} ms: a query alone takes {alone:.3g} ms")
        return tuple(found)
    rounds = sum(len(launch.wall_ms) for launch in result.launches)
    if rounds < _MIN_ROUNDS or len(result.launches) < _MIN_LAUNCHES:
        found.append(
            f"too few rounds for an interval ({rounds}, of --launches {len(result.launches)}): "
            f"--launches {_MIN_LAUNCHES} or more, with {_MIN_ROUNDS} rounds in all"
        )
    if (share := spread(result.launches)) > MAX_SPREAD:
        found.append(f"the rounds spread by {100 * share:.1f} %: measure when the machine is quiet, or more --rounds")
    gpu = [time for launch in result.launches for time in launch.gpu_ms]
    if gpu:
        queued = statistics.median(time for launch in result.launches for time in launch.enqueue_ms)
        if queued > _ENQUEUE_BOUND * statistics.median(gpu):
            found.append("queueing takes as long as the GPU's work (enqueue-bound): a larger --batch tells more of it")
    elif options.threads == 1:
        wall, cpu = (
            statistics.median(time for launch in result.launches for time in getattr(launch, name))
            for name in ("wall_ms", "cpu_ms")
        )
        if wall > 0 and (waited := (wall - cpu) / wall) > MAX_SPREAD:
            found.append(f"it waited {100 * waited:.0f} % of the time for a processor: other programs had it")
    if result.latency is not None and result.latency.runs < QUANTILE_RUNS:
        found.append(f"p99 of {result.latency.runs} runs is the slowest of them: more --rounds")
    return tuple(found)
