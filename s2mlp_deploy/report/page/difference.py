"""Two ONNX files as a page shows them: tables, and a tree of modules that unfolds to their nodes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from s2mlp_deploy.evidence.difference import FileDifference, ModuleDifference, NodeDifference
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.difference import (
    SIGNS,
    WEIGHT_COLUMNS,
    branches,
    by_size,
    facts,
    headline,
    shown_columns,
    told,
    weight_row,
)
from s2mlp_deploy.report.page.cells import Cell, Table

_NODES = 200
"""Nodes of a module that are listed."""
_ALL_NODES = 4000
"""Nodes of a page that are listed: what a browser lays out in a moment."""
_WEIGHTS = 200
_ENTRIES = 200
_MODULES = 1500
"""Modules that are told apart; of a larger network those that lie deepest are told together."""


@dataclass(frozen=True)
class NodeLine:
    """A node that differs.

    Attributes:
        kind: What is different.
        sign: The same in a sign or a word.
        op: Its operator.
        name: Its name.
        text: What became of what.
    """

    kind: str
    sign: str
    op: str
    name: str
    text: str


@dataclass
class TreeItem:
    """A module that differs.

    Attributes:
        label: Its path below the module above.
        path: The whole path.
        figures: Headings and values.
        bar: Widths of the parts of its bar: added, removed, changed, others, in percent of the largest module.
        nodes: Its own.
        more: How many of its own are not listed.
        inside: The modules in it.
    """

    label: str
    path: str
    figures: tuple[tuple[str, str], ...]
    bar: tuple[tuple[str, float], ...]
    nodes: tuple[NodeLine, ...]
    more: int
    inside: list[TreeItem] = field(default_factory=list)


@dataclass(frozen=True)
class DifferenceView:
    """Two files.

    Attributes:
        before: The older file, as the user named it.
        after: The newer one.
        headline: The answer in a few words.
        differs: Whether anything is different.
        facts: What both are.
        interface: What differs of inputs, outputs, opset.
        metadata: What differs of what they say of themselves.
        tree: The modules that differ.
        weights: The weights that differ most.
        more_weights: How many are not in the table.
        more_metadata: How many entries are not.
        same: What is the same, in words.
        notes: What could not be told.
    """

    before: str
    after: str
    headline: str
    differs: bool
    facts: Table
    interface: Table
    metadata: Table
    tree: tuple[TreeItem, ...]
    weights: Table
    more_weights: int
    more_metadata: int
    same: str
    notes: tuple[str, ...]


def view_difference(file: FileDifference) -> DifferenceView:
    """Everything a page says of two files."""
    changed = ("What", "A, older", "B, newer")
    weights = by_size(file.weights)
    return DifferenceView(
        before=file.before.file,
        after=file.after.file,
        headline=headline(file),
        differs=file.differs,
        facts=_table(("What", "A, older", "B, newer"), facts(file)),
        interface=_table(changed, [(item.what, item.before, item.after) for item in file.interface[:_ENTRIES]]),
        metadata=_table(changed, [(item.what, item.before, item.after) for item in file.metadata[:_ENTRIES]]),
        tree=tuple(_tree(file)),
        weights=_table(WEIGHT_COLUMNS, [weight_row(item) for item in weights[:_WEIGHTS]], numeric=frozenset({3, 4, 5})),
        more_weights=max(len(weights) - _WEIGHTS, 0),
        more_metadata=max(len(file.metadata) - _ENTRIES, 0),
        same=f"{fmt.count(file.same_nodes, 'node')} the same"
        + (f", {fmt.integer(file.renamed)} of them under another name" if file.renamed else "")
        + f"; {fmt.count(file.same_weights, 'weight')} with the same bytes.",
        notes=file.notes,
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: frozenset[int] = frozenset()) -> Table:
    return Table(tuple(columns), tuple(tuple(Cell(text) for text in row) for row in rows), numeric)


def _tree(file: FileDifference) -> list[TreeItem]:
    depth = file.depth_of(_MODULES)
    own: dict[str, list[NodeDifference]] = defaultdict(list)
    for node in file.nodes:
        own[".".join(node.module.split(".")[:depth])].append(node)
    columns = shown_columns(file)
    rows = list(branches(file, depth))
    largest = max((sum(amount for _, amount in _parts(row.module)) for row in rows), default=1) or 1
    top: list[TreeItem] = []
    path: list[TreeItem] = []
    left = _ALL_NODES
    for row in rows:
        nodes = own.pop(row.module.path, [])
        listed = nodes[: min(_NODES, left)]
        left -= len(listed)
        item = TreeItem(
            row.label,
            row.module.path,
            tuple((column.title, text) for column in columns if (text := column.text(row.module))),
            tuple((kind, round(100 * amount / largest, 2)) for kind, amount in _parts(row.module) if amount),
            tuple(NodeLine(node.kind, SIGNS[node.kind], node.op, node.name, told(node)) for node in listed),
            len(nodes) - len(listed),
        )
        del path[row.level :]
        (path[-1].inside if path else top).append(item)
        path.append(item)
    return top


def _parts(module: ModuleDifference) -> tuple[tuple[str, int], ...]:
    return (
        ("added", module.added),
        ("removed", module.removed),
        ("changed", module.changed),
        ("other", module.reshaped + module.retyped + module.weights + module.rounded),
    )
