"""An ONNX graph as recognition reads it.

A node of the protocol is a value here: what an operator computes. Where the sizes of a value do not follow from the
operators, and where indices are computed from sizes, they are measured (:mod:`.onnx_measuring`), at the example's sizes
and at others.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from s2mlp_deploy.recognition import onnx_ops
from s2mlp_deploy.recognition.cost import VIEW, Cost
from s2mlp_deploy.recognition.elsewhere import in_short
from s2mlp_deploy.recognition.graph import (
    INDEX,
    DeformableConv,
    FreeSize,
    SizeDependence,
    UnknownValueError,
)
from s2mlp_deploy.recognition.onnx_integers import IntegerConvolution, integer_convolutions
from s2mlp_deploy.recognition.onnx_measuring import SIZES, Measuring, shapes_of
from s2mlp_deploy.recognition.onnx_ops import Runtime, carried_positions, constant_of
from s2mlp_deploy.recognition.onnx_sizes import size_dependence

_BY_CHANCE = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
_OUTPUT = "output"
"""Reads what leaves the graph."""

Feeds = Callable[[Mapping[str, int]], Mapping[str, NDArray[Any]]]
"""Inputs at a choice of free sizes."""


class OnnxGraph:
    """The main graph of a model, in the words of :mod:`.graph`; graphs within its nodes are left alone.

    Args:
        model: Values have names, each its own; initializers are constants.
        runtime: Loads graphs.
        feeds: Makes inputs of any sizes.
        free_sizes: Sizes of the inputs that are not fixed, by their names in the shapes of the inputs.

    Raises:
        UnknownValueError: The graph does not run on its example.
    """

    def __init__(self, model: ir.Model, runtime: Runtime, feeds: Feeds, free_sizes: Sequence[FreeSize] = ()) -> None:
        graph = model.graph
        self._feeds = feeds
        self.free_sizes: Sequence[FreeSize] = list(free_sizes)
        self._hints = {size.name: size.example for size in free_sizes}
        self._outputs = set(graph.outputs)
        computed = [value for node in graph for value in node.outputs]
        self._variable = _reached(graph)
        self._from_sizes = _from_sizes(graph)
        self._zeros = _zeros(graph)
        self._integers = integer_convolutions(graph)
        self._behind = {conv.dequantize: [value] for value, conv in self._integers.items()}
        self._moves = {value for value in computed if self._only_moves(value)}
        fills = [value for value in graph.initializers.values() if value in self._zeros and self._is_passed_on(value)]
        self._fills = set(fills)
        self.nodes: Sequence[ir.Value] = [*fills, *computed]
        names = {size.name for size in free_sizes}
        # Inference by the whole graph follows lists of sizes, that of single operators what folding has found.
        self._inferred = _inferred(graph, names, shapes_of(model)) | _inferred(graph, names, _stated(graph))
        self._movements = onnx_ops.Movements(runtime, model.opset_imports[""])
        self._known: dict[tuple[int, ...], SizedOnnxGraph | UnknownValueError] = {}
        self._measured = self._measuring(model, runtime)
        self._example = self.at({})

    def at(self, sizes: Mapping[str, int]) -> SizedOnnxGraph:
        """The graph at these values of its free sizes.

        Raises:
            UnknownValueError: It does not run at these.
        """
        values = {**self._hints, **sizes}
        key = tuple(values[size.name] for size in self.free_sizes)
        if key not in self._known:
            try:
                measured = self._measured.at(self._feeds(values))
            except Exception as error:  # A runtime has errors of its own.
                self._known[key] = UnknownValueError(f"the graph does not run at {values}: {in_short(error)}")
            else:
                shapes = {
                    value: tuple(size if isinstance(size, int) else values[size] for size in sizes)
                    for value, sizes in self._inferred.items()
                }
                self._known[key] = SizedOnnxGraph(self, shapes, *measured, self._movements)
        known = self._known[key]
        if isinstance(known, UnknownValueError):
            raise known
        return known

    def observed_shape(self, node: ir.Value) -> tuple[int | None, ...]:
        """The sizes of a tensor that were the same wherever the graph was run; None for the others.

        Raises:
            UnknownValueError: Its shape was not measured.
        """
        shapes = [sized.shape(node) for sized in self._known.values() if isinstance(sized, SizedOnnxGraph)]
        return tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes, strict=True))

    def size_dependence(self, members: Sequence[ir.Value]) -> SizeDependence:
        """See :class:`~s2mlp_deploy.recognition.graph.Graph`."""
        return size_dependence(self, members)

    def name(self, node: ir.Value) -> str:
        """Of the node that computes it, as the file has it."""
        producer = node.producer()
        return str((producer.name if producer is not None else None) or node.name)

    def users(self, node: ir.Value) -> Sequence[Any]:
        """The results of whatever reads its elements."""
        readers = [use.node for use in node.uses() if use.node.op_type not in SIZES or use.node.domain]
        found: list[Any] = [value for reader in readers for value in self._behind.get(reader, reader.outputs)]
        return [*found, _OUTPUT] if node in self._outputs else found

    def dtype(self, node: ir.Value) -> Hashable | None:
        """Of its elements."""
        return node.dtype

    def is_movement(self, node: ir.Value) -> bool:
        """See :class:`~s2mlp_deploy.recognition.graph.Graph`."""
        return node in self._moves or node in self._fills

    def is_variable(self, node: ir.Value) -> bool:
        """See :class:`~s2mlp_deploy.recognition.graph.Graph`."""
        return node in self._variable

    def is_from_sizes(self, node: ir.Value) -> bool:
        """Whether a value is computed from the sizes of a tensor, which may be free."""
        return node in self._from_sizes

    def is_inferred(self, node: ir.Value) -> bool:
        """Whether the sizes of a tensor are numbers and free sizes, and nothing that is computed from them."""
        return node in self._inferred

    def is_zero(self, node: ir.Value) -> bool:
        """Whether a value holds zeros, whatever its sizes."""
        return node in self._zeros

    def carried(self, node: ir.Value) -> Sequence[ir.Value]:
        """See :class:`~s2mlp_deploy.recognition.graph.Graph`."""
        producer = node.producer()
        if producer is None or node in self._zeros:
            return []
        if (conv := self._integers.get(node)) is not None:
            return [conv.source]
        return [value for i in carried_positions(producer) if (value := producer.inputs[i]) is not None]

    def viewed(self, node: ir.Value) -> ir.Value | None:
        """See :class:`~s2mlp_deploy.recognition.graph.Graph`."""
        producer = node.producer()
        return producer.inputs[0] if producer is not None and producer.op_type in onnx_ops.VIEWS else None

    def idiom(self, node: ir.Value) -> str | None:
        """See :class:`~s2mlp_deploy.recognition.graph.Graph`."""
        producer = node.producer()
        if (conv := self._integers.get(node)) is not None:
            producer = conv.node
        return None if producer is None else onnx_ops.idiom_of(producer)

    def integers(self, node: ir.Value) -> IntegerConvolution | None:
        """The convolution between DQ and Q that a value is the result of; None for another value."""
        return self._integers.get(node)

    def deformable(self, _: ir.Value) -> DeformableConv[ir.Value] | None:
        """None: runtimes differ in what they make of DeformConv, so the file's stays."""
        return None

    def _only_moves(self, value: ir.Value) -> bool:
        node = value.producer()
        if node is None or value.dtype is None or not value.name:
            return False
        if value.dtype in (ir.DataType.STRING, ir.DataType.COMPLEX64, ir.DataType.COMPLEX128):
            return False
        if value in self._zeros:
            return True
        if value in self._integers:
            return value in self._variable
        if value not in self._variable or not onnx_ops.only_moves(node):
            return False
        return all(other not in self._variable for other in self.unmoved(value)) and all(
            source.dtype == value.dtype for source in self.carried(value)
        )

    def unmoved(self, value: ir.Value) -> Sequence[ir.Value]:
        """Indices, axes, masks and kernels: what decides where elements go."""
        node = value.producer()
        if node is None or value in self._zeros or value in self._integers:
            return []
        carried = carried_positions(node)
        return [other for i, other in enumerate(node.inputs) if other is not None and i not in carried]

    def _measuring(self, model: ir.Model, runtime: Runtime) -> Measuring:
        """For shapes of what moves that are not inferred, and indices that are computed from sizes."""
        measured: dict[str, None] = {}
        asked: dict[str, None] = {}
        # From the last to the first: ONNX Runtime runs what leads to the last leaf first, and what a leaf at the start
        # of the network reads would be kept until the end.
        for value in reversed([value for value in self.nodes if value in self._moves]):
            producer = value.producer()
            parts = (*self.carried(value), *(producer.outputs if producer is not None else ()))
            measured.update({str(part.name): None for part in parts if part not in self._inferred})
            asked.update({str(index.name): None for index in self.unmoved(value)})
        constants = {str(value.name) for value in model.graph.initializers.values()}
        shapes, values = ([name for name in listed if name not in constants] for listed in (measured, asked))
        return Measuring(model, runtime, shapes, values, self._feeds(self._hints))

    def _is_passed_on(self, value: ir.Value) -> bool:
        return any(
            use.idx in carried_positions(use.node) and use.node.outputs[0] in self._moves for use in value.uses()
        )


