"""Parity: how far a file's outputs are from the reference's, and by which tolerances that was judged."""

from __future__ import annotations

import math
from dataclasses import dataclass

from s2mlp_deploy.errors import InputError
from s2mlp_deploy.metrics import RankMetrics, TensorMetrics


@dataclass(frozen=True)
class Tolerances:
    """What an output may differ by from the reference. Every limit must hold.

    Raises:
        InputError: ``atol`` or ``rtol`` is negative or not finite; ``min_cosine`` lies outside -1 to 1, or
            ``min_top1_agreement`` outside 0 to 1.

    Attributes:
        atol: Allowed absolute difference, on top of:
        rtol: Allowed difference as a share of the reference's largest absolute value.
        min_cosine: Smallest cosine.
        min_top1_agreement: Smallest share of images whose first class agrees; checked for scores only.
    """

    atol: float
    rtol: float
    min_cosine: float
    min_top1_agreement: float

    def __post_init__(self) -> None:
        for name, value in (("atol", self.atol), ("rtol", self.rtol)):
            # NaN and infinity would let anything pass.
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"{name} is {value}", fix="give a number of at least 0")
        for name, value, least in (
            ("min_cosine", self.min_cosine, -1),
            ("min_top1_agreement", self.min_top1_agreement, 0),
        ):
            if not least <= value <= 1:
                raise InputError(f"{name} is {value}", fix=f"give a number from {least} to 1")


@dataclass(frozen=True)
class OutputParity:
    """One output's figures.

    Attributes:
        name: Of the output.
        metrics: The distance of the tensors.
        ranks: Agreement as a classifier; None where the output is not a matrix of scores.
        tolerances: The limits it was judged by; None where it was not judged.
    """

    name: str
    metrics: TensorMetrics
    ranks: RankMetrics | None
    tolerances: Tolerances | None = None

    @property
    def allowed(self) -> float | None:
        """The largest absolute difference that the tolerances allow; None without tolerances or without a peak."""
        if self.tolerances is None or self.metrics.peak is None:
            return None
        return self.tolerances.atol + self.tolerances.rtol * self.metrics.peak


def unmet_limits(output: OutputParity) -> list[str]:
    """Every limit that an output's figures do not keep, in words; none for an output without tolerances.

    The one place where tolerances meet figures: a comparison is judged by it when it is made, and a saved one again
    when it is shown.
    """
    metrics, ranks, limits = output.metrics, output.ranks, output.tolerances
    if limits is None:
        return []
    failures: list[str] = []
    if not metrics.elements:
        return ["it has no elements: nothing was compared"]
    if metrics.unequal is not None:
        # Numbers of things: classes, positions. How far apart they are says nothing.
        share = 1 - metrics.unequal / metrics.elements
        if not share >= limits.min_top1_agreement:
            failures.append(f"{metrics.unequal} of {metrics.elements} whole numbers differ")
        return failures
    if metrics.not_finite:
        failures.append(f"{metrics.not_finite} of {metrics.elements} values are NaN or infinite")
    if metrics.reference_not_finite:
        failures.append(f"{metrics.reference_not_finite} values of the reference are NaN or infinite")
    # A figure can itself be too large for float64: it is None then, and holds no limit. Comparisons are written as "not
    # within", so that NaN would hold none either.
    if metrics.max_abs is None or output.allowed is None:
        failures.append("the max abs difference is not finite")
    elif not metrics.max_abs <= output.allowed:
        failures.append(
            f"max abs difference {metrics.max_abs:.3g} > {output.allowed:.3g} "
            f"(atol {limits.atol:g} + rtol {limits.rtol:g} x peak {metrics.peak:.3g})"
        )
    if metrics.cosine is None:
        failures.append("the cosine is not finite")
    elif not metrics.cosine >= limits.min_cosine:
        failures.append(f"cosine {metrics.cosine:.7f} < {limits.min_cosine:g}")
    if ranks is not None and not ranks.top1_agreement >= limits.min_top1_agreement:
        failures.append(f"top-1 agreement {ranks.top1_agreement:.4f} < {limits.min_top1_agreement:g}")
    return failures


@dataclass(frozen=True)
class GraphProof:
    """What was read off a file, without running it on data: whether it moves elements as its source does.

    Attributes:
        shifts: How many shifts have the index map of their specification, and of the source.
        constants: How many constants are the source's, or the float32 file's, but for the rounding of their type.
        failures: What is wrong with others, in words.
        unread: Why shifts could not be read off the file; empty where all were.
    """

    shifts: int
    constants: int = 0
    failures: tuple[str, ...] = ()
    unread: str = ""


@dataclass(frozen=True)
class ParityReport:
    """The result of a comparison.

    Attributes:
        reference: What was compared with.
        candidate: What was compared.
        file: The candidate's file.
        precision: Of the file, as its own description says; ``fp32`` where it says nothing.
        data: What the inputs were.
        images: How many.
        outputs: The figures, with the limits they were judged by.
        failures: Every limit that does not hold, in words; empty when parity holds.
        file_sha256: Hash of the candidate's file.
        eager: Where the source's code races: how its eager run, which is no valid reference, compares with the
            functional meaning.
        proof: What was read off the file itself; None where nothing was: of engines.
        tried: Special values and other sizes that it was tried with besides the data.
        notes: What a user should know of the comparison: data that tells nothing apart, for example.
    """

    reference: str
    candidate: str
    file: str
    precision: str
    data: str
    images: int
    outputs: tuple[OutputParity, ...]
    failures: tuple[str, ...] = ()
    file_sha256: str = ""
    eager: tuple[OutputParity, ...] = ()
    proof: GraphProof | None = None
    tried: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every limit holds."""
        return not self.failures
