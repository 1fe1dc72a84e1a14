"""One tile for each file: does it hold, what does it score, how large is it, how fast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from s2mlp_deploy.artifact import FileRecord, Manifest
from s2mlp_deploy.evidence.accuracy import ACCURACY, AGREEMENT, AccuracyReport, AccuracyRow
from s2mlp_deploy.evidence.bench import BenchReport, BenchResult
from s2mlp_deploy.evidence.choice import current_score, scored_beside, time_of
from s2mlp_deploy.evidence.parity import OutputParity
from s2mlp_deploy.evidence.standing import Standing, comparisons
from s2mlp_deploy.evidence.store import Evidence
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.banner import holding_elsewhere, on_several_engines
from s2mlp_deploy.report.bench import threads_in_words
from s2mlp_deploy.report.figures import (
    closest_to_its_limit,
    closest_to_its_sqnr,
    data_in_words,
    limit_of,
    measured,
    measured_in_words,
    sqnr_of,
    worst_of,
)
from s2mlp_deploy.report.page.cells import Cell
from s2mlp_deploy.report.page.parity import state_cell
from s2mlp_deploy.report.page.scores import share_of, size_of
from s2mlp_deploy.text import join_names

_METRICS = {ACCURACY: "Accuracy", AGREEMENT: "Agreement"}
_FIGURES = ("Max abs", "SQNR", "Same top-1", "Score", "Accuracy", "Agreement")
_LACKS = {"fails": "FAILS", "unclear": "is unclear", "missing": "was not measured"}
"""What is wrong with the parity of a file that another one rests on."""


@dataclass(frozen=True)
class FileTile:
    """A file at a glance.

    Attributes:
        precision: Of the file; where another one has it too, with what tells their names apart.
        file: Its name, with the beginning of its hash.
        state: What its comparisons amount to.
        basis: On what; empty where nothing was compared.
        caution: What the state does not say; empty where there is nothing.
        figures: Label and value.
    """

    precision: str
    file: Cell
    state: Cell
    basis: str
    caution: str
    figures: tuple[tuple[str, Cell], ...]


def file_tiles(manifest: Manifest, evidence: Evidence, files: Sequence[Standing]) -> tuple[FileTile, ...]:
    """A tile for each file of an artifact but weights beside a graph.

    Args:
        manifest: Of the artifact.
        evidence: Of the artifact.
        files: What is known of each file.
    """
    records = {record.path: record for record in manifest.files}
    whole = next((size_of(manifest, r.path) for r in manifest.files if r.precision == "fp32"), 0)
    several = on_several_engines(comparisons(manifest, evidence))
    tiles = []
    for standing in files:
        record = records.get(standing.file)
        if record is None:
            continue  # Compared, and no file of the artifact: an engine, or a copy.
        size = size_of(manifest, record.path)
        _, row = current_score(manifest, evidence, record.path)
        # Scores of float16 are of its own arithmetic, which parity on a processor is not.
        known = dict(_differences(standing)) | dict(_score(manifest, evidence, standing, several=several))
        share = "" if record.precision == "fp32" else f"{share_of(size, whole)} of fp32"
        tiles.append(
            FileTile(
                precision=_title(record, manifest),
                file=Cell(record.path, note=f"sha256 {fmt.short_hash(record.sha256)}", title=record.sha256),
                state=state_cell(standing.state),
                basis=_basis(standing, several=several),
                caution="; ".join(_cautions(standing, row, record.precision, holding_elsewhere(standing))),
                figures=(
                    *((label, known[label]) for label in _FIGURES if label in known),
                    *_latency(evidence, record.sha256),
                    ("Size", Cell(fmt.size(size), note=share)),
                ),
            )
        )
    return tuple(tiles)


def _title(record: FileRecord, manifest: Manifest) -> str:
    """``int8``; ``int8 tuned`` of ``model.int8-tuned.onnx`` where ``model.int8.onnx`` has a tile as well."""
    alike = [item for item in manifest.files if item.precision == record.precision and item.path.endswith(".onnx")]
    before, found, rest = record.path.removesuffix(".onnx").partition(f".{record.precision}")
    return (
        f"{record.precision} {rest.strip('-._')}".strip() if len(alike) > 1 and before and found else record.precision
    )


def _basis(standing: Standing, *, several: bool) -> str:
    engines = join_names(standing.engines)
    data = join_names(dict.fromkeys(data_in_words(item.report) for item in standing.basis), limit=3)
    told = f"{data} on {engines}" if several and data else data
    # What tune made was compared with the artifact's own files, and not with the source.
    beside = dict.fromkeys(item.report.reference for item in standing.basis if item.report.rests_on)
    return f"{told}, against {join_names(beside)}" if beside else told


def _cautions(standing: Standing, row: AccuracyRow | None, precision: str, elsewhere: Sequence[str]) -> Iterator[str]:
    if elsewhere:
        yield f"holds on {join_names(elsewhere)}"
    for name, state in dict.fromkeys((item.borrowed, item.state) for item in standing.basis if item.borrowed):
        yield f"it rests on {name}, whose parity {_LACKS[state]}"
    if standing.superseded:
        yield "measured only before it changed"
    if standing.excused:
        yield "FAILS on noise"
    if standing.on_noise and standing.state == "holds" and precision not in ("fp32", "fp16"):
        yield "on noise alone: compare on images like those it was calibrated on"
    if row is not None:
        yield from row.failures


def _latency(evidence: Evidence, sha256: str) -> list[tuple[str, Cell]]:
    """How long a run takes: at the least batch and on the fastest engine, of each as it was measured last.

    Other machines than that of the last time that these bytes were run do not count.
    """
    found: dict[tuple[int, str], tuple[float, BenchResult, BenchReport]] = {}
    machines = []
    for report in evidence.newest(BenchReport):
        for result in report.measured:
            time = time_of(result) if report.scenario == "single-stream" else None
            if result.candidate.sha256 == sha256 and time is not None:
                machines.append(report.environment.machine)
                if machines[0] == report.environment.machine:
                    key = (result.candidate.batch, result.candidate.engine)
                    found.setdefault(key, (time, result, report))
    if not found:
        return []
    (batch, engine), (time, result, report) = min(found.items(), key=lambda item: (item[0][0], item[1][0]))
    doubt = ", doubtful" if report.warnings or result.warnings else ""
    threads = threads_in_words(result.candidate)
    note, title = f"batch {batch}, {threads}, {engine}{doubt}", f"median, {result.candidate.runtime}"
    return [("Latency", Cell(f"{fmt.milliseconds(time)} ms", note=note, title=title))]


def _differences(standing: Standing) -> list[tuple[str, Cell]]:
    """Figures with their limits, each with that of the output that comes closest to its own."""
    outputs = [output for item in standing.basis for output in item.report.outputs]
    several = len({output.name for output in outputs}) > 1

    def told(output: OutputParity, limit: str) -> str:
        return ", ".join(filter(None, (limit, output.name * several)))

    found = []
    if (most := closest_to_its_limit(outputs)) is not None:
        limit = limit_of(most)
        allowed = told(most, "" if limit is None else f"allowed {fmt.figure(limit)}")
        found.append(("Max abs", Cell(measured(most.metrics.max_abs), note=allowed)))
    if (least := closest_to_its_sqnr(outputs)) is not None and least.tolerances is not None:
        at_least = told(least, f"at least {fmt.decibels(least.tolerances.min_sqnr)}")
        found.append(("SQNR", Cell(fmt.decibels(sqnr_of(least.metrics)), note=at_least)))
    found.append(("Same top-1", Cell(worst_of(outputs).top1)))
    return [(label, cell) for label, cell in found if cell.text != fmt.MISSING]


def _score(manifest: Manifest, evidence: Evidence, standing: Standing, *, several: bool) -> list[tuple[str, Cell]]:
    """What the file scores: as it was made, else where parity was measured on labelled images.

    Of a file that nobody scored it is said so, and what the one scores that it was compared with.
    """
    scores, row = current_score(manifest, evidence, standing.file)
    if scores is not None and row is not None:
        title = measured_in_words(scores)
        note = ", ".join(filter(None, (_drop(scores, row), "onnxruntime" if several else "")))  # That scores files.
        found = [
            (_label(scores), Cell(_points(scores, row), note=note, title=title)),
            ("SQNR", Cell(fmt.decibels(row.sqnr), title=title)),
        ]
        if row is scores.rows[0] and scores.metric == AGREEMENT:
            found = found[1:]  # It agrees with itself.
        return [(label, cell) for label, cell in found if cell.text != fmt.MISSING]
    worst = worst_of([output for item in standing.basis for output in item.report.outputs])
    if worst.candidate_accuracy != fmt.MISSING:
        return [("Accuracy", Cell(worst.candidate_accuracy, note=f"reference {worst.reference_accuracy}"))]
    beside = scored_beside(manifest, standing)
    scores, row = current_score(manifest, evidence, beside)
    if scores is None or row is None or row.score is None:
        return []
    told = ", ".join(filter(None, (_points(scores, row), _drop(scores, row))))
    note = f"{beside}, which it was compared with: {told}"
    return [(_label(scores), Cell("not scored", note=note, title=measured_in_words(scores)))]


def _label(scores: AccuracyReport) -> str:
    """What the score is; of a metric of the user's own it is a score."""
    return _METRICS.get(scores.metric, "Score")


def _points(scores: AccuracyReport, row: AccuracyRow) -> str:
    if scores.metric not in _METRICS or row.score is None:
        return fmt.points(row.score)
    return fmt.percent(row.score / 100)


def _drop(scores: AccuracyReport, row: AccuracyRow) -> str:
    drop = scores.drop(row)
    return "" if drop is None else f"drop {fmt.points(drop, signed=True)}"
