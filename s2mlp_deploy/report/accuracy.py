"""What the files of an artifact score, in the terminal."""

from __future__ import annotations

from rich.console import Console

from s2mlp_deploy.evidence.accuracy import AS_IN_THE_FILE, AccuracyReport, BudgetSearch
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.scores import budget_sentence
from s2mlp_deploy.report.tables import print_table, visible_text

_LAYERS_SHOWN = 8


def print_accuracy(console: Console, scores: AccuracyReport) -> None:
    """Prints the scores, and for each file under a budget the layers that were kept.

    Args:
        console: Where to.
        scores: What was measured.
    """
    print_table(
        console,
        f"{scores.metric}, in points, on {scores.data}",
        ("File", "Size", "Score", "Drop", "Agreement", "SQNR"),
        [
            (
                row.file,
                fmt.size(row.bytes) if row.bytes else None,
                fmt.points(row.score),
                fmt.points(scores.drop(row), signed=True),
                None if row.agreement is None else fmt.percent(row.agreement / 100),
                fmt.decibels(row.sqnr),
            )
            for row in scores.rows
        ],
    )
    if any(row.arithmetic != AS_IN_THE_FILE for row in scores.rows):
        console.print("Files of float16 were scored with every result rounded to float16, as a GPU does it.\n")
    for precision, search in scores.searches.items():
        _print_search(console, scores.file_of(precision), search)


def _print_search(console: Console, file: str, search: BudgetSearch) -> None:
    console.print(visible_text(console, f"{file}: {budget_sentence(search)}"))
    console.print()
    rows = [(item.layer, fmt.decibels(item.sqnr), fmt.points(item.gain)) for item in search.kept[:_LAYERS_SHOWN]]
    if (hidden := len(search.kept) - _LAYERS_SHOWN) > 0:
        rows.append((f"and {hidden} more", "", ""))
    if rows:
        print_table(console, None, ("Kept", "SQNR if quantized", "Gain in points"), rows)
