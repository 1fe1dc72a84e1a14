"""Accuracy: what the files of an artifact score, and how an accuracy budget was kept.

Any figure may be None: a score of NaN or infinity is saved as null, since JSON has neither.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from s2mlp_deploy.artifact import Manifest
from s2mlp_deploy.evidence.labels import label_of, name_of_data
from s2mlp_deploy.evidence.machine import Environment
from s2mlp_deploy.evidence.notebook import ShownInNotebooks
from s2mlp_deploy.evidence.parity import OutputParity
from s2mlp_deploy.processor import Processor

AS_IN_THE_FILE = "as in the file"
"""How a file was computed whose results were not rounded to float16."""


ACCURACY = "top-1 accuracy"
"""The metric where there are labels."""

AGREEMENT = "top-1 agreement with fp32"
"""The metric where there are neither labels nor a score of the user's own."""

COLLAPSE = 20.0
"""Points below float32 at which a file counts as broken, whoever asked for no budget: no quantization costs that."""


@dataclass(frozen=True)
class Guess:
    """What a file says of an image.

    Attributes:
        label: Name or index of its first class.
        probability: Of that class, by softmax.
    """

    label: str
    probability: float | None


@dataclass(frozen=True)
class WorstImage:
    """An image on which a file differs most from float32.

    Attributes:
        thumbnail: A small PNG or JPEG as a ``data:`` address; empty where the input is no image.
        label: What it is, where that is known.
        reference: What float32 says.
        candidate: What the file says.
        distance: Largest difference of a score, as a share of the largest score.
        index: Its number in the data, from 0; None where that was not kept.
        name: Its path in the data; empty where it has none.
    """

    thumbnail: str
    label: str
    reference: Guess
    candidate: Guess
    distance: float | None
    index: int | None = None
    name: str = ""


@dataclass(frozen=True)
class AccuracyRow:
    """One file's figures.

    Attributes:
        file: Its name.
        precision: Of the file.
        bytes: Its size.
        score: Accuracy, agreement or the user's metric, in points; None where nothing was scored.
        agreement: Share of images, in percent, whose first class is float32's; None where outputs are no scores.
        sqnr: Signal-to-noise ratio of the scored output in dB, float32 being the signal; None for float32 itself.
        arithmetic: How it was computed: ``as in the file``, or ``rounded to float16`` for float16 graphs, which ONNX
            Runtime computes in float32 on a CPU.
        worst: Images that differ most.
        outputs: Every output beside float32's on the data; none where there was no data.
        on_noise: The same on seeded noise, which is what parity takes where it is given no data.
        failures: Every floor that the user set and the file does not reach, in words.
    """

    file: str
    precision: str
    bytes: int
    score: float | None
    agreement: float | None
    sqnr: float | None
    arithmetic: str
    worst: tuple[WorstImage, ...] = ()
    outputs: tuple[OutputParity, ...] = ()
    on_noise: tuple[OutputParity, ...] = ()
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trial:
    """One graph that was measured on the way to a budget.

    Attributes:
        kept: How many layers it keeps in higher precision, the worst first.
        score: In points.
        drop: Points below the reference.
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
        gain: Points that the score fell by when it was quantized in its turn, the worse ones still kept.
    """

    layer: str
    sqnr: float | None
    gain: float | None


