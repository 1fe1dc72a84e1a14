"""Benchmarks as a page shows them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from s2mlp_deploy.artifact import Manifest
from s2mlp_deploy.evidence.bench import BenchReport, BenchResult
from s2mlp_deploy.evidence.store import Evidence
from s2mlp_deploy.report.bench import candidate_names, figures, interval
from s2mlp_deploy.report.environment import time_in_words
from s2mlp_deploy.report.page.cells import Cell, Table
from s2mlp_deploy.report.standing import hashes_of


@dataclass(frozen=True)
class BenchView:
    """One benchmark.

    Attributes:
        scenario: What was measured.
        conditions: How, in words.
        table: A row for each candidate.
        doubts: Why figures are not to be trusted.
    """

    scenario: str
    conditions: str
    table: Table
    doubts: tuple[str, ...]


def view_benches(manifest: Manifest, evidence: Evidence) -> tuple[BenchView, ...]:
    """The saved benchmarks of an artifact's files."""
    present = hashes_of(manifest, evidence)
    return tuple(_view(item.record, present) for item in evidence.of(BenchReport))


def _view(report: BenchReport, present: dict[str, str]) -> BenchView:
    names = candidate_names(report.results)
    columns, rows = figures(report.scenario, report.measured)
    told = iter(rows)
    cells = []
    for name, result in zip(names, report.results, strict=True):
        old = present.get(PurePath(result.candidate.file).name) != result.candidate.sha256
        first = Cell(name, note="of an older file" if old else "", tone="warn" if old else "")
        if result.failure:
            cells.append(
                (Cell(name, note=f"failed: {result.failure}", tone="bad"), *map(Cell, [""] * len(columns)), Cell(""))
            )
        else:
            cells.append((first, *map(Cell, next(told)), _ratio(result)))
    threads = report.results[0].candidate.threads
    conditions = [f"{threads} thread{'s' if threads != 1 else ''}" if threads else "", report.data]
    doubts = [*report.warnings]
    doubts += [
        f"{name}: {text}" for name, result in zip(names, report.results, strict=True) for text in result.warnings
    ]
    return BenchView(
        report.scenario,
        f"{', '.join(filter(None, conditions))}; {time_in_words(report.environment)}",
        Table(("Candidate", *columns, "Time over the first"), tuple(cells), frozenset(range(1, len(columns) + 1))),
        tuple(doubts),
    )


def _ratio(result: BenchResult) -> Cell:
    return Cell(result.ratio.verdict, note=interval(result.ratio)) if result.ratio is not None else Cell("")
