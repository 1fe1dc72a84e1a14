"""What a page shows of files of other precisions: sizes and scores, budgets, layers, ranges and images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from s2mlp_deploy.artifact import Manifest, data_file
from s2mlp_deploy.evidence.accuracy import AS_IN_THE_FILE, AccuracyReport, AccuracyRow, BudgetSearch, WorstImage
from s2mlp_deploy.evidence.calibration import CalibrationReport
from s2mlp_deploy.evidence.store import Evidence
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.budget import budget_sentence
from s2mlp_deploy.report.cells import Cell, Table
from s2mlp_deploy.report.charts import HistogramPlot, SqnrPlot, draw_histogram, draw_sqnr

_PICTURE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/]+={0,2}")
_SHOWN_HISTOGRAMS = 3
_AGAIN = "quantize again"


@dataclass(frozen=True)
class BudgetView:
    """How a file's budget was kept.

    Attributes:
        file: Its name.
        sentence: The outcome.
        trials: Every graph that was measured.
        kept: What stays in higher precision.
    """

    file: str
    sentence: str
    trials: Table
    kept: Table


@dataclass(frozen=True)
class LayersView:
    """What quantizing costs each layer of a file.

    Attributes:
        file: Its name.
        plot: The picture.
    """

    file: str
    plot: SqnrPlot


@dataclass(frozen=True)
class ImageView:
    """An image with two predictions.

    Attributes:
        thumbnail: A PNG as a ``data:`` address; empty where there is none.
        label: What it is; empty where nobody said.
        reference: What float32 says.
        candidate: What the file says.
        differs: Whether the two name another class.
        distance: Between the scores, in words.
    """

    thumbnail: str
    label: str
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
class PrecisionView:
    """Everything about files of other precisions.

    Attributes:
        warnings: What a reader must know before trusting a figure.
        measured: What the score is and on what it was measured; empty where nothing was.
        scores: Size and accuracy of every file.
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
    measured: str
    scores: Table
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
    scores, ranges = evidence.one(AccuracyReport), evidence.one(CalibrationReport)
    if (
        scores is None
        and ranges is None
        and manifest.calibration is None
        and all(record.precision == "fp32" for record in manifest.files)
    ):
        return None
    layers = _layers(scores) if scores else ()
    histograms = _histograms(ranges, layers) if ranges else ((), ())
    return PrecisionView(
        warnings=_warnings(manifest, scores, ranges, sum(map(len, histograms))),
        measured=f"{scores.metric}, in points, on {scores.data}" if scores else "",
        scores=_scores(manifest, scores),
        rounded=scores is not None and any(row.arithmetic != AS_IN_THE_FILE for row in scores.rows),
        budgets=tuple(_budget(scores.file_of(name), search) for name, search in scores.searches.items())
        if scores
        else (),
        layers=layers,
        images=tuple(_images(row) for row in scores.rows if row.worst) if scores else (),
        exceptions=_exceptions(manifest),
        calibration=_calibration(manifest),
        shown=histograms[0],
        folded=histograms[1],
    )


def precision_tiles(manifest: Manifest, evidence: Evidence) -> list[tuple[str, str, str]]:
    """The largest drop and the smallest file: label, value, explanation."""
    scores = evidence.one(AccuracyReport)
    if scores is None:
        return []
    old = scores.outdated(manifest)
    if scores.rows[0].file in old:
        return []
    drops = {row.file: drop for row in scores.rows if row.file not in old and (drop := scores.drop(row)) is not None}
    sizes = {file: size for file in drops if (size := _size(manifest, file))}
    tiles = []
    if drops:
        file = max(drops, key=lambda name: drops[name])
        tiles.append(("Largest drop", fmt.points(drops[file], signed=True), f"points, {file}"))
    if sizes:
        file = min(sizes, key=lambda name: sizes[name])
        share = _share(sizes[file], _size(manifest, scores.rows[0].file))
        tiles.append(("Smallest file", fmt.size(sizes[file]), f"{file}, {share} of fp32"))
    return tiles


def _warnings(
    manifest: Manifest, scores: AccuracyReport | None, ranges: CalibrationReport | None, drawn: int
) -> tuple[str, ...]:
    warnings = []
    if scores and (old := sorted(scores.outdated(manifest))):
        warnings.append(
            f"The scores of {fmt.words(old)} were measured on older files of the same name, or on files that are gone: "
            f"they say nothing of what is here. {_AGAIN.capitalize()}."
        )
    if ranges and ranges.calibration != manifest.calibration:
        warnings.append(
            f"The histograms are of another calibration than the files of this artifact. {_AGAIN.capitalize()}."
        )
    if ranges and drawn < len(ranges.activations):
        left_out = fmt.count(len(ranges.activations) - drawn, "activation")
        warnings.append(f"{left_out} could not be drawn: the saved figures make no histogram.")
    return tuple(warnings)


