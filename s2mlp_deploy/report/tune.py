"""Tuning as a terminal shows it."""

from __future__ import annotations

from rich.console import Console

from s2mlp_deploy.evidence.tune import Trial, TuneReport
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.bench import interval
from s2mlp_deploy.report.tables import print_pairs, print_table, print_words, visible_text

COLUMNS = ("trial", "precision", "layout", "shifts", "engine", "settings", "ms", "of before", "outcome")

CLOCKS = {"cpu": "processor time", "wall": "time by the clock"}
_OUTCOMES = {
    "won": "WON",
    # It may have been the faster one in its rounds: but not beyond chance.
    "slower": "not faster",
    "parity": "not equal",
    "accuracy": "accuracy",
    "failed": "failed",
    "untried": "no time",
}


def print_tune(console: Console, report: TuneReport, *, reasons: bool = True) -> None:
    """Prints what was tried, what won, and why the others did not.

    Args:
        console: Where to.
        report: What was tried.
        reasons: Whether to say it of each trial.
    """
    machine = report.environment.machine
    print_words(console, visible_text(console, f"Tune, batch {report.batch}", "bold"))
    print_pairs(
        console,
        [
            (
                "machine",
                f"{machine.processor.name or machine.processor.architecture}, "
                f"{machine.usable_cores or 0:g} processors usable",
            ),
            ("inputs", f"{', '.join(map(fmt.shape, report.inputs)) or fmt.MISSING}; {report.data}"),
            ("measured", f"{CLOCKS.get(report.clock, report.clock)}, in turn, each in a process of its own"),
            ("took", f"{report.seconds:.0f} s of {report.minutes:g} min"),
        ],
    )
    print_table(console, None, COLUMNS, rows_of(report))
    if reasons:
        for number, trial in enumerate(report.trials, 1):
            if trial.reason:
                print_words(console, visible_text(console, f"{number}: {trial.reason}"))
    for note in report.notes:
        print_words(console, visible_text(console, f"NOTE  {note}", "yellow"))
    print_winners(console, report)


def print_winners(console: Console, report: TuneReport) -> None:
    """Prints what runs from now on.

    Args:
        console: Where to.
        report: What was tried.
    """
    for trial in report.winners:
        print_words(console, visible_text(console, winner_in_words(trial), "green"))


def rows_of(report: TuneReport) -> list[tuple[str, ...]]:
    """A row of :data:`COLUMNS` for each trial."""
    return [
        (
            str(number),
            trial.precision,
            trial.layout,
            trial.graph,
            trial.engine,
            trial.settings.words,
            fmt.milliseconds(trial.ms),
            interval(trial.ratio),
            _OUTCOMES.get(trial.outcome, trial.outcome),
        )
        for number, trial in enumerate(report.trials, 1)
    ]


def winner_in_words(trial: Trial) -> str:
    """What runs from now on, and what that is worth."""
    gain = f", {trial.ratio.verdict}" if trial.ratio is not None else ", as before"
    return f"{trial.number_type}: {trial.file} on {trial.engine}, {trial.settings.words}{gain}"
