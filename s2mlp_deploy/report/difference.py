"""Two ONNX files as a terminal shows them: facts side by side, a tree of modules, details of some modules."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console

from s2mlp_deploy.evidence.difference import (
    DifferenceReport,
    FileDifference,
    ModuleDifference,
    NodeDifference,
    WeightDifference,
    in_order,
)
from s2mlp_deploy.evidence.profile import UNATTRIBUTED
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.tables import print_pairs, print_table, print_words, visible_text

_ROWS = 24
"""Rows of the tree where no depth is asked for."""
_MOST_ROWS = 400
_WEIGHTS = 8
_ENTRIES = 12
SIGNS = {"added": "+", "removed": "-", "changed": "~", "reshaped": "shape", "retyped": "type"}


@dataclass(frozen=True)
class Branch:
    """A row of the tree of modules.

    Attributes:
        label: The module's path below the row above it.
        level: How many rows are above it.
        module: With all that is inside of it.
    """

    label: str
    level: int
    module: ModuleDifference


@dataclass(frozen=True)
class Column:
    """A figure of modules.

    Attributes:
        title: On a page.
        short: In a terminal.
        text: Of a module; empty for none.
    """

    title: str
    short: str
    text: Callable[[ModuleDifference], str]


def _count(amount: int) -> str:
    return fmt.integer(amount) if amount else ""


def _pair(before: float | None, after: float | None, show: Callable[[float | None], str]) -> str:
    return "" if before is None and after is None else f"{show(before)} > {show(after)}"


def _size(module: ModuleDifference) -> str:
    change = module.bytes_after - module.bytes_before
    return f"{'+' if change > 0 else '-'}{fmt.size(abs(change))}" if change else ""


COLUMNS = (
    Column("Added", "+", lambda module: _count(module.added)),
    Column("Removed", "-", lambda module: _count(module.removed)),
    Column("Changed", "~", lambda module: _count(module.changed)),
    Column("Other shape", "shape", lambda module: _count(module.reshaped)),
    Column("Other type", "type", lambda module: _count(module.retyped)),
    Column("Weights", "w", lambda module: _count(module.weights)),
    Column("Rounded", "w~", lambda module: _count(module.rounded)),
    Column("Worst weight", "worst", lambda module: fmt.percent(module.worst) if module.worst else ""),
    Column("Size", "size", _size),
    Column("Time, ms", "ms", lambda module: _pair(module.ms_before, module.ms_after, fmt.milliseconds)),
    Column("Error", "error", lambda module: _pair(module.error_before, module.error_after, fmt.figure)),
)
"""Figures of a module that are shown where any module has them."""

LEGEND = (
    "+ only in B, - only in A, ~ computes something else, shape/type: only the shape or type of the result, "
    "w weights, w~ weights that are rounded or stored otherwise, worst: largest difference over the weight's peak"
)


def print_difference(
    console: Console, report: DifferenceReport, *, depth: int | None = None, module: re.Pattern[str] | None = None
) -> None:
    """Prints what is different.

    Args:
        console: Where to.
        report: What was found.
        depth: How many parts of a module's path are told apart; None for what a screen shows.
        module: Of the modules whose path it matches, every node and weight is listed.
    """
    for file in report.files:
        _print_file(console, file, depth, module)
    for names, side in ((report.only_before, "A"), (report.only_after, "B")):
        if names:
            print_words(console, visible_text(console, f"only in {side}: {', '.join(names)}", "bold"))
            console.print()


def headline(file: FileDifference) -> str:
    """The answer in a few words."""
    if file.identical:
        return "identical"
    if not file.differs:
        return "the same but for names"
    if not file.nodes and not file.weights and not file.interface:
        return "the same graph and weights; what they say of themselves differs"
    total, kinds = file.total, Counter(weight.kind for weight in file.weights)
    nodes = {
        "added": total.added,
        "removed": total.removed,
        "changed": total.changed,
        "of another shape": total.reshaped,
        "of another type": total.retyped,
    }
    weights = {
        "differs" if kinds["differs"] == 1 else "differ": kinds["differs"],
        "added": kinds["added"],
        "removed": kinds["removed"],
        "rounded": kinds["rounded"],
        "stored otherwise": kinds["stored"],
    }
    told = [*_counted("node", nodes), *_counted("weight", weights)]
    return ", ".join(told) or "the same graph and weights, another interface"


def _counted(noun: str, amounts: Mapping[str, int]) -> Iterator[str]:
    """``3 nodes added``, ``1 removed``."""
    for index, (what, amount) in enumerate((what, amount) for what, amount in amounts.items() if amount):
        yield f"{fmt.integer(amount) if index else fmt.count(amount, noun)} {what}"


def _print_file(console: Console, file: FileDifference, depth: int | None, module: re.Pattern[str] | None) -> None:
    line = visible_text(console, "Difference: ", "bold")
    line.append(headline(file), "bold" if file.differs else "bold green")
    print_words(console, line)
    print_pairs(console, [("A", file.before.file), ("B", file.after.file)])
    print_table(console, None, ("", "A", "B"), facts(file))
    for note in file.notes:
        print_words(console, visible_text(console, f"note: {note}", "dim"))
    if file.notes:
        console.print()
    for title, changes in (("Interface", file.interface), ("Metadata", file.metadata)):
        if changes:
            print_words(console, visible_text(console, title, "bold"))
            for item in changes[:_ENTRIES]:
                print_words(console, visible_text(console, f"  {item.what}: {item.before} > {item.after}"))
            console.print()
            _more(console, len(changes) - _ENTRIES, "--json has all")
    if file.identical:
        return
    _print_tree(console, file, depth)
    if file.weights:
        print_words(console, visible_text(console, "Weights that differ most", "bold"))
        _print_weights(console, by_size(file.weights)[:_WEIGHTS])
        _more(console, len(file.weights) - _WEIGHTS, "--module REGEX lists those of modules")
    if module is not None:
        _print_details(console, file, module)
    elif file.nodes:
        print_words(console, visible_text(console, "--module REGEX lists the nodes and weights of modules", "dim"))
        console.print()


def facts(file: FileDifference) -> list[tuple[str, str, str]]:
    """What both files are, side by side."""
    a, b = file.before, file.after
    rows = [
        ("precision", a.precision, b.precision),
        ("size", fmt.size(a.bytes), fmt.size(b.bytes)),
        ("nodes", fmt.integer(a.nodes), fmt.integer(b.nodes)),
        ("modules", fmt.integer(a.modules), fmt.integer(b.modules)),
        ("opset", str(a.opset), str(b.opset)),
    ]
    rows += [
        (f"{kind} constants", fmt.size(a.weights.get(kind, 0)), fmt.size(b.weights.get(kind, 0)))
        for kind in dict.fromkeys((*a.weights, *b.weights))
    ]
    times = _total(file, "ms_before"), _total(file, "ms_after")
    if any(times):
        rows.append(("profiled, ms", fmt.milliseconds(times[0] or None), fmt.milliseconds(times[1] or None)))
    return [row for row in rows if row[1] or row[2]]


def _total(file: FileDifference, field: str) -> float:
    return sum(getattr(module, field) or 0.0 for module in file.modules)


def branches(file: FileDifference, depth: int) -> Iterator[Branch]:
    """The tree of the modules that differ, those with the most differences first.

    A module that has nothing but one other inside of it shares that one's row.
    """
    rows = {module.path: module for module in file.by_module(depth) if module.differs}
    inside: dict[str | None, list[ModuleDifference]] = {}
    for path, module in rows.items():
        above = path.rpartition(".")[0]
        inside.setdefault(above if above in rows else None, []).append(module)
    waiting: list[tuple[ModuleDifference, str, int]] = [
        (module, "", 0) for module in reversed(in_order(inside.get(None, [])))
    ]
    while waiting:
        module, above, level = waiting.pop()
        own = inside.get(module.path, [])
        if len(own) == 1 and own[0].size == module.size:
            waiting.append((own[0], above, level))
            continue
        label = module.path.removeprefix(f"{above}.") if above else module.path
        yield Branch(label or UNATTRIBUTED, level, module)
        waiting += [(item, module.path, level + 1) for item in reversed(in_order(own))]


def shown_columns(file: FileDifference) -> list[Column]:
    """The figures that any module has."""
    return [column for column in COLUMNS if any(column.text(module) for module in file.modules)]


def _print_tree(console: Console, file: FileDifference, depth: int | None) -> None:
    rows = list(branches(file, file.depth_of(_ROWS) if depth is None else depth))
    columns = shown_columns(file)
    if rows:
        # What does not fit beside one another stands in a table of its own, below.
        shown = rows[:_MOST_ROWS]
        labels = [f"{'  ' * row.level}{row.label}" for row in shown]
        title: str | None = "By module"
        while columns:
            count = len(columns)
            while True:
                names = ("Module", *(column.short for column in columns[:count]))
                cells = [
                    (label, *(column.text(row.module) for column in columns[:count]))
                    for label, row in zip(labels, shown, strict=True)
                ]
                if count == 1 or _width(names, cells) <= console.width:
                    break
                count -= 1
            print_table(console, title, names, cells)
            title, columns = None, columns[count:]
        _more(console, len(rows) - _MOST_ROWS, "--depth takes fewer")
        print_words(console, visible_text(console, LEGEND, "dim"))
    named = f", {fmt.integer(file.renamed)} of them under another name" if file.renamed else ""
    console.print(
        visible_text(
            console,
            f"{fmt.count(file.same_nodes, 'node')} the same{named}; {fmt.count(file.same_weights, 'weight')} "
            "with the same bytes",
        )
    )
    console.print()


def _width(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> int:
    widths = [max(len(text) for text in (name, *(row[k] for row in cells))) for k, name in enumerate(columns)]
    return sum(widths) + 3 * (len(widths) - 1)


WEIGHT_COLUMNS = ("Weight", "Difference", "Stored", "Max abs", "Mean abs", "Of the peak")


def weight_row(item: WeightDifference) -> tuple[str, ...]:
    """A weight as a row under :data:`WEIGHT_COLUMNS`."""
    both = item.before and item.after and item.before != item.after
    return (
        item.name,
        "stored otherwise" if item.kind == "stored" else item.kind,
        f"{item.before} > {item.after}" if both else item.after or item.before,
        fmt.figure(item.max_abs),
        fmt.figure(item.mean_abs),
        fmt.percent(item.relative),
    )


def by_size(weights: Sequence[WeightDifference]) -> list[WeightDifference]:
    """The weights that differ most first: what differs, what only one file has, what is rounded."""
    rank = {"differs": 3, "removed": 2, "added": 2, "rounded": 1, "stored": 0}
    return sorted(weights, key=lambda item: (-rank[item.kind], -(item.relative or 0.0)))


def _print_weights(console: Console, weights: Sequence[WeightDifference]) -> None:
    for item in weights:
        name, kind, stored, largest, mean, share = weight_row(item)
        figures = "" if item.max_abs is None else f", by up to {largest} ({share} of the peak), {mean} on average"
        bad = f", {fmt.count(item.not_finite, 'element')} not finite" if item.not_finite else ""
        print_words(console, visible_text(console, f"  {name}: {kind}, {stored}{figures}{bad}"))
    console.print()


def told(node: NodeDifference) -> str:
    """What became of a node, in words."""
    return "; ".join(f"{item.what} {item.before} > {item.after}" for item in node.changes)


def _print_details(console: Console, file: FileDifference, module: re.Pattern[str]) -> None:
    paths = [item.path for item in file.modules if module.search(item.path) and item.differs]
    if not paths:
        print_words(console, visible_text(console, f"nothing differs in modules that match {module.pattern!r}\n"))
    nodes: dict[str, list[NodeDifference]] = {path: [] for path in paths}
    weights: dict[str, list[WeightDifference]] = {path: [] for path in paths}
    for node in file.nodes:
        nodes.get(node.module, []).append(node)
    for weight in file.weights:
        weights.get(weight.module, []).append(weight)
    for path in paths:
        print_words(console, visible_text(console, path or UNATTRIBUTED, "bold"))
        for node in nodes[path]:
            text = f"  {SIGNS[node.kind]} {node.op} {node.name}{': ' if node.changes else ''}{told(node)}"
            print_words(console, visible_text(console, text))
        console.print()
        if weights[path]:
            _print_weights(console, by_size(weights[path]))


def _more(console: Console, amount: int, how: str) -> None:
    if amount > 0:
        print_words(console, visible_text(console, f"and {fmt.integer(amount)} more; {how}", "dim"))
        console.print()
