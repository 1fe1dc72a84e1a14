"""Two ONNX graphs compared: what each module gained, lost and changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from s2mlp_deploy.difference.matching import Matches, lay_out_alike, match_nodes
from s2mlp_deploy.difference.reading import Graph, Node
from s2mlp_deploy.difference.weights import compare_weights, match_weights
from s2mlp_deploy.evidence.difference import Change, ModuleDifference, NodeDifference, NodeKind, WeightDifference
from s2mlp_deploy.graph.modules import number_name

_COMMUTE = frozenset({"Add", "Mul", "Sum", "Mean", "Max", "Min", "And", "Or", "Xor", "Equal"})
_ABSENT = "none"


@dataclass(frozen=True)
class GraphDifference:
    """What distinguishes two graphs.

    Attributes:
        modules: In the order of the newer graph, then those that only the older one has.
        nodes: Module by module.
        weights: Those that differ.
        wiring: Outputs of the network that come from another node.
        same_nodes: How many are the same.
        same_weights: How many hold the same bytes.
        renamed: How many of the same nodes have another name.
        notes: What was taken for granted.
    """

    modules: tuple[ModuleDifference, ...]
    nodes: tuple[NodeDifference, ...]
    weights: tuple[WeightDifference, ...]
    wiring: tuple[Change, ...]
    same_nodes: int
    same_weights: int
    renamed: int
    notes: tuple[str, ...]


def compare_graphs(a: Graph, b: Graph) -> GraphDifference:
    """Compares two graphs; types and shapes as far as both tell them.

    Args:
        a: The older one; its modules may get other paths.
        b: The newer one; the same.
    """
    notes = lay_out_alike(a, b)
    order = list(dict.fromkeys((*b.nodes, *a.nodes, *b.bytes, *a.bytes)))
    matches = {path: match_nodes(a.nodes.get(path, ()), b.nodes.get(path, ())) for path in order}
    wires = _Wires(a, b, [pair for found in matches.values() for pair in found])
    nodes: list[NodeDifference] = []
    same = renamed = 0
    for path, found in matches.items():
        differing = list(_in_module(a.nodes.get(path, ()), b.nodes.get(path, ()), found, wires))
        nodes += differing
        changed = sum(item.kind not in ("added", "removed") for item in differing)
        same += len(found) - changed
        touched = {item.name for item in differing}
        renamed += sum(one.name != other.name and other.name not in touched for one, other in found)
    pairs = match_weights(a.weights, b.weights, lambda node: wires.partner.get(node))
    compared = list(compare_weights(a.weights, b.weights, pairs))
    weights = [item for item in compared if item is not None]
    modules = _count(order, a, b, nodes, weights)
    return GraphDifference(
        tuple(modules),
        tuple(nodes),
        tuple(weights),
        tuple(wires.of_outputs()),
        same,
        len(compared) - len(weights),
        renamed,
        notes,
    )


def _count(
    order: list[str], a: Graph, b: Graph, nodes: list[NodeDifference], weights: list[WeightDifference]
) -> Iterator[ModuleDifference]:
    kinds = Counter((item.module, item.kind) for item in nodes)
    by_module: dict[str, list[WeightDifference]] = {}
    for weight in weights:
        by_module.setdefault(weight.module, []).append(weight)
    for path in dict.fromkeys((*order, *by_module)):
        inside = by_module.get(path, [])
        relative = [item.relative for item in inside if item.relative is not None]
        rounded = sum(item.kind in ("rounded", "stored") for item in inside)
        yield ModuleDifference(
            path,
            len(a.nodes.get(path, ())),
            len(b.nodes.get(path, ())),
            added=kinds[path, "added"],
            removed=kinds[path, "removed"],
            changed=kinds[path, "changed"],
            reshaped=kinds[path, "reshaped"],
            retyped=kinds[path, "retyped"],
            weights=len(inside) - rounded,
            rounded=rounded,
            worst=max(relative, default=None),
            bytes_before=sum(a.bytes.get(path, {}).values()),
            bytes_after=sum(b.bytes.get(path, {}).values()),
        )


def _in_module(
    a: list[Node] | tuple[()], b: list[Node] | tuple[()], found: Matches, wires: _Wires
) -> Iterator[NodeDifference]:
    """What differs of a module, in the newer graph's order, what was removed where it stood."""
    partner = {id(other): one for one, other in found}
    taken = {id(one) for one, _ in found}
    gone = iter(a)
    for node in b:
        one = partner.get(id(node))
        if one is None:
            yield NodeDifference(node.module, "added", node.op, node.name)
            continue
        for earlier in gone:
            if earlier is one:
                break
            if id(earlier) not in taken:
                yield NodeDifference(earlier.module, "removed", earlier.op, earlier.name)
                taken.add(id(earlier))
        if (difference := _of_pair(one, node, wires)) is not None:
            yield difference
    for earlier in a:
        if id(earlier) not in taken:
            yield NodeDifference(earlier.module, "removed", earlier.op, earlier.name)


def _of_pair(a: Node, b: Node, wires: _Wires) -> NodeDifference | None:
    changes: list[Change] = []
    if a.op != b.op:
        changes.append(Change("operator", a.op, b.op))
    else:
        changes += [
            Change(name, a.settings.get(name, _ABSENT), b.settings.get(name, _ABSENT))
            for name in dict.fromkeys((*a.settings, *b.settings))
            if a.settings.get(name) != b.settings.get(name)
        ]
    changes += wires.of_nodes(a, b)
    kind: NodeKind = "changed"
    if not changes:
        shapes, types = list(_shapes(a, b)), list(_types(a, b))
        if not shapes and not types:
            return None
        kind = "reshaped" if shapes else "retyped"
        changes = [*shapes, *types]
    return NodeDifference(b.module, kind, b.op, b.name, tuple(changes))


