"""Parity: how far a file's outputs are from the reference's, and by which tolerances that was judged."""

from __future__ import annotations

import math
from dataclasses import dataclass

from s2mlp_deploy.artifact import SourceInfo
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.evidence.labels import label_of, name_of_data, saved_path
from s2mlp_deploy.evidence.machine import Environment
from s2mlp_deploy.evidence.notebook import ShownInNotebooks
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
        min_sqnr: Smallest signal-to-noise ratio in dB; None sets none.
        max_drop: Points of accuracy that may be lost, where there are labels: the agreement is not checked then. None
            sets none.
    """

    atol: float
    rtol: float
    min_cosine: float
    min_top1_agreement: float
    min_sqnr: float | None = None
    max_drop: float | None = None

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
        if self.min_sqnr is not None and not math.isfinite(self.min_sqnr):
            raise InputError(f"min_sqnr is {self.min_sqnr}", fix="give decibels")
        if self.max_drop is not None and not (math.isfinite(self.max_drop) and self.max_drop >= 0):
            raise InputError(f"max_drop is {self.max_drop}", fix="give points of at least 0")


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
    # Equal tensors have no ratio, and neither has a reference of zeros, of which the differences above tell.
    if limits.min_sqnr is not None and metrics.max_abs != 0 and metrics.peak != 0:
        if metrics.sqnr is None:
            failures.append("the SQNR is not finite")
        elif not metrics.sqnr >= limits.min_sqnr:
            failures.append(f"SQNR {metrics.sqnr:.1f} dB < {limits.min_sqnr:.1f} dB")
    if ranks is None:
        return failures
    drop = ranks.drop
    if limits.max_drop is not None and drop is not None:
        if not drop <= limits.max_drop + 1e-9:  # A difference of two shares has rounding of its own.
            failures.append(f"accuracy is {drop:.2f} points lower, > {limits.max_drop:.2f}")
    elif not ranks.top1_agreement >= limits.min_top1_agreement:
        failures.append(f"top-1 agreement {ranks.top1_agreement:.4f} < {limits.min_top1_agreement:.4g}")
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
class Weights:
    """Which weights a file was compared with.

    Attributes:
        checkpoint: File name; None where none was given.
        sha256: Of the checkpoint.
        seed: Of random weights; None where they are a checkpoint's, or the source's own.
    """

    checkpoint: str | None = None
    sha256: str | None = None
    seed: int | None = None

    @classmethod
    def of(cls, source: SourceInfo) -> Weights:
        """Those of a source."""
        return cls(source.checkpoint, source.checkpoint_sha256, None if source.checkpoint else source.seed)

    def same_as(self, other: Weights) -> bool:
        """Whether both are the same numbers, whatever their files are called."""
        return (self.sha256, self.seed) == (other.sha256, other.seed)


@dataclass(frozen=True)
class ParityReport(ShownInNotebooks):
    """The result of a comparison: for each output its figures, the limits it was judged by, and the failures in words.

    An artifact keeps one for each file's bytes, engine, data and weights (:attr:`label`): noise never takes the place
    of images, nor a comparison with other weights that of the right one.

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
        noise: Whether the inputs were seeded noise, which is like nothing that a model gets to see.
        data_sha256: Of the samples and their labels; empty of noise, whose description determines it.
        weights: Of the reference.
        environment: When, where and with what it was measured.
        limits: Where the limits come from: the precision in general, the file's own figures when it was made, or the
            caller.
        rests_on: Where the reference is not the source but other files of the artifact, their names and hashes: the
            comparison says no more than what is known of those.
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
    noise: bool = False
    data_sha256: str = ""
    weights: Weights | None = None
    environment: Environment | None = None
    limits: str = ""
    rests_on: tuple[tuple[str, str], ...] = ()

    @property
    def own_limits(self) -> bool:
        """Whether it was judged by figures that were measured when the file was made."""
        return any(output.tolerances is not None and output.tolerances.min_sqnr is not None for output in self.outputs)

    @property
    def passed(self) -> bool:
        """Whether every limit holds."""
        return not self.failures

    @property
    def label(self) -> str:
        """What distinguishes it from other comparisons of an artifact: ``model.int8-photos-1f0c9a2e``.

        File and data for the reader, and a hash of what the two names do not tell: the file's bytes, the samples, the
        weights and the engine. The same question again has the same label, and its answer replaces the earlier one.
        """
        weights = self.weights or Weights()
        asked = [self.file_sha256, self.candidate, self.data_sha256 or self.data, weights.sha256, weights.seed]
        return label_of(self.stem, "noise" if self.noise else name_of_data(self.data), asked=asked)

    @property
    def stem(self) -> str:
        """The file's name without its suffix."""
        return saved_path(self.file).stem
