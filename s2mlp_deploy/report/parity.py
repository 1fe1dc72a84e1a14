"""Comparisons as tables of a page."""

from __future__ import annotations

from pathlib import Path, PurePath

from s2mlp_deploy.artifact import Manifest
from s2mlp_deploy.evidence.parity import OutputParity, ParityReport
from s2mlp_deploy.evidence.store import Evidence
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.cells import Cell, Table
from s2mlp_deploy.report.figures import data_in_words, is_over, measured, not_finite, psnr, worst_of
from s2mlp_deploy.report.verdict import STATES, TONES, file_of, state_in
from s2mlp_deploy.text import join_names


def state_cell(state: str) -> Cell:
    """A verdict in a table: colour and word."""
    return Cell(STATES[state], tone=TONES[state])


def parity_table(manifest: Manifest, evidence: Evidence) -> Table:
    """A row for each output of each comparison."""
    rows: list[tuple[Cell, ...]] = []
    for saved in evidence.of(ParityReport):
        report = saved.record
        file = Cell(file_of(report), note=", ".join([report.precision, *_proven(report)]), title=saved.name)
        engine = Cell(report.candidate, note=f"against {report.reference}")
        data = "; ".join([data_in_words(report), *([f"and {', '.join(report.tried)}"] if report.tried else [])])
        rows += [(file, state_cell(state_in(report, manifest)), engine, *_cells(o, data)) for o in report.outputs]
        eager = Cell("torch, eager", note="undefined: its code races", tone="warn")
        rows += [(file, Cell("not judged", tone="warn"), eager, *_cells(output, data)) for output in report.eager]
    # The verdict comes early: on a narrow screen the end of a row is out of sight.
    names = ("File", "Parity", "Engine", "Output and data", "Max abs", "Max rel", "PSNR", "Top-1", "Accuracy")
    return Table(names, tuple(rows), frozenset(range(4, 9)))


def _proven(report: ParityReport) -> list[str]:
    """What was read off the file, in a few words."""
    proof = report.proof
    counts = [] if proof is None else [(proof.shifts, "shift"), (proof.constants, "constant")]
    return [f"{fmt.count(number, noun)} proven" for number, noun in counts if number]


def _cells(output: OutputParity, data: str) -> tuple[Cell, ...]:
    metrics, ranks = output.metrics, output.ranks
    bad = f"{not_finite(output):,} values not finite" if not_finite(output) else ""
    over = is_over(output)
    limit = "" if output.allowed is None else f"{'over' if over else 'allowed'} {fmt.figure(output.allowed)}"
    labelled = ranks is not None and ranks.reference_accuracy is not None
    return (
        Cell(output.name, note=bad or data, tone="bad" if bad else ""),
        Cell(measured(metrics.max_abs), note=limit, tone="bad" if over else ""),
        Cell(measured(metrics.max_rel)),
        Cell(psnr(metrics), note=f"cosine {measured(metrics.cosine, fmt.cosine)}"),
        Cell(
            fmt.percent(ranks.top1_agreement if ranks else None),
            note=f"top-5 {fmt.percent(ranks.top5_agreement)}" if ranks else "",
        ),
        Cell(
            fmt.percent(ranks.candidate_accuracy if ranks else None),
            note=f"reference {fmt.percent(ranks.reference_accuracy)}" if ranks and labelled else "",
        ),
    )


def limits_in_words(reports: tuple[ParityReport, ...]) -> tuple[str, ...]:
    """The tolerances that files were judged by, one line for each precision and set of limits."""
    lines: dict[str, None] = {}
    for report in reports:
        by_limits: dict[str, list[str]] = {}
        for output in report.outputs:
            if (limits := output.tolerances) is not None:
                text = (
                    f"atol {limits.atol:g}, rtol {limits.rtol:g}, min cosine {limits.min_cosine:g}, "
                    f"min top-1 agreement {limits.min_top1_agreement:g}"
                )
                by_limits.setdefault(text, []).append(output.name)
        for text, names in by_limits.items():
            which = report.precision if len(by_limits) == 1 else f"{report.precision}, {join_names(names)}"
            lines[f"{which}: {text}"] = None
    return tuple(lines)


def overview_rows(
    label: str, href: str, directory: Path, manifest: Manifest, evidence: Evidence
) -> list[tuple[Cell, ...]]:
    """The rows of one artifact: one for each comparison of a file, one for a file that has none."""
    rows: list[tuple[Cell, ...]] = []
    for record in manifest.files:
        name = PurePath(record.path).name
        found = [saved.record for saved in evidence.of(ParityReport) if file_of(saved.record) == name]
        states = [(state_in(report, manifest), worst_of(report.outputs)) for report in found]
        for state, worst in states or [("missing", worst_of(()))]:
            rows.append(
                (
                    Cell(label, note=record.path, href=href, title=directory.name),
                    state_cell(state),
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
