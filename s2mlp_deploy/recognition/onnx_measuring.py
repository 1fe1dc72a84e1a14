"""Shapes and indices of an ONNX graph at a choice of sizes, without computing the network.

Inference tells the shapes where the sizes of the inputs are numbers. What is computed from sizes is then run with these
in the place of the tensors that they are of: a few hundred nodes on small tables instead of the network at every choice
of sizes. Where inference does not tell a shape (it depends on the input, or comes from an operator that onnx does not
know), the part of the network that leads to it is run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from s2mlp_deploy.recognition.elsewhere import in_short
from s2mlp_deploy.recognition.graph import UnknownValueError
from s2mlp_deploy.recognition.onnx_ops import Run, Runtime

SIZES = frozenset({"Shape", "Size"})
"""Read how large a tensor is and nothing of what it holds."""
_SHAPE, _VALUE = "shape of ", "value of "
_SMALL = 1024
"""Bytes of a constant that inference may need to see: a shape, axes, a scalar."""

_Shapes = Mapping[str, tuple[int, ...]]
Measured = tuple[Mapping[str, tuple[int, ...]], Mapping[str, NDArray[Any]]]
"""Shapes and values, by the names of values."""


@dataclass(frozen=True)
class _SizeOf:
    """A node that gives the sizes of a tensor, which is not run."""

    source: str
    whole: bool
    start: int | None
    end: int | None

    def of(self, known: _Shapes) -> NDArray[Any]:
        shape = known[self.source]
        return np.array(math.prod(shape) if self.whole else shape[self.start : self.end], np.int64)


@dataclass(frozen=True)
class _Part:
    """What is run: its inputs, those that are sizes, and the values whose shapes it gives."""

    run: Run
    inputs: tuple[str, ...]
    sizes: Mapping[str, _SizeOf]
    shapes: tuple[str, ...]


class Measuring:
    """What is asked of one graph at many sizes.

    Args:
        model: The graph, whose values have names, each its own; not changed.
        runtime: Loads graphs.
        shapes: Whose shapes are asked for.
        values: What is computed from sizes and asked for.
        example: Inputs of the example's sizes.

    Raises:
        UnknownValueError: What inference does not tell cannot be run.
    """

    def __init__(
        self,
        model: ir.Model,
        runtime: Runtime,
        shapes: Sequence[str],
        values: Sequence[str],
        example: Mapping[str, NDArray[Any]],
    ) -> None:
        self._model, self._runtime = model, runtime
        self._shapes, self._values = tuple(shapes), tuple(values)
        self._shell = _without_weights(model) if shapes or values else None
        needed = {*shapes, *(str(source.name) for node in model.graph if (source := _measured(node)) is not None)}
        self._told = frozenset(needed & set(self._inferred(example)))
        self._parts: dict[frozenset[str], _Part] = {}
        self._part(self._told)

    def at(self, feeds: Mapping[str, NDArray[Any]]) -> Measured:
        """The shapes and values for inputs of these sizes.

        Raises:
            Exception: Of the runtime: the graph does not run so.
        """
        known = self._inferred(feeds)
        # Where inference tells less than at the example, all that is needed is run.
        part = self._part(self._told if self._told <= set(known) else frozenset())
        results = part.run(
            {name: part.sizes[name].of(known) if name in part.sizes else feeds[name] for name in part.inputs}
        )
        shapes = {name: tuple(map(int, results[_SHAPE + name])) for name in part.shapes}
        shapes |= {name: known[name] for name in self._shapes if name not in shapes}
        return shapes, {name: results[_VALUE + name] for name in self._values}

    def _inferred(self, feeds: Mapping[str, NDArray[Any]]) -> _Shapes:
        """All shapes that are known where the inputs have these sizes."""
        if self._shell is None:
            return {}
        for value in self._shell.graph.input:
            if value.name in feeds:
                shape = value.type.tensor_type.shape
                shape.Clear()
                for size in feeds[value.name].shape:
                    shape.dim.add().dim_value = size
        try:
            graph = onnx.shape_inference.infer_shapes(self._shell, data_prop=True).graph
        except Exception:  # onnx has errors of its own, and what it does not infer is run.
            return {}
        return {
            value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
            for value in (*graph.input, *graph.value_info, *graph.output)
            if value.type.tensor_type.HasField("shape")
            and all(dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim)
        }

    def _part(self, told: frozenset[str]) -> _Part:
        if told not in self._parts:
            self._parts[told] = self._cut(told)
        return self._parts[told]

    def _cut(self, told: frozenset[str]) -> _Part:
        """What computes that which inference does not tell."""
        unknown = tuple(name for name in self._shapes if name not in told)
        if not (unknown or self._values):
            return _Part(lambda _: {}, (), {}, ())
        part = self._model.clone()
        graph = part.graph
        sizes = {}
        for node in list(graph):
            source = _measured(node)
            if source is None or source.name not in told:
                continue
            (old,) = node.outputs
            start, end = (node.attributes[n].as_int() if n in node.attributes else None for n in ("start", "end"))
            new = ir.Value(name=old.name, type=ir.TensorType(ir.DataType.INT64), shape=old.shape)
            sizes[str(new.name)] = _SizeOf(str(source.name), node.op_type == "Size", start, end)
            old.name = None
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            graph.remove(node, safe=True)
            graph.inputs.append(new)
        by_name = {str(value.name): value for value in graph.inputs}
        by_name |= {str(value.name): value for node in graph for value in node.outputs}
        outputs = []
        for prefix, kind, names in ((_SHAPE, "Shape", unknown), (_VALUE, "Identity", self._values)):
            for name in names:
                value = by_name[name]
                dtype = ir.DataType.INT64 if kind == "Shape" else value.dtype
                output = ir.Value(name=prefix + name, type=ir.TensorType(dtype) if dtype else None)
                graph.append(ir.Node("", kind, [value], outputs=[output], name=prefix + name))
                outputs.append(output)
        graph.outputs[:] = outputs
        RemoveUnusedNodesPass()(part)
        graph.inputs[:] = [value for value in graph.inputs if value.uses()]
        try:
            return _Part(self._runtime(part), tuple(str(value.name) for value in graph.inputs), sizes, unknown)
        except Exception as error:  # A runtime has errors of its own: an operator that it does not know, most often.
            raise UnknownValueError(f"the graph cannot be run: {in_short(error)}") from error


def _measured(node: ir.Node) -> ir.Value | None:
    """What a node gives the sizes of; None for another node."""
    return node.inputs[0] if node.op_type in SIZES and not node.domain else None


def shapes_of(model: ir.Model) -> dict[str, tuple[int | str | None, ...]]:
    """What one run of onnx's inference says of all shapes, by the names of values: numbers and names of sizes."""
    try:
        graph = onnx.shape_inference.infer_shapes(_without_weights(model), data_prop=True).graph
    except Exception:  # onnx has errors of its own.
        return {}
    return {
        value.name: tuple(
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
            for dim in value.type.tensor_type.shape.dim
        )
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }


def _without_weights(model: ir.Model) -> onnx.ModelProto:
    """The graph for inference: large constants are inputs, and nothing is known yet but what the operators say."""
    shell = model.clone()
    for node in shell.graph.all_nodes():
        for value in node.outputs:
            value.shape = None
    weights = dict(shell.graph.initializers)
    shell.graph.initializers.clear()
    proto = ir.to_proto(shell)
    del proto.graph.value_info[:]
    for name, value in weights.items():
        tensor = value.const_value
        if tensor is not None and tensor.nbytes <= _SMALL:
            small = ir.to_proto(ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=name))
            proto.graph.initializer.append(small)
        else:
            proto.graph.input.append(ir.to_proto(value))
    return proto
