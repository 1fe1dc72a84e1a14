"""What the files of an artifact score, and how their accuracy budgets were kept, as tables of a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from s2mlp_deploy.artifact import Manifest, data_file
from s2mlp_deploy.evidence.accuracy import AS_IN_THE_FILE, AccuracyReport, AccuracyRow, BudgetSearch
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.figures import budget_sentence
from s2mlp_deploy.report.page.cells import Cell, Table

QUANTIZE_AGAIN = "quantize again"


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


def size_of(manifest: Manifest, file: str) -> int:
    """Bytes of a file with the weights beside it; 0 where the artifact has no such file."""
    return sum(record.bytes for record in manifest.files if record.path in (file, data_file(file)))


def share_of(size: int, whole: int) -> str:
    """A size as a percentage of the float32 file's; ``-`` where either is not known."""
    return fmt.percent(size / whole, 0) if size > 0 and whole > 0 else fmt.MISSING


def score_table(manifest: Manifest, scores: AccuracyReport | None, unscored: Mapping[str, str]) -> Table:
    """A row for each file that was scored, then one for each that was not.

    Args:
        manifest: Of the artifact.
        scores: What was measured.
        unscored: Files that nothing was measured of, each with what there is instead, in words.
    """
    rows: list[tuple[Cell, ...]] = []
    old = scores.outdated(manifest) if scores else frozenset()
    paths = [record.path for record in manifest.files if record.path.endswith(".onnx")]
    whole = next((size_of(manifest, r.path) for r in manifest.files if r.precision == "fp32" and r.path in paths), 0)
    for row in scores.rows if scores else ():
        assert scores is not None
        gone = "" if row.file in paths else "no longer in the artifact"
        note = gone or (f"scored before it changed: {QUANTIZE_AGAIN}" if row.file in old else "")
        bad = note or row.failures
        size = size_of(manifest, row.file) or row.bytes
        arithmetic = "" if row.arithmetic == AS_IN_THE_FILE else row.arithmetic
        rows.append(
            (
                Cell(row.file, note="; ".join([*filter(None, [note]), *row.failures]), tone="bad" * bool(bad)),
                Cell(fmt.points(row.score), note=arithmetic if row.score is not None else ""),
                _drop(scores, row),
                Cell("-" if row.agreement is None else fmt.percent(row.agreement / 100)),
                Cell(fmt.decibels(row.sqnr), note=arithmetic if row.score is None else ""),
                Cell(fmt.size(size), title=f"{size:,} bytes"),
                Cell(share_of(size, whole)),
            )
        )
    for path, instead in unscored.items():
        size = size_of(manifest, path)
        missing = (Cell(fmt.MISSING),) * 3
        rows.append(
            (
                Cell(path, note=instead),
                Cell("not scored", tone="warn"),
                *missing,
                Cell(fmt.size(size), title=f"{size:,} bytes"),
                Cell(share_of(size, whole)),
            )
        )
    columns = ("File", "Score", "Drop", "Agreement", "SQNR", "Size", "Share of fp32")
    return Table(columns, tuple(rows), frozenset(range(1, len(columns)))).filled


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


def view_budget(file: str, search: BudgetSearch) -> BudgetView:
    """A file's budget with every trial and every layer it keeps."""
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
        kept=Table(("Layer kept", "SQNR", "Gain"), kept, frozenset((1, 2))),
    )