class SizedOnnxGraph:
    """An ONNX graph at one choice of its free sizes."""

    def __init__(
        self,
        graph: OnnxGraph,
        inferred: Mapping[ir.Value, tuple[int, ...]],
        measured: Mapping[str, tuple[int, ...]],
        values: Mapping[str, NDArray[Any]],
        movements: onnx_ops.Movements,
    ) -> None:
        self._graph = graph
        self._inferred = inferred
        self._shapes = measured
        self._values = values
        self._movements = movements

    def shape(self, node: ir.Value) -> tuple[int, ...]:
        """See :class:`~s2mlp_deploy.recognition.graph.SizedGraph`."""
        if node in self._inferred:
            return self._inferred[node]
        if node.name in self._shapes:
            return self._shapes[str(node.name)]
        if node.is_initializer() and node.const_value is not None:
            return tuple(node.const_value.shape.numpy())
        raise UnknownValueError(f"{self._graph.name(node)} has no known shape")

    def constant(self, node: ir.Value) -> Tensor:
        """See :class:`~s2mlp_deploy.recognition.graph.SizedGraph`."""
        array = constant_of(node)
        if array is None:
            array = self._values.get(str(node.name))
        if array is None:
            raise UnknownValueError(f"{self._graph.name(node)} depends on the input")
        return torch.from_numpy(np.array(array))

    def run(self, node: ir.Value, tensor: Callable[[ir.Value], Any]) -> Any:
        """See :class:`~s2mlp_deploy.recognition.graph.SizedGraph`."""
        if self._graph.is_zero(node):
            return torch.zeros((), dtype=INDEX).expand(self.shape(node))
        if (conv := self._graph.integers(node)) is not None:
            return conv.run(tensor(conv.source))
        producer = node.producer()
        assert producer is not None
        carried = carried_positions(producer)
        inputs = [
            None if value is None else tensor(value) if i in carried else self.constant(value)
            for i, value in enumerate(producer.inputs)
        ]
        if producer.op_type == "Pad" and len(inputs) > 2 and inputs[2] is not None:
            inputs[2] = torch.zeros((), dtype=INDEX)
        index, start = node.index() or 0, 0
        if producer.op_type == "Split":
            attribute = producer.attributes.get("axis")
            axis = attribute.as_int() if attribute is not None else 0
            start = sum(self.shape(before)[axis] for before in producer.outputs[:index])
        return self._movements.run(producer, inputs, index, self.shape(node), start)

    def cost(self, node: ir.Value) -> Cost:
        """See :class:`~s2mlp_deploy.recognition.graph.SizedGraph`."""
        producer = node.producer()
        if producer is None or self._graph.is_zero(node):
            return VIEW
        if (conv := self._graph.integers(node)) is not None:
            return conv.cost(self.shape(node))
        counts = {
            i: self.constant(value).shape
            for i, value in enumerate(producer.inputs)
            if value is not None and i not in carried_positions(producer) and producer.op_type in onnx_ops.INDEXED
        }
        sources = [self.shape(source) for source in self._graph.carried(node)]
        return onnx_ops.cost_of(producer, sources, self.shape(node), counts)


