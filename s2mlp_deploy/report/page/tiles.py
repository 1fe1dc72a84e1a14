"""One tile for each file: does it hold, what does it score, how large is it, how fast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from s2mlp_deploy.artifact import FileRecord, Manifest
from s2mlp_deploy.evidence.accuracy import AccuracyReport, AccuracyRow
from s2mlp_deploy.evidence.bench import BenchReport, BenchResult
from s2mlp_deploy.evidence.choice import current_score, time_of
from s2mlp_deploy.evidence.standing import Standing, comparisons
from s2mlp_deploy.evidence.store import Evidence
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.banner import holding_elsewhere, on_several_engines
from s2mlp_deploy.report.figures import data_in_words, measured_in_words, worst_of
from s2mlp_deploy.report.page.cells import Cell
from s2mlp_deploy.report.page.parity import state_cell
from s2mlp_deploy.report.page.scores import share_of, size_of
from s2mlp_deploy.text import join_names


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
        scores, row = current_score(manifest, evidence, record.path)
        share = "" if record.precision == "fp32" else f"{share_of(size, whole)} of fp32"
        tiles.append(
            FileTile(
                precision=_title(record, manifest),
                file=Cell(record.path, note=f"sha256 {fmt.short_hash(record.sha256)}", title=record.sha256),
                state=state_cell(standing.state),
                basis=_basis(standing, several=several),
                caution="; ".join(_cautions(standing, row, record.precision, holding_elsewhere(standing))),
                figures=(
                    *_differences(standing),
                    *_score(scores, row, standing, several=several),
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
    return f"{data} on {engines}" if several and data else data


def _cautions(standing: Standing, row: AccuracyRow | None, precision: str, elsewhere: Sequence[str]) -> Iterator[str]:
    if elsewhere:
        yield f"holds on {join_names(elsewhere)}"
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
    note, title = f"batch {batch}, {engine}{doubt}", f"median, {result.candidate.runtime}"
    return [("Latency", Cell(f"{fmt.milliseconds(time)} ms", note=note, title=title))]


def _differences(standing: Standing) -> list[tuple[str, Cell]]:
    worst = worst_of([output for item in standing.basis for output in item.report.outputs])
    found = [("Max abs", Cell(worst.max_abs, note="" if worst.allowed == fmt.MISSING else f"allowed {worst.allowed}"))]
    found.append(("Same top-1", Cell(worst.top1)))
    return [(label, cell) for label, cell in found if cell.text != fmt.MISSING]


def _score(
    scores: AccuracyReport | None, row: AccuracyRow | None, standing: Standing, *, several: bool
) -> list[tuple[str, Cell]]:
    """What the file scores: as it was made, else where parity was measured on labelled images."""
    if scores is not None and row is not None:
        drop, title = scores.drop(row), measured_in_words(scores)
        told = ("" if drop is None else f"drop {fmt.points(drop, signed=True)}", "onnxruntime" if several else "")
        note = ", ".join(filter(None, told))  # Files are scored by ONNX Runtime.
        found = [
            ("Score", Cell(fmt.points(row.score), note=note, title=title)),
            ("SQNR", Cell(fmt.decibels(row.sqnr), title=title)),
        ]
        return [(label, cell) for label, cell in found if cell.text != fmt.MISSING]
    worst = worst_of([output for item in standing.basis for output in item.report.outputs])
    if worst.candidate_accuracy == fmt.MISSING:
        return []
    return [("Accuracy", Cell(worst.candidate_accuracy, note=f"reference {worst.reference_accuracy}"))]
