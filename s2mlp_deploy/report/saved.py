"""The scores and ranges that ``quantize`` saves, as reports read them back.

Fields carry the names they are saved under. Those a later version adds are ignored; a file in which one is missing or
of another type is refused as a whole, so nothing below this module meets a half-read one. Any figure may be None: JSON
has no NaN and no infinity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from s2mlp_deploy.artifact import CalibrationRecord, Manifest
from s2mlp_deploy.report import format as fmt

AS_IN_THE_FILE = "as in the file"
"""How a file was computed whose results were not rounded to float16."""


@dataclass(frozen=True)
class Guess:
    """What a file says of an image.

    Attributes:
        label: Its first class.
        probability: Of that class.
    """

    label: str
    probability: float | None


@dataclass(frozen=True)
class WorstImage:
    """An image on which a file differs most from float32.

    Attributes:
        picture: A ``data:`` address, not checked yet; empty where the input is no picture.
        label: What it is, where that is known.
        reference: What float32 says.
        candidate: What the file says.
        distance: Largest difference of a score, as a share of the largest score.
    """

    picture: str
    label: str
    reference: Guess
    candidate: Guess
    distance: float | None


@dataclass(frozen=True)
class FileScore:
    """What one file scores.

    Attributes:
        file: Its name.
        precision: Of the file.
        bytes: Its size.
        score: In points.
        agreement: Share of images, in percent, whose first class is float32's.
        sqnr: Of the first output, in dB; None for float32 itself.
        arithmetic: How it was computed.
        worst: Images that differ most.
    """

    file: str
    precision: str
    bytes: int
    score: float | None
    agreement: float | None
    sqnr: float | None
    arithmetic: str
    worst: tuple[WorstImage, ...] = ()


@dataclass(frozen=True)
class Trial:
    """A graph that was measured on the way to a budget.

    Attributes:
        kept: How many layers it keeps in higher precision.
        score: In points.
        drop: Points below float32.
        holds: Whether that is within the budget.
    """

    kept: int
    score: float | None
    drop: float | None
    holds: bool


@dataclass(frozen=True)
class KeptLayer:
    """A layer that a budget keeps in higher precision.

    Attributes:
        layer: Its name.
        sqnr: What quantizing it costs, in dB.
        gain: Points that the file would lose without it.
    """

    layer: str
    sqnr: float | None
    gain: float | None


@dataclass(frozen=True)
class BudgetSearch:
    """How a budget was kept.

    Attributes:
        metric: What the score is.
        max_drop: The budget, in points.
        reference: Score of float32.
        score: Of the finished file.
        sqnr: Of every layer, in dB.
        trials: Everything that was measured, in order.
        kept: What stays in higher precision.
    """

    metric: str
    max_drop: float | None
    reference: float | None
    score: float | None
    sqnr: dict[str, float | None] = field(default_factory=dict)
    trials: tuple[Trial, ...] = ()
    kept: tuple[KeptLayer, ...] = ()

    @property
    def in_words(self) -> str:
        """The outcome in a sentence."""
        layers = f"{len(self.kept)} of {fmt.count(len(self.sqnr), 'layer')} in higher precision"
        if self.reference is None or self.score is None:
            return f"Its score is not known, with {layers}."
        change = self.reference - self.score
        moved = f"{fmt.points(abs(change))} points {'below' if change >= 0 else 'above'} fp32"
        return f"{moved} in {self.metric}, where {fmt.figure(self.max_drop)} may be lost, with {layers}."


@dataclass(frozen=True)
class Scores:
    """``evidence/accuracy.json``.

    Attributes:
        metric: What the score is.
        data: What it was measured on.
        images: How many.
        rows: The files, float32 first.
        sqnr: By precision, every layer's signal-to-quantization-noise ratio in dB.
        searches: By precision, how a budget was kept.
        sha256: Of each file that was measured.
    """

    metric: str
    data: str
    images: int
    rows: tuple[FileScore, ...]
    sqnr: dict[str, dict[str, float | None]] = field(default_factory=dict)
    searches: dict[str, BudgetSearch] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)

    def drop(self, row: FileScore) -> float | None:
        """Points below float32; None for float32 itself, which is the first row."""
        reference = self.rows[0]
        if row is reference or row.score is None or reference.score is None:
            return None
        return reference.score - row.score

    def file_of(self, precision: str) -> str:
        """The file of a precision; the precision itself where no row has it."""
        return next((row.file for row in self.rows if row.precision == precision), precision)


@dataclass(frozen=True)
class Activation:
    """An activation's histogram and the ranges that were chosen for it.

    Attributes:
        name: Of the value.
        layers: The products that read it.
        minimum: Smallest value seen.
        maximum: Largest value seen.
        counts: Of each bin.
        start: Where the first bin begins.
        width: Of a bin.
        ranges: Lowest and highest value that is kept, by scheme.
    """

    name: str
    layers: tuple[str, ...]
    minimum: float | None
    maximum: float | None
    counts: tuple[int, ...]
    start: float | None
    width: float | None
    ranges: dict[str, tuple[float | None, float | None]]


@dataclass(frozen=True)
class Calibration:
    """``evidence/calibration.json``.

    Attributes:
        calibration: On what the ranges were measured.
        activations: In graph order.
    """

    calibration: CalibrationRecord
    activations: tuple[Activation, ...]


def read_scores(data: Mapping[str, Any]) -> Scores:
    """Scores from parsed JSON.

    Raises:
        ValueError: A field is missing or of another type, or there is no row.
    """
    scores = msgspec.convert(data, Scores)
    if not scores.rows:
        raise ValueError("it has no row")
    return scores


def read_calibration(data: Mapping[str, Any]) -> Calibration:
    """A calibration from parsed JSON.

    Raises:
        ValueError: A field is missing or of another type.
    """
    return msgspec.convert(data, Calibration)


def outdated(scores: Scores, manifest: Manifest) -> frozenset[str]:
    """The files whose scores are not those of the artifact's file: it was replaced since, or it is gone."""
    present = {record.path: record.sha256 for record in manifest.files}
    # A score that does not say of which bytes it is counts as another file's.
    return frozenset(
        row.file for row in scores.rows if row.file not in present or scores.sha256.get(row.file) != present[row.file]
    )