def _types(a: Node, b: Node) -> Iterator[Change]:
    for one, other in zip(a.node.outputs, b.node.outputs, strict=False):
        if one.dtype is not None and other.dtype is not None and one.dtype != other.dtype:
            yield Change("type", number_name(one.dtype), number_name(other.dtype))


def _shapes(a: Node, b: Node) -> Iterator[Change]:
    for one, other in zip(a.node.outputs, b.node.outputs, strict=False):
        before, after = shape_of(one), shape_of(other)
        if before is None or after is None:
            continue
        # A size that is free in one file only is told of the inputs, from which it follows.
        sizes = zip(before, after, strict=False)
        if len(before) != len(after) or any(x != y for x, y in sizes if isinstance(x, int) and isinstance(y, int)):
            yield Change("shape", _text(before), _text(after))


def shape_of(value: ir.Value) -> tuple[int | str, ...] | None:
    """A value's sizes, free ones by name; None where they are not known."""
    if value.shape is None:
        return None
    return tuple(size if isinstance(size, int) else str(size.value or "?") for size in value.shape)


def _text(shape: tuple[int | str, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


_Source = tuple[object, int]


class _Wires:
    """What nodes read: the place of the pair whose result it is, through nodes that only one of the graphs has."""

    def __init__(self, a: Graph, b: Graph, matches: Matches) -> None:
        self.partner: dict[ir.Node, ir.Node] = {one.node: other.node for one, other in matches}
        self._a, self._b = a, b
        self._pair: dict[ir.Node, int] = {}
        self._name: dict[int, str] = {}
        for index, (one, other) in enumerate(matches):
            self._pair[one.node] = self._pair[other.node] = index
            self._name[index] = other.name
        self._known: dict[ir.Value, _Source | None] = {}
        inputs = zip(a.model.graph.inputs, b.model.graph.inputs, strict=False)
        self._inputs: dict[ir.Value, str] = {}
        for position, (one_input, other_input) in enumerate(inputs):
            self._inputs[one_input] = self._inputs[other_input] = f"input {position}"

    def of_nodes(self, a: Node, b: Node) -> Iterator[Change]:
        """The inputs that come from another node."""
        ours, theirs = self._computed(a, self._a), self._computed(b, self._b)
        if len(ours) != len(theirs):
            if a.op == b.op and not a.weights and not b.weights:
                yield Change("inputs", str(len(ours)), str(len(theirs)))
            return
        first, second = [self._source(value) for value in ours], [self._source(value) for value in theirs]
        if None in first or None in second or first == second:
            return
        if b.op in _COMMUTE and Counter(first) == Counter(second):
            return
        for position, (one, other) in enumerate(zip(first, second, strict=True)):
            if one != other:
                yield Change(f"reads as input {position}", self._said(one), self._said(other))

    def of_outputs(self) -> Iterator[Change]:
        """The outputs of the network that come from another node."""
        for one, other in zip(self._a.model.graph.outputs, self._b.model.graph.outputs, strict=False):
            first, second = self._source(one), self._source(other)
            if first is not None and second is not None and first != second:
                yield Change(f"output {other.name} comes from", self._said(first), self._said(second))

    def _computed(self, node: Node, graph: Graph) -> list[ir.Value]:
        return [value for value in node.node.inputs if value is not None and value not in graph.constants]

    def _source(self, value: ir.Value) -> _Source | None:
        """The pair and output that a value comes from; None where nodes without a counterpart join several."""
        path: list[ir.Value] = []
        found: _Source | None = None
        current = value
        while True:
            if current in self._known:
                found = self._known[current]
                break
            path.append(current)
            producer = current.producer()
            if producer is None:
                name = self._inputs.get(current)
                found = None if name is None else (name, 0)
                break
            if producer in self._pair:
                found = (self._pair[producer], current.index() or 0)
                break
            graph_constants = self._a.constants if producer.graph is self._a.model.graph else self._b.constants
            above = [given for given in producer.inputs if given is not None and given not in graph_constants]
            if len(above) != 1:
                break
            current = above[0]
        self._known.update(dict.fromkeys(path, found))
        return found

    def _said(self, source: _Source | None) -> str:
        if source is None:
            return "something"
        place, output = source
        name = self._name[place] if isinstance(place, int) else str(place)
        return f"{name} output {output}" if output else name


def with_measurements(
    modules: tuple[ModuleDifference, ...],
    before: tuple[Mapping[str, float], Mapping[str, float]],
    after: tuple[Mapping[str, float], Mapping[str, float]],
) -> tuple[ModuleDifference, ...]:
    """Writes what was measured beside what differs.

    Args:
        modules: Of two graphs.
        before: By module the time of its nodes in ms, and the error of what leaves it, of the older file.
        after: Of the newer one.
    """
    return tuple(
        replace(
            module,
            ms_before=before[0].get(module.path),
            ms_after=after[0].get(module.path),
            error_before=before[1].get(module.path),
            error_after=after[1].get(module.path),
        )
        for module in modules
    )
