"""What the files of an artifact score, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.terminal import print_table

_LAYERS_SHOWN = 8

ACCURACY_COLUMNS = ("file", "size", "score", "drop", "agreement", "SQNR dB")


def accuracy_rows(report: Mapping[str, Any]) -> list[Sequence[str]]:
    """The files of an ``AccuracyReport``, as it is in JSON: one row each, for :data:`ACCURACY_COLUMNS`."""
    reference = report["rows"][0]["score"]
    return [
        (
            row["file"],
            fmt.size(row["bytes"]) if row["bytes"] else fmt.MISSING,
            f"{row['score']:.2f}",
            f"{reference - row['score']:+.2f}" if row["sqnr"] is not None else fmt.MISSING,
            f"{row['agreement']:.2f} %" if row["agreement"] is not None else fmt.MISSING,
            f"{row['sqnr']:.1f}" if row["sqnr"] is not None else fmt.MISSING,
        )
        for row in report["rows"]
    ]


def print_accuracy(console: Console, report: Mapping[str, Any]) -> None:
    """Prints the scores, and for each file under a budget the layers that were kept.

    Args:
        console: Where to.
        report: An ``AccuracyReport`` as JSON holds it.
    """
    title = f"{report['metric']}, in points, on {report['data']}"
    print_table(console, title, ACCURACY_COLUMNS, accuracy_rows(report))
    if any(row["arithmetic"] != "as in the file" for row in report["rows"]):
        console.print("Files of float16 were scored with every result rounded to float16, as a GPU does it.\n")
    for file, ladder in report["ladders"].items():
        _print_ladder(console, file, ladder)


def _print_ladder(console: Console, file: str, ladder: Mapping[str, Any]) -> None:
    drop = ladder["reference"] - ladder["score"]
    console.print(
        f"{file}: within {ladder['max_drop']:g} points of {ladder['metric']} (drops by {drop:.2f}) with "
        f"{len(ladder['kept'])} of {len(ladder['sqnr'])} layers in higher precision."
    )
    if not ladder["kept"]:
        console.print()
        return
    rows = [(k["layer"], f"{k['sqnr']:.1f}", f"{k['bought']:.2f}") for k in ladder["kept"][:_LAYERS_SHOWN]]
    if hidden := len(ladder["kept"]) - _LAYERS_SHOWN:
        rows += [(f"and {hidden} more", "", "")] if hidden > 0 else []
    print_table(console, None, ("kept", "SQNR dB if quantized", "points bought"), rows)
