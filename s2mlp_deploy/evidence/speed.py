"""Whether files of other precisions are faster than float32 on what they are meant for, and why where they are not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from s2mlp_deploy.evidence.bench import NO_DIFFERENCE, BenchReport, BenchResult, Ratio
from s2mlp_deploy.evidence.choice import file_of
from s2mlp_deploy.evidence.profile import MATRIX_OPS, Profile
from s2mlp_deploy.processor import Processor

CauseKind: TypeAlias = Literal["half", "no-vnni", "dequantized", "between", "small", "unknown"]
"""float16 on a processor, int8 without VNNI, products on dequantized weights, work between operators, a network whose
time is not in its products, and what no rule knows."""

_INTEGER_OPS = frozenset(
    (
        *("QGemm", "QLinearMatMul", "QLinearConv", "MatMulInteger", "MatMulIntegerToFloat", "ConvInteger"),
        *("DynamicQuantizeMatMul", "MatMulNBits"),
    )
)
_BETWEEN_OPS = frozenset(
    (
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "FakeQuantize", "Quantize"),
        *("Cast", "Convert", "Reorder", "ReorderInput", "ReorderOutput", "Reformat", "Transpose"),
    )
)
_LARGE = 0.15
"""Share of a file's time from which on it counts as a cause."""
_FEW_PRODUCTS = 0.4
"""Share of float32's time in products, below which a faster product cannot pay for what int8 adds."""


@dataclass(frozen=True)
class Cause:
    """Why a file is not faster.

    Attributes:
        kind: Which kind of cause it is.
        words: What the profile, or the processor, shows.
    """

    kind: CauseKind
    words: str


@dataclass(frozen=True)
class SpeedCheck:
    """Files that were measured against float32, each on the engine that it is meant for.

    Attributes:
        reports: A benchmark for each engine; float32 is the first of its results.
        elsewhere: Files that ran on what they are not meant for, because that is not here: they count for nothing.
        unmeasured: By file, why it was not measured.
        failures: Files that are not so much faster as was asked for, in words.
    """

    reports: tuple[BenchReport, ...] = ()
    elsewhere: tuple[str, ...] = ()
    unmeasured: dict[str, str] = field(default_factory=dict)
    failures: tuple[str, ...] = ()

    @property
    def results(self) -> tuple[BenchResult, ...]:
        """Of the files that were measured beside float32, which itself is not among them."""
        return tuple(result for report in self.reports for result in compared(report))

    @property
    def slower(self) -> tuple[BenchResult, ...]:
        """Those that are slower than float32, and not by noise alone."""
        return tuple(result for result in self.results if misses(result, 1.0))

    def missed(self, speedup: float) -> tuple[BenchResult, ...]:
        """The files, on what they are meant for, that are less than so many times as fast, and not by noise alone."""
        return tuple(r for r in self.results if file_of(r) not in self.elsewhere and misses(r, speedup))


def compared(report: BenchReport) -> tuple[BenchResult, ...]:
    """The results that stand beside float32's."""
    return tuple(result for result in report.measured if result.ratio is not None)


def time_over(result: BenchResult) -> Ratio | None:
    """A file's time over float32's: of one thread the processor time, which other programs hardly change."""
    alone = result.candidate.threads == 1 and result.gpu_ms is None and ":" not in result.candidate.engine
    return result.cpu_ratio if alone and result.cpu_ratio is not None else result.ratio


def speed_in_words(result: BenchResult) -> str:
    """``1.25 times as fast as float32 (1.20 to 1.31)``."""
    ratio = time_over(result)
    if ratio is None:
        return "not compared with float32"
    fast = ratio.value <= 1
    factor, low, high = ratio.value, ratio.low, ratio.high
    if fast:
        factor, low, high = 1 / ratio.value, 1 / ratio.high, 1 / max(ratio.low, 1e-9)
    ends, how = f"{low:.2f} to {high:.2f}", "fast" if fast else "slow"
    if not ratio.differs:
        return f"{NO_DIFFERENCE} ({ends} times as {how} as float32)"
    return f"{factor:.2f} times as {how} as float32 ({ends})"


def misses(result: BenchResult, speedup: float) -> bool:
    """Whether a file is less than so many times as fast as float32: only where the whole interval says so."""
    ratio = time_over(result)
    return ratio is not None and ratio.low * speedup > 1


def causes(result: BenchResult, baseline: BenchResult | None, processor: Processor) -> tuple[Cause, ...]:
    """Why a file is slower than float32, the heaviest first; nothing where its nodes were not timed.

    Args:
        result: Of the file.
        baseline: Of float32 in the same run.
        processor: Of the machine.
    """
    profile = result.profile
    if profile is None:
        return ()
    precision, found = result.candidate.precision, []
    half = precision == "fp16" or precision.endswith("-trt")
    if half and result.gpu_ms is None:
        casts = _share(profile, ("Cast", "Convert"))
        found.append(
            Cause("half", f"a processor computes float16 in float32 and casts back: {_percent(casts)} of the time")
        )
    if precision.startswith("int8"):
        if processor.int8_saturates:
            words = "the processor has no VNNI, so that exact sums of 8-bit products take slower kernels"
            found.append(Cause("no-vnni", words))
        floats = [node for node in profile.nodes if node.op in MATRIX_OPS and node.op not in _INTEGER_OPS]
        whole = any(node.op in _INTEGER_OPS for node in profile.nodes)
        share = sum(node.ms for node in floats) / (profile.ms or 1.0)
        # Engines that name an integer product like another one cannot be judged by it.
        if share >= _LARGE and (whole or result.candidate.engine.startswith("onnxruntime")):
            words = f"products and convolutions in float32 ({len(floats)} of them) take {_percent(share)} of the time"
            found.append(Cause("dequantized", words))
    between = _share(profile, _BETWEEN_OPS)
    if between >= _LARGE and not any(cause.kind == "half" for cause in found):
        words = f"quantizing, casting and reordering between operators takes {_percent(between)} of the time"
        found.append(Cause("between", words))
    if baseline is not None and (plain := baseline.profile) is not None:
        share = plain.matrix_ms / (plain.ms or 1.0)
        if share < _FEW_PRODUCTS:
            words = f"only {_percent(share)} of float32's time is in products and convolutions, which could be faster"
            found.append(Cause("small", words))
    if not found:
        most = profile.by_operator()[:1]
        told = f": {most[0].name} takes most, {_percent(most[0].ms / (profile.ms or 1.0))}" if most else ""
        found.append(Cause("unknown", f"no known cause stands out{told}"))
    return tuple(found)


def _share(profile: Profile, operators: Iterable[str]) -> float:
    wanted = frozenset(operators)
    return sum(node.ms for node in profile.nodes if node.op in wanted) / (profile.ms or 1.0)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
