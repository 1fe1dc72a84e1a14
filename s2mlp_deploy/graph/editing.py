"""Changing an ONNX graph in place: constants and nodes with free names, replacing and removing values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16})
PREPROCESSING = "preprocessing/"
"""Prefix of the nodes that resize and normalise images; they stay in float32, whatever the network is in."""


class Editor:
    """Adds constants and nodes to a graph, each with a name that is free and says what it belongs to.

    Args:
        graph: Changed in place.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self._names = {value.name for value in (*graph.inputs, *graph.initializers.values())}
        for node in graph:
            self._names.add(node.name)
            self._names.update(value.name for value in node.outputs)

    def free_name(self, name: str) -> str:
        """The name, with a number behind it where it is taken."""
        free, count = name, 0
        while free in self._names:
            count += 1
            free = f"{name}_{count}"
        self._names.add(free)
        return free

    def constant(self, array: NDArray[Any] | ir.TensorProtocol, name: str) -> ir.Value:
        """A new initializer."""
        tensor = ir.tensor(array) if isinstance(array, np.ndarray) else array
        value = ir.Value(
            name=self.free_name(name),
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(list(tensor.numpy().shape)),
            const_value=tensor,
        )
        self.graph.register_initializer(value)
        return value

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        name: str,
        dtype: ir.DataType | None,
        shape: ir.Shape | None,
        before: ir.Node | None = None,
        after: ir.Node | None = None,
    ) -> ir.Value:
        """Adds a node with one output before or after another (or as the first of the graph) and returns the output."""
        name = self.free_name(name)
        output = ir.Value(name=f"{name}.out", type=ir.TensorType(dtype) if dtype is not None else None, shape=shape)
        node = ir.Node(
            "", op_type, inputs, ir.convenience.convert_attributes(attributes or {}), outputs=[output], name=name
        )
        if before is not None:
            self.graph.insert_before(before, node)
        elif after is not None:
            self.graph.insert_after(after, node)
        else:
            self.graph.insert_before(self.graph[0], node)
        return output

    def cast(self, value: ir.Value, target: ir.DataType, *, name: str) -> ir.Value:
        """Adds a Cast behind a value (an input: as the first node of the graph) and returns its output."""
        attributes = {"to": target.value}
        after = value.producer()
        return self.node("Cast", [value], attributes, name=name, dtype=target, shape=value.shape, after=after)


def remove(graph: ir.Graph, nodes: Iterable[ir.Node]) -> None:
    """Removes nodes whose results no node reads any more, in the order given."""
    for node in nodes:
        graph.remove(node, safe=True)


def drop_unused_initializers(graph: ir.Graph) -> None:
    """Removes constants that no node reads any more."""
    for name in [
        name for name, value in graph.initializers.items() if not value.uses() and not value.is_graph_output()
    ]:
        del graph.initializers[name]


def move(value: ir.Value, target: ir.Value) -> None:
    """Gives every use of a value, and its place among the graph's outputs, to another one with its name."""
    was_output = value.is_graph_output()
    name = value.name
    value.replace_all_uses_with(target, replace_graph_outputs=True)
    if was_output:
        value.name = None
        target.name = name
