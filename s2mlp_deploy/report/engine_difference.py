"""Two engines side by side on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console

from s2mlp_deploy.evidence.engine_difference import EngineDifference, EngineFacts, SharePair
from s2mlp_deploy.evidence.engine_layers import LayerShare
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.tables import print_pairs, print_table, print_words, visible_text

_ROWS = 24
_SOURCES = {"engine": "the built engine", "network": "the parsed network"}


def print_engine_difference(console: Console, found: EngineDifference) -> None:
    """Prints what two engines are and where they differ: modules and operators, those that differ first."""
    told = "The engines differ." if found.differs else "The layers are the same, names and times aside."
    if found.differs and not any(pair.differs for pair in (*found.modules, *found.operators)):
        told = "The engines differ in shapes, formats or types of weights alone."
    print_words(console, visible_text(console, told, "bold"))
    one, other = found.before, found.after
    print_pairs(console, [("A", one.file), ("B", other.file)])
    rows = [
        ("layers of", _SOURCES[one.source], _SOURCES[other.source]),
        ("TensorRT", one.schema, other.schema),
        ("layers", fmt.integer(one.layers), fmt.integer(other.layers)),
        ("reformats", _reformats(one), _reformats(other)),
        ("types", _types(one.dtypes), _types(other.dtypes)),
        ("ms", _ms(one), _ms(other)),
        ("slow", _findings(one), _findings(other)),
    ]
    # What neither tells needs no row.
    print_table(console, None, ("", "A", "B"), [(name, a or None, b or None) for name, a, b in rows if a or b])
    for name, facts in (("A", one), ("B", other)):
        for line in facts.unclear:
            print_words(console, visible_text(console, f"Note: {name}: {line}"))
    timed = one.ms is not None or other.ms is not None
    for title, pairs in (("module", found.modules), ("operator", found.operators)):
        shown = [pair for pair in pairs if pair.differs or pair.ms]
        if shown:
            columns = (title, "layers", "types", *(("ms", "change") if timed else ()))
            print_table(console, None, columns, [row[: len(columns)] for row in _rows(shown[:_ROWS])])
        if len(shown) > _ROWS:
            print_words(console, visible_text(console, f"and {len(shown) - _ROWS} more: --json has all"))
            console.print()


def _reformats(facts: EngineFacts) -> str:
    return fmt.integer(facts.reformats) if facts.source == "engine" else ""


def _ms(facts: EngineFacts) -> str:
    return "" if facts.ms is None else fmt.milliseconds(facts.ms)


def _rows(pairs: Sequence[SharePair]) -> list[tuple[str, ...]]:
    return [
        (
            pair.name,
            _both(pair, lambda share: fmt.integer(share.layers)),
            _both(pair, lambda share: _types(share.dtypes)),
            _both(pair, lambda share: fmt.milliseconds(share.ms)),
            fmt.MISSING if pair.ms is None else f"{pair.ms:+.3f}",
        )
        for pair in pairs
    ]


def _both(pair: SharePair, show: Callable[[LayerShare], str]) -> str:
    before, after = (fmt.MISSING if share is None else show(share) for share in (pair.before, pair.after))
    return before if before == after else f"{before} > {after}"


def _types(dtypes: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in dtypes.items())


def _findings(facts: EngineFacts) -> str:
    return ", ".join(f"{len(item.layers)} {item.kind}" for item in facts.findings) or "nothing found"
