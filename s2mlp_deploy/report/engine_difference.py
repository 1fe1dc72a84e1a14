"""Two engines side by side on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console

from s2mlp_deploy.evidence.engine_difference import EngineDifference, EngineFacts, SharePair
from s2mlp_deploy.evidence.engine_layers import LayerShare
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.tables import print_table, print_words, visible_text

_ROWS = 24
_SOURCES = {"engine": "the built engine", "network": "the parsed network"}


def print_engine_difference(console: Console, found: EngineDifference) -> None:
    """Prints what two engines are and where they differ: modules and operators, those that differ first."""
    told = "The engines differ." if found.differs else "The layers are the same, names and times aside."
    if found.differs and not any(pair.differs for pair in (*found.modules, *found.operators)):
        told = "The engines differ in shapes, formats or types of weights alone."
    print_words(console, visible_text(console, told, "bold"))
    one, other = found.before, found.after
    print_table(
        console,
        None,
        ("", one.file, other.file),
        [
            ("layers of", _SOURCES[one.source], _SOURCES[other.source]),
            ("TensorRT", one.schema or fmt.MISSING, other.schema or fmt.MISSING),
            ("layers", fmt.integer(one.layers), fmt.integer(other.layers)),
            ("reformats", fmt.integer(one.reformats), fmt.integer(other.reformats)),
            ("types", _types(one.dtypes), _types(other.dtypes)),
            ("ms", fmt.milliseconds(one.ms), fmt.milliseconds(other.ms)),
            ("slow", _findings(one), _findings(other)),
        ],
    )
    for title, pairs in (("module", found.modules), ("operator", found.operators)):
        shown = [pair for pair in pairs if pair.differs or pair.ms]
        if shown:
            print_table(console, None, (title, "layers", "types", "ms", "change"), _rows(shown[:_ROWS]))
        if len(shown) > _ROWS:
            console.print(f"and {len(shown) - _ROWS} more: --json has all\n")


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
