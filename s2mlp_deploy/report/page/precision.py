"""What a page shows of files of other precisions: sizes and scores, budgets, layers, ranges and images."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from s2mlp_deploy.artifact import Manifest
from s2mlp_deploy.evidence.accuracy import AS_IN_THE_FILE, AccuracyReport, AccuracyRow, WorstImage
from s2mlp_deploy.evidence.calibration import CalibrationReport
from s2mlp_deploy.evidence.choice import scored_beside
from s2mlp_deploy.evidence.standing import Standing, comparisons, standings
from s2mlp_deploy.evidence.store import Evidence
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.figures import drop_of, measured_in_words
from s2mlp_deploy.report.page.cells import Cell, Table
from s2mlp_deploy.report.page.charts import HistogramPlot, SqnrPlot, draw_histogram, draw_sqnr
from s2mlp_deploy.report.page.scores import QUANTIZE_AGAIN, BudgetView, score_table, view_budget
from s2mlp_deploy.report.verdict import STATES
from s2mlp_deploy.text import join_names

_IMAGE = re.compile(r"data:image/(?:png|jpeg);base64,[A-Za-z0-9+/]+={0,2}")
_SHOWN_HISTOGRAMS = 3


@dataclass(frozen=True)
class LayersView:
    """What quantizing costs each layer of a file.

    Attributes:
        file: Its name.
        plot: The drawing.
    """

    file: str
    plot: SqnrPlot


@dataclass(frozen=True)
class ImageView:
    """An image with two predictions.

    Attributes:
        thumbnail: A PNG or JPEG as a ``data:`` address; empty where there is none.
        label: What it is; empty where it is not known.
        name: Where it lies in the data, or its number; empty where neither was kept.
        reference: What float32 says.
        candidate: What the file says.
        differs: Whether the two name another class.
        distance: Between the scores, in words.
    """

    thumbnail: str
    label: str
    name: str
    reference: str
    candidate: str
    differs: bool
    distance: str


@dataclass(frozen=True)
class ImagesView:
    """The images that a file does worst on.

    Attributes:
        file: Its name.
        images: The worst first.
        differing: How many of them have another first class.
    """

    file: str
    images: tuple[ImageView, ...]
    differing: int


@dataclass(frozen=True)
class ExceptionsView:
    """Layers in higher precision for one reason.

    Attributes:
        reason: Why.
        precision: What they compute in.
        files: The files they are of.
        layers: Their names.
    """

    reason: str
    precision: str
    files: tuple[str, ...]
    layers: tuple[str, ...]


@dataclass(frozen=True)
class ScoresView:
    """Files that were scored on the same.

    Attributes:
        measured: What the score is and on what it was measured; empty where nothing was.
        table: A row for each file.
    """

    measured: str
    table: Table


@dataclass(frozen=True)
class PrecisionView:
    """Everything about files of other precisions.

    Attributes:
        warnings: What a reader must know before trusting a figure.
        scores: Size and accuracy of every file: a table for each data set and metric, the newest first.
        scored: Whether anything was, and not only compared with float32.
        unscored: Why nothing was scored or compared; empty where something was.
        rounded: Whether files were scored with results rounded to float16.
        budgets: One for each file under a budget.
        layers: One for each quantized file.
        images: One for each file.
        exceptions: Layers in higher precision.
        calibration: What ranges were measured on: label and value.
        shown: Histograms of the worst layers.
        folded: The other histograms.
    """

    warnings: tuple[str, ...]
    scores: tuple[ScoresView, ...]
    scored: bool
    unscored: str
    rounded: bool
    budgets: tuple[BudgetView, ...]
    layers: tuple[LayersView, ...]
    images: tuple[ImagesView, ...]
    exceptions: tuple[ExceptionsView, ...]
    calibration: tuple[tuple[str, Cell], ...]
    shown: tuple[HistogramPlot, ...]
    folded: tuple[HistogramPlot, ...]


def view_precision(manifest: Manifest, evidence: Evidence) -> PrecisionView | None:
    """Gathers what is known of other precisions; None where float32 is all there is."""
    saved, ranges = evidence.newest(AccuracyReport), evidence.one(CalibrationReport)
    if (
        not saved
        and ranges is None
        and manifest.calibration is None
        and all(record.precision == "fp32" for record in manifest.files)
    ):
        return None
    scored = _each_file_once(manifest, saved)
    known = standings(manifest, comparisons(manifest, evidence))
    instead = {item.file: _instead(manifest, item) for item in known}
    layers = tuple(view for scores in scored for view in _layers(manifest, scores))
    histograms = _histograms(ranges, layers) if ranges else ((), ())
    rows = [row for scores in scored for row in scores.rows]
    return PrecisionView(
        warnings=_warnings(manifest, scored, ranges, sum(map(len, histograms))),
        scores=_scores(manifest, scored, instead),
        scored=any(scores.metric for scores in scored),
        unscored="" if scored else _unscored(manifest),
        rounded=any(row.arithmetic != AS_IN_THE_FILE for row in rows),
        budgets=tuple(
            view_budget(_called(manifest, scores, scores.file_of(name)), search)
            for scores in scored
            for name, search in scores.searches.items()
        ),
        layers=layers,
        images=tuple(
            _images(_called(manifest, scores, row.file), row) for scores in scored for row in scores.rows if row.worst
        ),
        exceptions=_exceptions(manifest),
        calibration=_calibration(manifest),
        shown=histograms[0],
        folded=histograms[1],
    )


def _each_file_once(manifest: Manifest, saved: Sequence[AccuracyReport]) -> tuple[AccuracyReport, ...]:
    """The newest scores, and of older ones on other data those of files that newer ones do not tell of."""
    found = list(saved[:1])
    for scores in saved[1:]:
        told = {row.file for newer in found for row in newer.rows}
        if (rest := scores.current(manifest, but=told)) is not None:
            found.append(rest)
    return tuple(found)


def _scores(manifest: Manifest, scored: Sequence[AccuracyReport], instead: Mapping[str, str]) -> tuple[ScoresView, ...]:
    known = {row.file for scores in scored for row in scores.rows}
    unscored = {
        record.path: instead.get(record.path, "")
        for record in manifest.files
        if record.path.endswith(".onnx") and record.path not in known
    }
    if not scored:
        return (ScoresView("", score_table(manifest, None, unscored)),)
    return tuple(
        ScoresView(
            ("Score: " if scores.metric else "Not scored, ") + measured_in_words(scores),
            score_table(manifest, scores, {} if index else unscored),
        )
        for index, scores in enumerate(scored)
    )


def _instead(manifest: Manifest, standing: Standing) -> str:
    """What there is in place of a score: an accuracy of parity, or another file's score."""
    if drop_of(standing) is not None:
        return "its accuracy stands under Parity"
    beside = scored_beside(manifest, standing)
    return f"compared with {beside} alone" if beside and standing.on_noise else ""


