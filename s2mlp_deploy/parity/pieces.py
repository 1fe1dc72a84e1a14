"""A graph cut at the boundaries of modules: what can be known of an engine that cannot be looked into.

Each piece is a graph of its own. Given what enters it in the model, what leaves it is compared with the model's: the
first piece that departs holds the fault.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import onnx_ir as ir

from s2mlp_deploy.parity.exits import scope_of


@dataclass(frozen=True)
class Piece:
    """A part of a graph.

    Attributes:
        inputs: The values that enter it, in the graph's names.
        outputs: Those that leave it.
        modules: The modules whose nodes it has, without those inside of one of them, in order.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    modules: tuple[str, ...]


def cut(graph: ir.Graph, known: Collection[str], count: int) -> tuple[Piece, ...]:
    """Divides a graph into pieces of about as many nodes each.

    Args:
        graph: In topological order.
        known: The values that may enter or leave a piece: those that the model's are known of.
        count: How many pieces at most; there are fewer where there are not so many places to cut.
    """
    nodes = list(graph)
    borders = _borders(graph, nodes, known)
    chosen = {0}
    for number in range(1, count):
        wanted = number * len(nodes) / count
        ahead = [place for place in borders if max(chosen) < place < len(nodes)]
        if ahead:
            # A place where one value passes is worth some nodes more or less.
            size = len(nodes) / count
            chosen.add(min(ahead, key=lambda place: abs(place - wanted) + size * (borders[place] - 1)))
    ends = [*sorted(chosen)[1:], len(nodes)]
    pieces = []
    for start, end in zip(sorted(chosen), ends, strict=True):
        part = set(nodes[start:end])
        made = {value: None for node in nodes[start:end] for value in node.outputs}
        read = {value: None for node in nodes[start:end] for value in node.inputs if value is not None}
        entering = [v for v in read if v not in made and (v.producer() is not None or v.is_graph_input())]
        leaving = [v for v in made if v.is_graph_output() or any(reader not in part for reader, _ in v.uses())]
        pieces.append(Piece(_names(entering), _names(leaving), _modules(graph, nodes[start:end])))
    return tuple(pieces)


def _names(values: Iterable[ir.Value]) -> tuple[str, ...]:
    return tuple(str(value.name) for value in values)


def _borders(graph: ir.Graph, nodes: list[ir.Node], known: Collection[str]) -> dict[int, int]:
    """Where all values that pass from the nodes before to those behind are known: by the number of nodes before.

    Returns:
        How many values pass there.
    """
    position = {node: index for index, node in enumerate(nodes)}
    last = {
        value: max((position.get(reader, len(nodes)) for reader, _ in value.uses()), default=-1)
        for value in (*graph.inputs, *(value for node in nodes for value in node.outputs))
    }
    passing = {value for value in graph.inputs if last[value] >= 0}
    found: dict[int, int] = {}
    for index, node in enumerate(nodes):
        passing |= set(node.outputs)
        passing = {value for value in passing if last[value] > index}
        if passing and all(value.name in known for value in passing):
            found[index + 1] = len(passing)
    return found


def piece_model(model: ir.Model, piece: Piece) -> ir.Model:
    """A piece as a model of its own, with the metadata of the whole.

    Args:
        model: The whole; stays as it is.
        piece: Of its graph.
    """
    whole = model.clone()
    part = ir.convenience.extract(whole.graph, list(piece.inputs), list(piece.outputs))
    part.name = whole.graph.name
    part.opset_imports.update(whole.graph.opset_imports)
    made = ir.Model(part, ir_version=model.ir_version, producer_name=model.producer_name)
    made.metadata_props.update(model.metadata_props)
    return made


def _modules(graph: ir.Graph, nodes: list[ir.Node]) -> tuple[str, ...]:
    """The outermost names that tell the piece from others: blocks rather than their layers."""
    inputs = {str(value.name) for value in graph.inputs}
    found: dict[str, None] = {}
    for node in nodes:
        path = ".".join(scope_of(node).split(".")[:4])
        if path and path not in inputs:
            found[path] = None
    return tuple(path for path in found if not any(path.startswith(f"{other}.") for other in found))