def _size(manifest: Manifest, file: str) -> int:
    """Bytes of a file with the weights beside it; 0 where the artifact has no such file."""
    return sum(record.bytes for record in manifest.files if record.path in (file, data_file(file)))


def _share(size: int, whole: int) -> str:
    return fmt.percent(size / whole, 0) if size > 0 and whole > 0 else fmt.MISSING


def _scores(manifest: Manifest, scores: AccuracyReport | None) -> Table:
    """A row for each file that was scored, then one for each that was not."""
    rows: list[tuple[Cell, ...]] = []
    old = scores.outdated(manifest) if scores else frozenset()
    paths = [record.path for record in manifest.files if record.path.endswith(".onnx")]
    whole = next((_size(manifest, r.path) for r in manifest.files if r.precision == "fp32" and r.path in paths), 0)
    for row in scores.rows if scores else ():
        assert scores is not None
        gone = "" if row.file in paths else "no longer in the artifact"
        note = gone or (f"scored before it changed: {_AGAIN}" if row.file in old else "")
        size = _size(manifest, row.file) or row.bytes
        rows.append(
            (
                Cell(row.file, note=note, tone="bad" if note else ""),
                Cell(fmt.points(row.score), note="" if row.arithmetic == AS_IN_THE_FILE else row.arithmetic),
                _drop(scores, row),
                Cell("-" if row.agreement is None else fmt.percent(row.agreement / 100)),
                Cell(fmt.decibels(row.sqnr)),
                Cell(fmt.size(size), title=f"{size:,} bytes"),
                Cell(_share(size, whole)),
            )
        )
    known = {row.file for row in scores.rows} if scores else set()
    for path in (path for path in paths if path not in known):
        size = _size(manifest, path)
        missing = (Cell(fmt.MISSING),) * 3
        rows.append(
            (
                Cell(path),
                Cell("not scored", tone="warn"),
                *missing,
                Cell(fmt.size(size), title=f"{size:,} bytes"),
                Cell(_share(size, whole)),
            )
        )
    columns = ("File", "Score", "Drop", "Agreement", "SQNR", "Size", "Share of fp32")
    return Table(columns, tuple(rows), frozenset(range(1, len(columns))))


def _drop(scores: AccuracyReport, row: AccuracyRow) -> Cell:
    drop = scores.drop(row)
    search = scores.searches.get(row.precision)
    if drop is None or search is None or search.max_drop is None:
        return Cell(fmt.points(drop, signed=True))
    # The budget was measured with the arithmetic of this row, so only rounding can come between the two.
    over = not drop <= search.max_drop + 1e-9
    return Cell(
        fmt.points(drop, signed=True),
        note=f"{'over' if over else 'allowed'} {fmt.figure(search.max_drop)}",
        tone="bad" if over else "",
    )


def _budget(file: str, search: BudgetSearch) -> BudgetView:
    trials = tuple(
        (
            Cell(fmt.integer(trial.kept)),
            Cell(fmt.points(trial.score)),
            Cell(fmt.points(trial.drop, signed=True)),
            Cell("holds" if trial.holds else "over", tone="good" if trial.holds else "bad"),
        )
        for trial in search.trials
    )
    kept = tuple(
        (Cell(layer.layer), Cell(fmt.decibels(layer.sqnr)), Cell(fmt.points(layer.gain))) for layer in search.kept
    )
    return BudgetView(
        file=file,
        sentence=budget_sentence(search),
        trials=Table(("Layers kept", "Score", "Drop", "Budget"), trials, frozenset((0, 1, 2))),
        kept=Table(("Layer kept", "SQNR", "Bought"), kept, frozenset((1, 2))),
    )


def _layers(scores: AccuracyReport) -> tuple[LayersView, ...]:
    views = []
    for precision, costs in scores.sqnr.items():
        search = scores.searches.get(precision)
        plot = draw_sqnr(costs, {layer.layer for layer in search.kept} if search else frozenset())
        if plot is not None:
            views.append(LayersView(scores.file_of(precision), plot))
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


def _images(row: AccuracyRow) -> ImagesView:
    images = tuple(_image(image) for image in row.worst)
    return ImagesView(row.file, images, sum(image.differs for image in images))


def _image(image: WorstImage) -> ImageView:
    def guess(label: str, probability: float | None) -> str:
        # No break between a number and its unit: the captions are narrow.
        return f"{label} {fmt.percent(probability, 1).replace(' ', chr(0xA0))}"

    return ImageView(
        # Any other address would be a request, or worse.
        thumbnail=image.thumbnail if _PICTURE.fullmatch(image.thumbnail) else "",
        label=image.label,
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