def _warnings(
    manifest: Manifest, scored: Sequence[AccuracyReport], ranges: CalibrationReport | None, drawn: int
) -> tuple[str, ...]:
    warnings = []
    if old := sorted({file for scores in scored for file in scores.outdated(manifest)}):
        warnings.append(
            f"The scores of {join_names(old)} were measured on older files of the same name, or on files that are "
            f"gone: they say nothing of what is here. {QUANTIZE_AGAIN.capitalize()}."
        )
    if ranges and ranges.calibration != manifest.calibration:
        warnings.append(
            f"The histograms are of another calibration than the files of this artifact. {QUANTIZE_AGAIN.capitalize()}."
        )
    if ranges and drawn < len(ranges.activations):
        left_out = fmt.count(len(ranges.activations) - drawn, "activation")
        warnings.append(f"{left_out} could not be drawn: the saved figures make no histogram.")
    return tuple(warnings)


def _unscored(manifest: Manifest) -> str:
    """Why there are no scores, as far as the manifest tells."""
    calibration, output = manifest.calibration, manifest.outputs[0] if manifest.outputs else None
    if calibration is None or not calibration.sha256:
        return "Nothing was scored: the files were made without data."
    samples = fmt.count(calibration.samples, "sample")
    if output is not None and not (len(output.shape) == 2 and output.shape[1] != 1):
        return (
            f"Nothing was scored: ranges were measured on {samples}, but {output.name} is no list of scores per image. "
            "Give a metric of your own to measure what the files are worth."
        )
    return f"No scores are saved here. Ranges were measured on {samples}: {QUANTIZE_AGAIN} to score the files on them."