@dataclass(frozen=True)
class BudgetSearch:
    """How a budget was kept.

    Attributes:
        metric: What the score is, in words.
        max_drop: The budget, in points.
        reference: The score of float32.
        score: Of the finished graph.
        sqnr: Of every layer, in dB, the worst first.
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
    def drop(self) -> float | None:
        """Points below the reference; None where a score is not known."""
        return None if self.reference is None or self.score is None else self.reference - self.score


@dataclass(frozen=True)
class AccuracyReport(ShownInNotebooks):
    """What the files of an artifact score, how far their outputs are from float32's, and trials of an accuracy budget.

    Attributes:
        metric: What the score is; empty where nothing was scored: outputs are no lists of scores, or there was no data.
        data: What it was measured on.
        images: How many.
        rows: The files, float32 first; at least one.
        sqnr: By precision, every layer's signal-to-quantization-noise ratio in dB.
        searches: By precision, how a budget was kept.
        sha256: Of each file that was measured, by its name.
        data_sha256: Of the samples that were scored on and their labels; empty where that is not known.
        output: The output that was scored; empty where none was.
        environment: When, where and with what it was measured.
    """

    metric: str
    data: str
    images: int
    rows: tuple[AccuracyRow, ...]
    sqnr: dict[str, dict[str, float | None]] = field(default_factory=dict)
    searches: dict[str, BudgetSearch] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)
    data_sha256: str = ""
    output: str = ""
    environment: Environment | None = None

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("it has no row")

    @property
    def processor(self) -> Processor | None:
        """What the scores were computed on: int8 kernels differ with its instruction sets."""
        return None if self.environment is None else self.environment.machine.processor

    @property
    def label(self) -> str:
        """What distinguishes it from other scores of an artifact: ``photos-1f0c9a2e``; equal where scores compare."""
        *asked, processor, reference, _ = self._scored_on()
        instructions = [processor.name, *processor.instructions] if isinstance(processor, Processor) else []
        return label_of(name_of_data(self.data), asked=[*asked, instructions, reference])

    def drop(self, row: AccuracyRow) -> float | None:
        """Points below float32; None for float32 itself, which is the first row."""
        reference = self.rows[0]
        if row is reference or row.score is None or reference.score is None:
            return None
        return reference.score - row.score

    def collapsed(self) -> tuple[AccuracyRow, ...]:
        """The files that lose :data:`COLLAPSE` points or more, with or without a budget."""
        return tuple(row for row in self.rows if (self.drop(row) or 0.0) >= COLLAPSE)

    @property
    def failures(self) -> tuple[str, ...]:
        """Every floor that a file does not reach, with the file's name."""
        return tuple(f"{row.file}: {failure}" for row in self.rows for failure in row.failures)

    def row_of(self, sha256: str) -> AccuracyRow | None:
        """The figures of the file with this hash; None where it was not measured."""
        return next((row for row in self.rows if sha256 and self.sha256.get(row.file) == sha256), None)

    def file_of(self, precision: str) -> str:
        """The file of a precision; the precision itself where no row has it."""
        return next((row.file for row in self.rows if row.precision == precision), precision)

    def outdated(self, manifest: Manifest) -> frozenset[str]:
        """The files whose scores are not those of the artifact's file: it was replaced since, or it is gone."""
        present = {record.path: record.sha256 for record in manifest.files}
        # A score that does not say of which bytes it is counts as another file's.
        return frozenset(
            row.file for row in self.rows if row.file not in present or self.sha256.get(row.file) != present[row.file]
        )

    def current(self, manifest: Manifest, *, but: Collection[str] = ()) -> AccuracyReport | None:
        """What of these scores is of files that are there; None where nothing but float32 is left.

        Args:
            manifest: Of the artifact.
            but: Files to leave out: newer scores tell of them.
        """
        left_out = self.outdated(manifest) | set(but)
        first, *others = self.rows
        if first.file in self.outdated(manifest):
            return None
        kept = [row for row in others if row.file not in left_out]
        names = {row.precision for row in kept}
        return (
            replace(
                self,
                rows=(first, *kept),
                sqnr={name: value for name, value in self.sqnr.items() if name in names},
                searches={name: value for name, value in self.searches.items() if name in names},
            )
            if kept
            else None
        )

    def _scored_on(self) -> tuple[object, ...]:
        """What must be equal for the scores of two runs to be comparable."""
        reference = self.rows[0]
        return (
            self.metric,
            self.output,
            self.data,
            self.data_sha256,
            self.images,
            self.processor,
            self.sha256.get(reference.file),
            reference.score,
        )

    def with_earlier(self, earlier: AccuracyReport, manifest: Manifest) -> AccuracyReport:
        """These scores, and of an earlier run those of other files that are still there and were scored on the same.

        Args:
            earlier: What was saved before.
            manifest: Of the artifact as it is now.
        """
        ours, theirs = (r._scored_on() for r in (self, earlier))
        if ours != theirs or not self.data_sha256:
            return self
        old = earlier.outdated(manifest)
        rows = tuple(row for row in earlier.rows if row.file not in self.sha256 and row.file not in old)
        kept = {row.precision for row in rows}
        return replace(
            self,
            rows=self.rows + rows,
            sqnr={name: value for name, value in earlier.sqnr.items() if name in kept} | self.sqnr,
            searches={name: value for name, value in earlier.searches.items() if name in kept} | self.searches,
            sha256={row.file: earlier.sha256[row.file] for row in rows} | self.sha256,
        )
