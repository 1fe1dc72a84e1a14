"""What the files of an artifact score, in the terminal."""

from __future__ import annotations

from rich.console import Console

from s2mlp_deploy.evidence.accuracy import AS_IN_THE_FILE, AccuracyReport, AccuracyRow, BudgetSearch
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.figures import budget_sentence, measured_in_words, sqnr_of
from s2mlp_deploy.report.tables import print_table, print_words, visible_text
from s2mlp_deploy.text import join_names

_LAYERS_SHOWN = 8


def print_accuracy(console: Console, scores: AccuracyReport) -> None:
    """Prints what was made: each file's size, its distance from float32, its score where there is one.

    For each file under a budget the layers that were kept follow.

    Args:
        console: Where to.
        scores: What was measured.
    """
    whole = scores.rows[0].bytes
    columns = ("File", "Size", "Of fp32", "SQNR", *(("Score", "Drop", "Agree") if scores.metric else ()))
    print_table(console, measured_in_words(scores), columns, [_file_row(scores, row, whole) for row in scores.rows])
    outputs = [(row, output) for row in scores.rows for output in row.outputs if len(row.outputs) > 1]
    if outputs:
        print_table(
            console,
            "Each output beside that of fp32",
            ("File", "Output", "SQNR", "Cosine"),
            [
                (row.file, output.name, fmt.decibels(sqnr_of(output.metrics)), fmt.cosine(output.metrics.cosine))
                for row, output in outputs
            ],
        )
    if rounded := [row.file for row in scores.rows if row.arithmetic != AS_IN_THE_FILE]:
        how = f"{'was' if len(rounded) == 1 else 'were'} {'scored' if scores.metric else 'compared'}"
        told = f"{join_names(rounded)} {how} with every result rounded to float16, as a GPU does it."
        print_words(console, visible_text(console, told))
        console.print()
    for failure in scores.failures:
        print_words(console, visible_text(console, f"BELOW  {failure}", "red"))
    for precision, search in scores.searches.items():
        _print_search(console, scores.file_of(precision), search)


def _file_row(scores: AccuracyReport, row: AccuracyRow, whole: int) -> tuple[str | None, ...]:
    cells = (
        row.file,
        fmt.size(row.bytes) if row.bytes else None,
        fmt.percent(row.bytes / whole, 0) if row.bytes and whole else None,
        fmt.decibels(row.sqnr),
    )
    if not scores.metric:
        return cells
    agreement = None if row.agreement is None else fmt.percent(row.agreement / 100)
    return (*cells, fmt.points(row.score), fmt.points(scores.drop(row), signed=True), agreement)


def _print_search(console: Console, file: str, search: BudgetSearch) -> None:
    print_words(console, visible_text(console, f"{file}: {budget_sentence(search)}"))
    console.print()
    rows = [(item.layer, fmt.decibels(item.sqnr), fmt.points(item.gain)) for item in search.kept[:_LAYERS_SHOWN]]
    if (hidden := len(search.kept) - _LAYERS_SHOWN) > 0:
        rows.append((f"and {hidden} more", "", ""))
    if rows:
        print_table(console, None, ("Kept", "SQNR if quantized", "Gain in points"), rows)