def _called(manifest: Manifest, scores: AccuracyReport, file: str) -> str:
    """A file's name, and that these figures are of another one where they are."""
    return f"{file}, {STATES['stale']}" if file in scores.outdated(manifest) else file


def _layers(manifest: Manifest, scores: AccuracyReport) -> tuple[LayersView, ...]:
    views = []
    for precision, costs in scores.sqnr.items():
        search = scores.searches.get(precision)
        plot = draw_sqnr(costs, {layer.layer for layer in search.kept} if search else frozenset())
        if plot is not None:
            views.append(LayersView(_called(manifest, scores, scores.file_of(precision)), plot))
    return tuple(views)


def _histograms(
    ranges: CalibrationReport, layers: Sequence[LayersView]
) -> tuple[tuple[HistogramPlot, ...], tuple[HistogramPlot, ...]]:
    """The histograms that the worst layers read, and the others, both in graph order."""
    plots = [plot for activation in ranges.activations if (plot := draw_histogram(activation)) is not None]
    by_rank = [layer for place in zip(*(view.plot.worst for view in layers), strict=False) for layer, _, _ in place]
    chosen: dict[int, None] = {}
    for layer in by_rank:
        found = next((index for index, plot in enumerate(plots) if layer in plot.layers), None)
        if found is not None and len(chosen) < _SHOWN_HISTOGRAMS:
            chosen[found] = None
    return (
        tuple(plots[index] for index in sorted(chosen)),
        tuple(plot for index, plot in enumerate(plots) if index not in chosen),
    )


def _images(called: str, row: AccuracyRow) -> ImagesView:
    images = tuple(_image(image) for image in row.worst)
    return ImagesView(called, images, sum(image.differs for image in images))


def _image(image: WorstImage) -> ImageView:
    def guess(label: str, probability: float | None) -> str:
        return f"{label} {fmt.percent(probability, 1)}"

    return ImageView(
        # Any other address would be a request, or worse.
        thumbnail=image.thumbnail if _IMAGE.fullmatch(image.thumbnail) else "",
        label=image.label,
        name=image.name or (f"image {fmt.integer(image.index + 1)}" if image.index is not None else ""),
        reference=guess(image.reference.label, image.reference.probability),
        candidate=guess(image.candidate.label, image.candidate.probability),
        differs=image.reference.label != image.candidate.label,
        distance=fmt.percent(image.distance),
    )


def _exceptions(manifest: Manifest) -> tuple[ExceptionsView, ...]:
    """By reason; files that keep the same layers for the same reason are named together."""
    layers: dict[tuple[str, str], dict[str, list[str]]] = {}
    for item in manifest.precision_exceptions:
        layers.setdefault((item.reason, item.precision), {}).setdefault(item.file, []).append(item.layer)
    views = []
    for (reason, precision), by_file in layers.items():
        together: dict[tuple[str, ...], list[str]] = {}
        for file, names in by_file.items():
            together.setdefault(tuple(names), []).append(file)
        views += [ExceptionsView(reason, precision, tuple(files), names) for names, files in together.items()]
    return tuple(views)


def _calibration(manifest: Manifest) -> tuple[tuple[str, Cell], ...]:
    record = manifest.calibration
    if record is None:
        return ()
    left_out = [
        f"{fmt.integer(number)} {what}"
        for number, what in ((record.skipped, "could not be decoded"), (record.duplicates, "duplicates"))
        if number
    ]
    return (
        ("Data", Cell(record.data, note=f"sha256 {fmt.short_hash(record.sha256)}" if record.sha256 else "")),
        ("Samples", Cell(fmt.integer(record.samples), note=", ".join(left_out))),
        ("Method", Cell(record.method)),
        ("Files", Cell(", ".join(PurePath(file).name for file in record.files) or fmt.MISSING)),
    )
