"""What was measured and built, in words that pages and terminals share, and the worst over several outputs."""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from s2mlp_deploy.evidence.accuracy import AccuracyReport, BudgetSearch
from s2mlp_deploy.evidence.build import BuildRecord
from s2mlp_deploy.evidence.layers import LayersReport
from s2mlp_deploy.evidence.parity import OutputParity, ParityReport, Weights
from s2mlp_deploy.evidence.standing import Standing
from s2mlp_deploy.metrics import TensorMetrics
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.text import join_names


def measured(value: float | None, shown: Callable[[float | None], str] = fmt.figure) -> str:
    """A figure that every comparison has: None says that it is not finite."""
    return fmt.NOT_FINITE if value is None else shown(value)


def psnr(metrics: TensorMetrics) -> str:
    """Equal tensors have no PSNR."""
    return fmt.EQUAL if metrics.equal else measured(metrics.psnr, fmt.decibels)


def sqnr_of(metrics: TensorMetrics) -> float | None:
    """In dB; infinite where the tensors are equal, None where there is none."""
    return math.inf if metrics.equal else None if metrics.not_finite else metrics.sqnr


def data_in_words(report: ParityReport | LayersReport) -> str:
    """``held-out digits (1,000 images)``: what was compared on, with the number where the description has none."""
    says_it = str(report.images) in report.data.replace(",", "").split()
    data = fmt.data(report.data)
    if says_it:
        return data
    return (
        f"{fmt.count(report.images, 'sample')} of {data}"
        if report.noise
        else f"{data} ({fmt.count(report.images, 'image')})"
    )


_VERSION = re.compile(r" \d[^ ]*")


def runtimes_in_words(names: Iterable[str]) -> str:
    """Names of what ran, each one once: where one of them has a version, the same one without is left out.

    >>> runtimes_in_words(["openvino 2026.4.1 (CPU)", "openvino (CPU)", "onnxruntime (CPU)"])
    'openvino 2026.4.1 (CPU) and onnxruntime (CPU)'
    """
    found = dict.fromkeys(names)
    told = {_VERSION.sub("", name, count=1) for name in found if _VERSION.search(name)}
    return join_names(name for name in found if name not in told)


def weights_in_words(weights: Weights) -> str:
    """Which weights the reference had."""
    if weights.checkpoint is not None:
        return weights.checkpoint + (f" (sha256 {fmt.short_hash(weights.sha256)})" if weights.sha256 else "")
    return "as the source made them" if weights.seed is None else f"random (seed {weights.seed})"


def proven_in_words(report: ParityReport) -> str:
    """What was read off the file itself; empty where nothing was."""
    proof = report.proof
    if proof is None:
        return ""
    words = []
    if proof.shifts or any("shift" in failure for failure in proof.failures):
        words.append(f"{fmt.count(proof.shifts, 'shift')} move elements as the source does")
    if proof.constants:
        words.append(f"{fmt.count(proof.constants, 'constant')} compared")
    return "; ".join([*words, *([f"not read: {proof.unread}"] if proof.unread else [])])


def not_finite(output: OutputParity) -> int:
    """Values that are NaN or infinite, of both sides."""
    return output.metrics.not_finite + output.metrics.reference_not_finite


def limit_of(output: OutputParity) -> float | None:
    """What the largest difference may be; None where that is as much as the reference itself, and none is more."""
    allowed, peak = output.allowed, output.metrics.peak
    if allowed is None or peak is None:
        return None
    return allowed if is_over(output) or not allowed >= peak > 0 else None


def closest_to_its_limit(outputs: Sequence[OutputParity]) -> OutputParity | None:
    """The output whose largest difference uses most of its limit, else the one that differs most; None of none."""

    def used(output: OutputParity) -> tuple[float, float]:
        largest, limit = output.metrics.max_abs, limit_of(output)
        if largest is None:
            return math.inf, math.inf
        if limit is None:
            return 0.0, largest
        return largest / limit if limit else math.inf if largest else 0.0, largest

    return max(outputs, key=used, default=None)


def closest_to_its_sqnr(outputs: Sequence[OutputParity]) -> OutputParity | None:
    """The output whose ratio of signal and noise is the least above its limit; None where none has such a limit."""
    limited = [
        (-math.inf if ratio is None else ratio - output.tolerances.min_sqnr, output)
        for output in outputs
        if output.tolerances is not None and output.tolerances.min_sqnr is not None
        for ratio in [sqnr_of(output.metrics)]
    ]
    return min(limited, key=lambda item: item[0])[1] if limited else None


