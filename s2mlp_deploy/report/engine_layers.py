"""The layers of an engine, and the times of its runs, on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from s2mlp_deploy.evidence.bench import QUANTILE_RUNS
from s2mlp_deploy.evidence.engine_layers import EngineLayers, LayerShare, RunTimes
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.tables import print_pairs, print_table, print_words, visible_text
from s2mlp_deploy.text import join_names

_MODULES = 24
_OPERATORS = 12
_NAMED = 4


def print_layers(console: Console, found: EngineLayers) -> None:
    """Prints layers, types and, where they were timed, times: by module, as deep as a screen shows, and by operator.

    Args:
        console: Where to.
        found: What the file holds.
    """
    timed = sum(layer.ms is not None for layer in found.layers)
    print_pairs(
        console,
        [
            ("layers", layers_in_words(found)),
            ("written by", written_by(found)),
            *([("inputs and outputs", ", ".join(found.bindings))] if found.bindings else []),
            *([("timed", f"{timed} layers, {fmt.milliseconds(found.ms or 0.0)} ms together")] if timed else []),
        ],
    )
    print_table(
        console,
        f"Layers of {found.file}",
        ("module", *columns_of(found)),
        rows_of(found.by_module(found.depth_of(_MODULES)), found, _MODULES),
    )
    print_table(console, None, ("operator", *columns_of(found)), rows_of(found.by_operator(), found, _OPERATORS))
    for finding in found.findings:
        took = "" if finding.ms is None else f", {fmt.milliseconds(finding.ms)} ms"
        line = f"SLOW?  {finding.problem} ({fmt.count(len(finding.layers), 'layer')}{took})"
        print_words(console, visible_text(console, line, "bold yellow"))
        print_pairs(console, [("layers", join_names(finding.layers, limit=_NAMED)), ("fix", finding.fix)])
    for line in found.unclear:
        print_words(console, visible_text(console, f"Note: {line}"))


def layers_in_words(found: EngineLayers) -> str:
    """How many layers, and how many reformats among them; of a network only the builder knows these."""
    amount = fmt.integer(len(found.layers))
    if found.source == "network":
        return f"{amount}, without constants and computations of shapes"
    return f"{amount}, {fmt.count(sum(layer.reformat for layer in found.layers), 'reformat')}"


def written_by(found: EngineLayers) -> str:
    """Where the layers come from, in words."""
    if found.source == "network":
        return "the parsed network: the built engine was not inspected, and what the builder fuses is not known"
    return f"TensorRT {found.schema}" if found.schema else "TensorRT, which release it does not tell"


def print_times(console: Console, found: RunTimes) -> None:
    """Prints how long runs took."""
    print_table(
        console,
        f"{fmt.count(found.runs, 'run')} in {found.file}, ms",
        ("part", "median", "90 %", "99 %", "max"),
        [
            (item.name, *(f"{value:.3f}" for value in (item.median, item.p90, item.p99, item.max)))
            for item in found.spreads
        ],
    )
    if found.runs < QUANTILE_RUNS:
        print_words(
            console, visible_text(console, f"Note: 99 % of {fmt.count(found.runs, 'run')} is the slowest of them")
        )


def columns_of(found: EngineLayers) -> tuple[str, ...]:
    """Headings of :func:`rows_of`, after the first."""
    return ("layers", "types", "ms", "share") if found.ms is not None else ("layers", "types")


def rows_of(shares: Sequence[LayerShare], found: EngineLayers, rows: int) -> list[tuple[str, ...]]:
    """Shares as rows; of more than fit the rest is one row.

    Args:
        shares: The most first.
        found: What they are of.
        rows: How many are shown.
    """
    shown, rest = list(shares[:rows]), shares[rows:]
    if rest:
        dtypes: dict[str, int] = {}
        for share in rest:
            for name, count in share.dtypes.items():
                dtypes[name] = dtypes.get(name, 0) + count
        times = [share.ms for share in rest if share.ms is not None]
        layers = sum(share.layers for share in rest)
        name = f"({fmt.count(len(rest), 'other')})"
        shown.append(LayerShare(name, layers, sum(times) if times else None, dtypes))
    total = found.ms
    return [
        (
            share.name,
            fmt.integer(share.layers),
            ", ".join(f"{count} {name}" for name, count in share.dtypes.items()),
            *(() if total is None else _time(share.ms, total)),
        )
        for share in shown
    ]


def _time(ms: float | None, total: float) -> tuple[str, str]:
    return (fmt.MISSING, fmt.MISSING) if ms is None else (f"{ms:.3f}", fmt.percent(ms / (total or 1.0), 1))
