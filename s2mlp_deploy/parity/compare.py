"""Does a candidate engine compute what the reference computes?

Both run on the same batches; what is kept are sums, so memory does not grow with the number of images. A report holds
all figures, so it can be judged again with other tolerances without running anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.engines.base import Engine
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.evidence.parity import OutputParity, ParityReport, Tolerances
from s2mlp_deploy.metrics import RankComparison, TensorComparison

# fp32: two correct runtimes add in different orders. Split attention sums over all cells before a softmax, which
# amplifies that: s2mlpv2_medium_7 with random weights on photographs differs by 3.5e-4 of the peak between torch and
# ONNX Runtime, and torch's own fp32 by 5e-4 from its float64 (benchmarks/README.md); the other zoo models stay below
# 1e-5. A wrong shift differs by more than 1e-1.
# fp16 has 11 bits: the trained nano network is 60 dB from float32, random s2mlpv2_small_7 57 dB.
# int8 and fp8: 30 and 20 dB on random s2mlpv2_small_7, 42 and 32 dB on random nano, whose logits are noise and whose
# ranking therefore says little (benchmarks/accuracy.md). What a user should judge by is the accuracy of `quantize`;
# these limits catch a wrong scale or a wrong shift, which cost 10 dB and more.
TOLERANCES = {
    "fp32": Tolerances(atol=1e-5, rtol=1e-3, min_cosine=0.99999, min_top1_agreement=0.999),
    "fp16": Tolerances(atol=1e-3, rtol=2e-2, min_cosine=0.9999, min_top1_agreement=0.98),
    "int8": Tolerances(atol=1e-2, rtol=0.25, min_cosine=0.99, min_top1_agreement=0.9),
    "int8-trt": Tolerances(atol=1e-2, rtol=0.25, min_cosine=0.99, min_top1_agreement=0.9),
    "fp8-trt": Tolerances(atol=1e-2, rtol=0.4, min_cosine=0.98, min_top1_agreement=0.85),
}


Feeds = Mapping[str, NDArray[Any]]


def compare(
    reference: Engine,
    candidates: Mapping[str, Engine],
    batches: Iterable[tuple[Feeds, NDArray[np.int64] | None]],
    *,
    on_batch: Callable[[int], None] | None = None,
) -> tuple[int, dict[str, tuple[OutputParity, ...]]]:
    """Runs the reference once and every candidate on each batch.

    Args:
        reference: What is right.
        candidates: What is compared, by name.
        batches: Inputs by name, and labels where known.
        on_batch: Called with the number of images after each batch.

    Returns:
        The number of images, and for each candidate the figures of its outputs.

    Raises:
        InputError: There are no inputs, or an output is missing or has another shape.
    """
    names = [info.name for info in reference.outputs]
    tensors = {key: {name: TensorComparison() for name in names} for key in candidates}
    ranks = {key: {name: RankComparison() for name in names} for key in candidates}
    scores: set[str] = set()
    images = 0
    for feeds, labels in batches:
        expected = reference.run(feeds)
        size = len(next(iter(feeds.values())))
        images += size
        for key, engine in candidates.items():
            actual = engine.run(_feeds_of(engine, feeds))
            if missing := [name for name in names if name not in actual]:
                raise InputError(f"{key} has no output {', '.join(missing)}", fix=f"its outputs: {', '.join(actual)}")
            for name in names:
                if expected[name].shape != actual[name].shape:
                    raise InputError(
                        f"output {name!r} has the shape {actual[name].shape}, not {expected[name].shape}",
                        where=key,
                        fix="compare with the source, checkpoint and settings that the file was exported from",
                    )
                tensors[key][name].update(expected[name], actual[name])
                if expected[name].ndim == 2 and expected[name].shape[1] > 1:
                    scores.add(name)
                    ranks[key][name].update(expected[name], actual[name], labels)
        if on_batch:
            on_batch(size)
    if images == 0:
        raise InputError("there is nothing to compare on: no inputs")
    return images, {
        key: tuple(
            OutputParity(name, tensors[key][name].result(), ranks[key][name].result() if name in scores else None)
            for name in names
        )
        for key in candidates
    }


def _feeds_of(engine: Engine, feeds: Feeds) -> dict[str, NDArray[Any]]:
    """Feeds by position, since a file from elsewhere may call its inputs otherwise; floats in the engine's own type."""
    arrays = zip(engine.inputs, feeds.values(), strict=True)
    return {
        info.name: array.astype(info.dtype) if array.dtype == np.float32 and info.dtype == "float16" else array
        for info, array in arrays
    }


def apply_tolerances(report: ParityReport, tolerances: Tolerances) -> ParityReport:
    """The report with its failures by these tolerances."""
    failures = tuple(
        f"output {output.name!r}: {failure}" for output in report.outputs for failure in _failures(output, tolerances)
    )
    return replace(report, tolerances=tolerances, failures=failures)


def _failures(output: OutputParity, limits: Tolerances) -> list[str]:
    metrics, ranks = output.metrics, output.ranks
    failures = []
    if metrics.not_finite:
        failures.append(f"{metrics.not_finite} of {metrics.elements} values are NaN or infinite")
    if metrics.reference_not_finite:
        failures.append(f"{metrics.reference_not_finite} values of the reference are NaN or infinite")
    allowed = limits.atol + limits.rtol * metrics.peak
    # Written as "not within", so that a figure that is itself NaN (float64 can overflow) fails.
    if not metrics.max_abs <= allowed:
        failures.append(
            f"max abs difference {metrics.max_abs:.3g} > {allowed:.3g} "
            f"(atol {limits.atol:g} + rtol {limits.rtol:g} x peak {metrics.peak:.3g})"
        )
    if not metrics.cosine >= limits.min_cosine:
        failures.append(f"cosine {metrics.cosine:.7f} < {limits.min_cosine:g}")
    if ranks is not None and not ranks.top1_agreement >= limits.min_top1_agreement:
        failures.append(f"top-1 agreement {ranks.top1_agreement:.4f} < {limits.min_top1_agreement:g}")
    return failures