def is_over(output: OutputParity) -> bool:
    """Whether the largest difference is more than the tolerances allow."""
    largest, allowed = output.metrics.max_abs, output.allowed
    return output.tolerances is not None and (largest is None or allowed is None or not largest <= allowed)


def drop_of(standing: Standing) -> float | None:
    """Points by which a file's accuracy is below its reference's, where parity was measured on labelled images."""
    ranks = [output.ranks for item in standing.basis for output in item.report.outputs if output.ranks is not None]
    return max((item.drop for item in ranks if item.drop is not None), default=None)


@dataclass(frozen=True)
class Worst:
    """For each figure the worst over several outputs, in words; ``-`` where none has it.

    Attributes:
        max_abs: Largest absolute difference.
        psnr: Smallest; ``equal`` where every output is equal.
        equal: Whether every output is.
        top1: Smallest agreement on the first class.
        reference_accuracy: Smallest.
        candidate_accuracy: Smallest.
    """

    max_abs: str
    psnr: str
    equal: bool
    top1: str
    reference_accuracy: str
    candidate_accuracy: str


def worst_of(outputs: Sequence[OutputParity]) -> Worst:
    """The worst figures of several outputs."""
    metrics = [output.metrics for output in outputs]
    ranks = [output.ranks for output in outputs if output.ranks is not None]
    unequal = [item for item in metrics if not item.equal]
    largest = [item.max_abs for item in metrics]
    noise = [item.psnr for item in unequal]
    references = [item.reference_accuracy for item in ranks if item.reference_accuracy is not None]
    candidates = [item.candidate_accuracy for item in ranks if item.candidate_accuracy is not None]
    return Worst(
        max_abs=_extreme(largest, max, fmt.figure),
        psnr=fmt.EQUAL if metrics and not unequal else _extreme(noise, min, fmt.decibels),
        equal=bool(metrics) and not unequal,
        top1=_extreme([item.top1_agreement for item in ranks], min, fmt.percent),
        reference_accuracy=_extreme(references, min, fmt.percent),
        candidate_accuracy=_extreme(candidates, min, fmt.percent),
    )


def _extreme(
    values: Sequence[float | None], pick: Callable[[list[float]], float], shown: Callable[[float | None], str]
) -> str:
    finite = [value for value in values if value is not None]
    if len(finite) < len(values):
        return fmt.NOT_FINITE
    return shown(pick(finite)) if finite else fmt.MISSING


def budget_sentence(search: BudgetSearch) -> str:
    """How a budget was kept, in one sentence."""
    layers = f"{len(search.kept)} of {fmt.count(len(search.sqnr), 'layer')} in higher precision"
    if search.drop is None:
        return f"Its score is not known, with {layers}."
    change = f"{fmt.points(abs(search.drop))} points {'below' if search.drop >= 0 else 'above'} fp32"
    return f"{change} in {search.metric}, where {fmt.figure(search.max_drop)} may be lost, with {layers}."


def measured_in_words(scores: AccuracyReport) -> str:
    """What the figures of files are, and on what they were measured."""
    if not scores.metric:
        return f"compared with fp32 on {scores.data}"
    several = any(len(row.outputs) > 1 for row in scores.rows)
    of = f" of {scores.output}" if several and scores.output else ""
    return f"{scores.metric}{of}, in points, on {fmt.data(scores.data)}"


def precision_in_words(record: BuildRecord) -> str:
    """How many GEMMs and convolutions compute in what, and how many layers of any kind the file lists as exceptions.

    ``52 of 55 GEMMs and convolutions in int8, 3 in fp16; 3 layers listed as exceptions``.
    """
    ops = record.contents.matrix_ops if record.contents is not None else ()
    counts = collections.Counter(op.precision for op in ops)
    what = "GEMM or convolution" if len(ops) == 1 else "GEMMs and convolutions"
    if record.precision is None:
        inside = f" ({fmt.integer(len(ops))} {what}: {_listed(counts)})" if ops else ""
        return f"none was required{inside}"
    if not ops:
        return record.precision
    inside = f"{fmt.integer(counts.pop(record.precision, 0))} of {fmt.integer(len(ops))} {what} in {record.precision}"
    others = f", {_listed(counts)}" if counts else ""
    listed = f"; {fmt.count(len(record.exceptions), 'layer')} listed as exceptions" if record.exceptions else ""
    return f"{inside}{others}{listed}"


def _listed(counts: collections.Counter[str]) -> str:
    return ", ".join(f"{fmt.integer(times)} in {precision}" for precision, times in counts.most_common())