_Sizes = tuple[int | str | None, ...]
"""Of a tensor: numbers, and names of those that are free."""


def _inferred(graph: ir.Graph, free: set[str], shapes: Mapping[str, _Sizes]) -> dict[ir.Value, tuple[int | str, ...]]:
    """The shapes that follow from the operators: whole of numbers and free sizes.

    Inference gives a free size that a Slice does not touch a name of its own, which later values have too.

    Args:
        graph: The graph.
        free: The names of free sizes.
        shapes: What one run of inference says, by the names of values: names of sizes mean nothing in another.
    """
    same: dict[str, int | str | None] = {name: name for name in free}

    def known(value: ir.Value | None) -> list[int | str | None]:
        sizes = shapes.get(str(value.name), ()) if value is not None else ()
        return [same.get(size) if isinstance(size, str) else size for size in sizes]

    found: dict[ir.Value, tuple[int | str, ...]] = {}

    def note(value: ir.Value) -> None:
        sizes = [size for size in known(value) if size is not None]
        if (stated := shapes.get(str(value.name))) is not None and len(sizes) == len(stated):
            found[value] = tuple(sizes)

    for value in graph.inputs:
        note(value)
    for node in graph:
        axes = constant_of(node.inputs[3]) if node.op_type == "Slice" and len(node.inputs) > 3 else None
        if axes is not None:
            before, after = known(node.inputs[0]), shapes.get(str(node.outputs[0].name), ())
            cut = {int(axis) % len(before) for axis in axes} if before else set()
            for axis, (old, new) in enumerate(zip(before, after, strict=False)):
                if axis not in cut and isinstance(new, str) and old is not None:
                    # A name that means two sizes means none.
                    same[new] = old if same.setdefault(new, old) == old else None
        for value in node.outputs:
            note(value)
    return found


