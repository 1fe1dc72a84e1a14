"""Comparisons as tables of a page: one for each data set, so that figures of different data stand apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from s2mlp_deploy.artifact import Manifest
from s2mlp_deploy.evidence.parity import OutputParity, ParityReport, Tolerances, Weights
from s2mlp_deploy.evidence.standing import Comparison, comparisons, file_of, standings
from s2mlp_deploy.evidence.store import Evidence
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.environment import time_in_words
from s2mlp_deploy.report.figures import (
    data_in_words,
    is_over,
    limit_of,
    measured,
    not_finite,
    psnr,
    sqnr_of,
    weights_in_words,
    worst_of,
)
from s2mlp_deploy.report.page.cells import Cell, Table
from s2mlp_deploy.report.verdict import STATES, TONES
from s2mlp_deploy.text import join_names

_COLUMNS = ("File", "Parity", "Output", "Max abs", "Max rel", "PSNR", "SQNR", "Top-1", "Accuracy")


@dataclass(frozen=True)
class DataView:
    """Everything that was compared on the same data with the same reference.

    Attributes:
        data: What it is, in words.
        facts: Reference, weights, hash of the data, time: label and value.
        table: A row for each output of each file, and one for eager where the source races.
    """

    data: str
    facts: tuple[tuple[str, Cell], ...]
    table: Table


@dataclass(frozen=True)
class ParityView:
    """All comparisons of an artifact.

    Attributes:
        data: By data and reference, images before noise.
        proofs: What was read off each file and what it was tried with, without any data.
        limits: The tolerances that were judged by, in words.
        in_float32: Files with float16 in them that ran on what computes it in float32.
        uncounted: Comparisons of older files or with other weights.
    """

    data: tuple[DataView, ...]
    proofs: Table
    limits: tuple[str, ...]
    in_float32: tuple[str, ...]
    uncounted: Table


def state_cell(state: str, note: str = "") -> Cell:
    """A verdict in a table: colour and word, and of what it is."""
    return Cell(STATES[state], note=note, tone=TONES[state])


def view_parity(found: Sequence[Comparison]) -> ParityView:
    """Puts the comparisons of an artifact together.

    Args:
        found: As :func:`~s2mlp_deploy.evidence.standing.comparisons` gives them.
    """
    counting = [item for item in found if item.counts]
    together: dict[tuple[object, ...], list[Comparison]] = {}
    for item in counting:
        report = item.report
        key = (report.data, report.data_sha256, report.images, report.reference, report.weights)
        together.setdefault(key, []).append(item)
    return ParityView(
        data=tuple(_data(items) for items in together.values()),
        proofs=_proofs(counting),
        limits=_limits(item.report for item in counting),
        in_float32=tuple(dict.fromkeys(file_of(item.report) for item in counting if _in_float32(item.report))),
        uncounted=_uncounted(item for item in found if not item.counts),
    )


def _data(items: Sequence[Comparison]) -> DataView:
    first = items[0].report
    times = dict.fromkeys(time_in_words(e) for item in items if (e := item.report.environment) is not None)
    facts = [("Reference", Cell(first.reference))]
    if first.weights is not None:
        facts.append(("Weights", _weights(first.weights)))
    if first.data_sha256:
        facts.append(("Data sha256", Cell(fmt.short_hash(first.data_sha256), title=first.data_sha256)))
    if times:
        facts.append(("Measured", Cell(join_names(sorted(times), limit=4))))
    rows: list[tuple[Cell, ...]] = []
    for item in items:
        report = item.report
        file = Cell(file_of(report), note=f"{report.precision}, {report.candidate}", title=item.name)
        rows += _rows(file, state_cell(item.state), report.outputs)
    # Every comparison of the group ran the same eager module on the same data.
    eager = next((item.report.eager for item in items if item.report.eager), ())
    rows += _rows(Cell("torch, eager", note="undefined: its code races"), Cell("not judged", tone="warn"), eager)
    return DataView(data_in_words(first), tuple(facts), Table(_COLUMNS, tuple(rows), frozenset(range(3, 9))).filled)


def _rows(file: Cell, state: Cell, outputs: Sequence[OutputParity]) -> list[tuple[Cell, ...]]:
    """A row for each output, the first of which names the file."""
    whose = [(file, state), *[(Cell(""), Cell(""))] * (len(outputs) - 1)]
    return [(*cells, *_cells(output)) for cells, output in zip(whose, outputs, strict=False)]


def _weights(weights: Weights) -> Cell:
    return Cell(weights_in_words(weights), title=weights.sha256 or "")


def _cells(output: OutputParity) -> tuple[Cell, ...]:
    metrics, ranks = output.metrics, output.ranks
    bad = f"{not_finite(output):,} values not finite" if not_finite(output) else ""
    over = is_over(output)
    allowed = output.allowed if over else limit_of(output)
    limit = "" if allowed is None else f"{'over' if over else 'allowed'} {fmt.figure(allowed)}"
    least = output.tolerances.min_sqnr if output.tolerances is not None else None
    sqnr = sqnr_of(metrics)
    under = least is not None and sqnr is not None and not sqnr >= least
    ratio = "" if least is None else f"{'under' if under else 'at least'} {fmt.decibels(least)}"
    labelled = ranks is not None and ranks.reference_accuracy is not None
    return (
        Cell(output.name, note=bad, tone="bad" if bad else ""),
        Cell(measured(metrics.max_abs), note=limit, tone="bad" if over else ""),
        Cell(measured(metrics.max_rel)),
        Cell(psnr(metrics), note=f"cosine {measured(metrics.cosine, fmt.cosine)}"),
        Cell(fmt.decibels(sqnr), note=ratio, tone="bad" if under else ""),
        Cell(
            fmt.percent(ranks.top1_agreement if ranks else None),
            note=f"top-5 {fmt.percent(ranks.top5_agreement)}" if ranks else "",
        ),
        Cell(
            fmt.percent(ranks.candidate_accuracy if ranks else None),
            note=f"reference {fmt.percent(ranks.reference_accuracy)}" if ranks and labelled else "",
        ),
    )


def _proofs(counting: Iterable[Comparison]) -> Table:
    rows: dict[tuple[Cell, ...], None] = {}
    for item in counting:
        report, proof = item.report, item.report.proof
        if proof is None and not report.tried:
            continue
        unread = "" if proof is None or not proof.unread else f"not read: {proof.unread}"
        failed = "; ".join(proof.failures) if proof is not None else ""
        rows[
            (
                Cell(file_of(report), note=failed or unread, tone="bad" if failed else "warn" if unread else ""),
                Cell(fmt.integer(proof.shifts) if proof is not None else fmt.MISSING),
                # 0 is none that could be matched by name.
                Cell(fmt.integer(proof.constants) if proof is not None and proof.constants else fmt.MISSING),
                Cell(", ".join(report.tried) or fmt.MISSING),
            )
        ] = None
    columns = ("File", "Shifts equal", "Constants equal", "Also tried")
    return Table(columns, tuple(rows), frozenset((1, 2)))


def _limits(reports: Iterable[ParityReport]) -> tuple[str, ...]:
    """The tolerances that files were judged by, one line for each precision and set of limits."""
    lines: dict[tuple[str, str], dict[str, None]] = {}
    for report in reports:
        by_limits: dict[str, list[str]] = {}
        for output in report.outputs:
            if (limits := output.tolerances) is not None:
                text = _in_words(limits) + (f" ({fmt.data(report.limits)})" if report.limits else "")
                by_limits.setdefault(text, []).append(output.name)
        for text, names in by_limits.items():
            which = report.precision if len(by_limits) == 1 else f"{report.precision}, {join_names(names)}"
            lines.setdefault((which, text), {})[file_of(report)] = None
    # Two files of a precision may be judged by limits of their own.
    several = [which for which, _ in lines]
    return tuple(
        f"{which}{f' ({join_names(files)})' if several.count(which) > 1 else ''}: {text}"
        for (which, text), files in lines.items()
    )


def _in_float32(report: ParityReport) -> bool:
    """Whether float16 was computed in float32: ONNX Runtime has no other kernels for processors."""
    half = report.precision == "fp16" or report.precision.endswith("-trt")
    return half and report.candidate.startswith("onnxruntime") and "(CPU" in report.candidate


def _in_words(limits: Tolerances) -> str:
    """Limits without those that hold whatever the figures are."""
    told = (
        f"atol {limits.atol:g}, rtol {limits.rtol:.4g}",
        f"min cosine {fmt.cosine(limits.min_cosine).rstrip('0').rstrip('.')}" if limits.min_cosine > -1 else "",
        f"min top-1 agreement {fmt.percent(limits.min_top1_agreement)}" if limits.min_top1_agreement > 0 else "",
        f"min SQNR {fmt.decibels(limits.min_sqnr)}" if limits.min_sqnr is not None else "",
        f"at most {limits.max_drop:.2f} points of accuracy lost" if limits.max_drop is not None else "",
    )
    return ", ".join(filter(None, told))


def _uncounted(items: Iterable[Comparison]) -> Table:
    rows = []
    for item in items:
        report, environment = item.report, item.report.environment
        rows.append(
            (
                Cell(file_of(report), note=f"sha256 {fmt.short_hash(report.file_sha256)}", title=item.name),
                state_cell(item.state),
                Cell(data_in_words(report)),
                _weights(report.weights) if report.weights is not None else Cell(fmt.MISSING),
                Cell(time_in_words(environment) if environment is not None else fmt.MISSING),
            )
        )
    return Table(("File", "Parity", "Data", "Weights", "Measured"), tuple(rows))


def overview_rows(
    label: str, href: str, directory: Path, manifest: Manifest, evidence: Evidence
) -> list[tuple[Cell, ...]]:
    """The rows of one artifact: one for each of its files, with the figures that its verdict rests on."""
    known = {item.file: item for item in standings(manifest, comparisons(manifest, evidence))}
    rows: list[tuple[Cell, ...]] = []
    for record in manifest.files:
        if (standing := known.get(record.path)) is None:
            continue  # Weights beside a graph.
        worst = worst_of([output for item in standing.basis for output in item.report.outputs])
        rows.append(
            (
                Cell(label, note=record.path, href=href, title=directory.name),
                state_cell("stale" if standing.superseded else standing.state),
                Cell(fmt.integer(record.nodes)),
                Cell(fmt.size(record.bytes)),
                Cell(worst.max_abs),
                Cell(worst.psnr),
                Cell(worst.top1),
                Cell(worst.reference_accuracy),
                Cell(worst.candidate_accuracy),
            )
        )
    return rows
