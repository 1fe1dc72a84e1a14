"""The short benchmark behind ``quantize`` and ``export --precision``: new files against float32, in some seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from s2mlp_deploy.bench.candidates import Job, Shape
from s2mlp_deploy.bench.options import BenchOptions
from s2mlp_deploy.bench.run import measure
from s2mlp_deploy.evidence.bench import BenchReport, BenchResult
from s2mlp_deploy.evidence.speed import misses
from s2mlp_deploy.files import sha256_of
from s2mlp_deploy.progress import ProgressCallback, no_progress

LAUNCHES, ROUNDS = 3, 4
"""As few as :mod:`~s2mlp_deploy.bench.trust` believes: an interval needs three processes and ten rounds."""
_WARMUP = 0.1


def measure_speed(
    files: Sequence[Path],
    engine: str,
    shapes: Mapping[str, Shape],
    *,
    speedup: float = 1.0,
    progress: ProgressCallback = no_progress,
) -> BenchReport:
    """Measures files side by side. Of those that are not fast enough, or slower than float32, nodes are timed too.

    Args:
        files: ONNX files or engine files, float32 first.
        engine: What runs them.
        shapes: By input, where sizes besides the batch are free.
        speedup: How many times as fast as float32 is fast enough. What is slower is told of, and why, whatever it is.
        progress: Called with what is being done.

    Raises:
        S2MLPDeployError: The engine is not here, or a size is not known.
    """

    def slow(results: Sequence[BenchResult]) -> list[int]:
        found = [number for number, result in enumerate(results) if misses(result, max(speedup, 1.0))]
        return [0, *found] if found else []

    options = BenchOptions(launches=LAUNCHES, rounds=ROUNDS, warmup=_WARMUP, quantiles=False, shapes=shapes)
    jobs = [Job(path, sha256_of(path), engine, None) for path in files]
    return measure(jobs, options, look_into=slow, progress=progress)