def _stated(graph: ir.Graph) -> dict[str, _Sizes]:
    """The shapes that the values of a graph have, by name."""
    values = (*graph.inputs, *(value for node in graph for value in node.outputs))
    return {
        str(value.name): tuple(size if isinstance(size, int) else size.value for size in value.shape)
        for value in values
        if value.shape is not None
    }


def _reached(graph: ir.Graph) -> set[ir.Value]:
    """The values that an input's elements or chance reach; sizes of a tensor are none."""
    reached: set[ir.Value] = set(graph.inputs)
    for node in graph:
        if node.op_type in SIZES and not node.domain:
            continue
        inner = any(
            attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for attribute in node.attributes.values()
        )
        # What a foreign operator makes of constants is not known here.
        foreign = node.domain not in ("", "ai.onnx")
        if inner or foreign or node.op_type in _BY_CHANCE or any(value in reached for value in node.inputs):
            reached.update(node.outputs)
    return reached


def _from_sizes(graph: ir.Graph) -> set[ir.Value]:
    found: set[ir.Value] = set()
    for node in graph:
        if (node.op_type in SIZES and not node.domain) or any(value in found for value in node.inputs):
            found.update(node.outputs)
    return found


def _zeros(graph: ir.Graph) -> set[ir.Value]:
    """The constants that hold zeros alone, at every size."""
    found = {
        value
        for value in graph.initializers.values()
        if (array := constant_of(value)) is not None and array.dtype.kind == "f" and onnx_ops.is_plain_zero(array)
    }
    for node in graph:
        if node.op_type == "ConstantOfShape" and not node.domain:
            value = node.attributes.get("value")
            filler = np.zeros(1, np.float32) if value is None else value.as_tensor().numpy()
            if filler.dtype.kind == "f" and onnx_ops.is_plain_zero(filler):
                found.update(node.outputs)
        elif node.op_type in onnx_ops.MOVES and onnx_ops.only_moves(node):
            carried = [node.inputs[i] for i in carried_positions(node)]
            if carried and all(value in found for value in carried):
                found.update(node.outputs)
    return found
