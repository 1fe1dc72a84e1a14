"""What ``tune`` tried, as a page shows it."""

from __future__ import annotations

from dataclasses import dataclass

from s2mlp_deploy.artifact import Manifest
from s2mlp_deploy.evidence.standing import hashes_of
from s2mlp_deploy.evidence.store import Evidence
from s2mlp_deploy.evidence.tune import TuneReport
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.environment import time_in_words
from s2mlp_deploy.report.page.cells import Cell, Table, headings
from s2mlp_deploy.report.tune import CLOCKS, COLUMNS, rows_of, winner_in_words
from s2mlp_deploy.report.verdict import STATES

_OPEN = 6
"""A table of more trials is folded."""


@dataclass(frozen=True)
class TuneView:
    """Everything that was tried.

    Attributes:
        conditions: How it was measured, in words.
        winners: What runs from now on, and what that is worth.
        table: A row for each trial, with the reason that decided.
        folded: Whether the table is long.
        notes: What was left out, and why.
    """

    conditions: str
    winners: tuple[str, ...]
    table: Table
    folded: bool
    notes: tuple[str, ...]


def view_tune(manifest: Manifest, evidence: Evidence) -> TuneView | None:
    """The trials of an artifact; None where it was not tuned.

    Args:
        manifest: Of the artifact.
        evidence: Of the artifact.
    """
    report = evidence.one(TuneReport)
    if report is None:
        return None
    present = hashes_of(manifest, evidence)
    rows = []
    for trial, (*first, outcome) in zip(report.trials, rows_of(report), strict=True):
        tone = {"won": "good", "untried": "", "slower": ""}.get(trial.outcome, "warn")
        # That there was no time is the outcome itself.
        reason = "" if trial.outcome == "untried" else trial.reason
        rows.append((*map(Cell, first), Cell(outcome, note=reason, tone=tone)))
    inputs = ", ".join([*(fmt.shape(shape, "×") for shape in report.inputs), report.data])
    clock = CLOCKS.get(report.clock, report.clock)
    return TuneView(
        conditions=f"batch {report.batch}; inputs {inputs}; {clock}; {report.seconds:.0f} s of {report.minutes:g} min; "
        f"{time_in_words(report.environment)}",
        winners=tuple(
            winner_in_words(trial) + ("" if present.get(trial.file) == trial.sha256 else f" ({STATES['stale']})")
            for trial in report.winners
        ),
        table=Table(headings(COLUMNS), tuple(rows), frozenset({6})),
        folded=len(rows) > _OPEN,
        notes=tuple(f"{note[:1].upper()}{note[1:]}." for note in report.notes),
    )
