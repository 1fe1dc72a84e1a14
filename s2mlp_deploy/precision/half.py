"""float16 graphs whose every operator's types agree, with float32 islands where the range demands them.

TensorRT 11 takes the precision from the graph and nothing else, and its parser refuses an operator that mixes float16
and float32 (``docs/explanation/precision.md``). Which operators must stay in float32 is read from the largest magnitude
of every tensor in a float32 run over the calibration data: no runtime on a CPU shows an overflow, because ONNX Runtime
computes float16 graphs in float32 there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from s2mlp_deploy.errors import QuantizationError
from s2mlp_deploy.graph.editing import FLOATS, PREPROCESSING, Editor, drop_unused_initializers
from s2mlp_deploy.graph.operators import MATRIX_OPS, array_of, data_inputs, is_movement, is_square
from s2mlp_deploy.graph.sums import products_as_sums
from s2mlp_deploy.precision.epsilons import of_small_constants
from s2mlp_deploy.precision.exclusion import NOTHING, Exclusion

LARGEST = 65504.0
"""Of float16."""

SMALLEST = 2.0**-24
"""The least number above 0 of float16, a subnormal."""

MARGIN = 4.0
"""How much larger than in the calibration data a tensor may become before float16 overflows."""

_ALWAYS = {
    **dict.fromkeys(
        ("ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceProd", "CumSum"),
        "adds many numbers, whose sum loses what float16 cannot hold",
    ),
    **dict.fromkeys(
        ("Softmax", "LogSoftmax", "ReduceLogSumExp", "ReduceLogSum"), "exponentials, whose range is float16's"
    ),
    **dict.fromkeys(("InstanceNormalization", "GroupNormalization"), "statistics of many numbers"),
}
_VARIANCE = "part of a variance: squares overflow from 256 on and vanish below 0.0002"
_ON_VARIANCES = ("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Reciprocal")
_STEPS = {ir.DataType.INT8: 128.0, ir.DataType.UINT8: 255.0, ir.DataType.FLOAT8E4M3FN: 448.0}
"""The largest distance from 0, in units of the scale, that a quantized number can have."""
_HALF = "tensor(float16)"


@dataclass(frozen=True)
class Island:
    """A node that computes in float32.

    Attributes:
        node: Its name.
        reason: Why.
    """

    node: str
    reason: str


@dataclass(frozen=True)
class HalfGraph:
    """A graph in float16.

    Attributes:
        model: The graph.
        islands: The nodes that stay in float32.
    """

    model: ir.Model
    islands: tuple[Island, ...]


def to_half(
    model: ir.Model, magnitudes: Mapping[str, float], *, keep_io: bool = True, exclusion: Exclusion = NOTHING
) -> HalfGraph:
    """Casts a copy of a float32 graph to float16.

    Precondition: every value has a type, no node has a subgraph. Postconditions: all float inputs of a node have one
    type, except where ONNX leaves no choice (the scales of Resize, for example); a Cast stands wherever two types meet
    and nowhere else; inputs and outputs have their old types, or float16.

    Args:
        model: The graph; Q and DQ may be in it.
        magnitudes: The largest magnitude of tensors, by name, in a float32 run. Of tensors that are not in
            it, their node alone decides.
        keep_io: Whether inputs and outputs stay float32.
        exclusion: What the user wants in float32.

    Raises:
        QuantizationError: A node has a subgraph.
    """
    model = products_as_sums(model)  # A copy. A sum is the first to leave float16's range, and is seen as one.
    graph = model.graph
    if nested := [str(node.name) for node in graph if any(_has_graph(a) for a in node.attributes.values())]:
        raise QuantizationError(
            "the graph branches or loops, which cannot be cast to float16",
            where=nested[0],
            fix="leave out --precision fp16",
        )
    reasons = _islands(graph, magnitudes, exclusion)
    caster = _Caster(graph, reasons, model.opset_imports.get("", 1))
    caster.run(keep_io=keep_io)
    drop_unused_initializers(graph)
    islands = tuple(Island(name, reason) for name, reason in reasons.items() if not name.startswith(PREPROCESSING))
    return HalfGraph(model, islands)


def _has_graph(attribute: ir.Attr) -> bool:
    return attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def _islands(graph: ir.Graph, magnitudes: Mapping[str, float], exclusion: Exclusion) -> dict[str, str]:
    """Names of the nodes that stay in float32, with the reason, in graph order."""
    variance, small = _variances(graph), of_small_constants(graph)
    magnitudes = _spread(graph, magnitudes)
    found: dict[str, str] = {}
    for node in graph:
        name = str(node.name)
        if name.startswith(PREPROCESSING):
            found[name] = "preprocessing"
        elif reason := exclusion.reason(node):
            found[name] = reason
        elif node.op_type in _ALWAYS and _is_float(node.inputs[0]):
            found[name] = _ALWAYS[node.op_type]
        elif node in variance:
            found[name] = _VARIANCE
        elif node in small:
            found[name] = small[node]
        elif reason := _too_large(node, magnitudes):
            found[name] = reason
    return found


def _spread(graph: ir.Graph, magnitudes: Mapping[str, float]) -> dict[str, float]:
    """Magnitudes of what was not measured: results of data movement, and of DQ, which saturates."""
    known = dict(magnitudes)
    for node in graph:
        if is_movement(node):
            moved = [known.get(str(v.name), 0.0) for i in data_inputs(node) if (v := node.inputs[i]) is not None]
            known |= {str(value.name): max(moved) for value in node.outputs if str(value.name) not in known}
        elif node.op_type == "DequantizeLinear" and node.inputs[0] is not None:
            scale, steps = array_of(node.inputs[1]), _STEPS.get(node.inputs[0].dtype or ir.DataType.UNDEFINED)
            if scale is not None and steps is not None:
                # Like a constant's, it does not grow with the data.
                known[str(node.outputs[0].name)] = float(scale.max(initial=0.0)) * steps / MARGIN
    return known


def _too_large(node: ir.Node, magnitudes: Mapping[str, float]) -> str:
    for value in (*node.inputs, *node.outputs):
        if value is None or not _is_float(value):
            continue
        magnitude = magnitudes.get(str(value.name), 0.0)
        constant = array_of(value)
        if constant is not None and constant.size:
            # A constant does not grow with the data, and float16 has infinities of its own.
            magnitude = float(np.abs(constant[~np.isinf(constant)]).max(initial=0.0)) / MARGIN
        # A norm squares its input; its statistics are float32 by ONNX's definition, but not in every runtime.
        limit = (
            np.sqrt(LARGEST / MARGIN)
            if node.op_type == "LayerNormalization" and constant is None
            else (LARGEST / MARGIN)
        )
        if not magnitude <= limit:
            return f"{value.name} reaches {magnitude:.3g}"
    return ""


def _variances(graph: ir.Graph) -> set[ir.Node]:
    """The nodes between a square and the root of its mean or sum, where a norm is written out."""
    found: set[ir.Node] = set()
    for node in graph:
        if node.op_type not in ("ReduceMean", "ReduceSum") or node.inputs[0] is None:
            continue
        square = node.inputs[0].producer()
        if square is None or not is_square(square):
            continue
        found |= {square, node}
        pending = [node.outputs[0]]
        while pending:
            value = pending.pop()
            for reader, _ in value.uses():
                if reader not in found and _is_statistic(reader, value):
                    found.add(reader)
                    pending.extend(reader.outputs)
    return found


def _is_statistic(node: ir.Node, value: ir.Value) -> bool:
    """Whether an operation is on the variance alone: its other operand, if any, is a constant or a count."""
    if is_movement(node):
        return data_inputs(node) == (0,) and node.inputs[0] is value
    others = [other for other in node.inputs if other is not None and other is not value]
    return node.op_type in _ON_VARIANCES and all(
        array_of(other) is not None or (other.shape is not None and len(other.shape) == 0) for other in others
    )


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype in FLOATS


def _formal_types(node: ir.Node, opset: int) -> tuple[list[set[str]], list[set[str]]]:
    """The types that ONNX allows for an operator's inputs and outputs; none are known of operators of other domains."""
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return [], []
    return [set(formal.types) for formal in schema.inputs], [set(formal.types) for formal in schema.outputs]


def _makes_float32(node: ir.Node) -> bool:
    """Whether an operator makes floats of none, as EyeLike does, for which ONNX Runtime has no other kernels."""
    filled = any(attribute.type == ir.AttributeType.TENSOR for attribute in node.attributes.values())
    return node.op_type != "Cast" and not filled and not any(map(_is_float, node.inputs))


def _allows_half(formal: list[set[str]], position: int) -> bool:
    # The last of an operator's inputs or outputs may stand for any number of them.
    return not formal or _HALF in formal[min(position, len(formal) - 1)]


class _Caster:
    """Gives every node its type and puts Casts where types meet."""

    def __init__(self, graph: ir.Graph, islands: Mapping[str, str], opset: int) -> None:
        self.graph = graph
        self.editor = Editor(graph)
        self.islands = islands
        self.opset = opset
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def run(self, *, keep_io: bool) -> None:
        outputs = list(self.graph.outputs)
        if not keep_io:
            for value in self.graph.inputs:
                if _is_float(value):
                    value.type = ir.TensorType(ir.DataType.FLOAT16)
        for node in list(self.graph):
            self._retype(node, self._target(node))
        for value in outputs:
            wanted = ir.DataType.FLOAT if keep_io else ir.DataType.FLOAT16
            if _is_float(value) and value.dtype != wanted:
                self._cast_output(value, wanted)

    def _target(self, node: ir.Node) -> ir.DataType:
        if node.op_type == "QuantizeLinear" and node.inputs[0] is not None:
            # Reads either type; a Cast in front of it would only cost.
            return node.inputs[0].dtype or ir.DataType.FLOAT
        if node.op_type == "DequantizeLinear":
            readers = [reader for reader, _ in node.outputs[0].uses()]
            if readers and all(str(reader.name) in self.islands for reader in readers):
                return ir.DataType.FLOAT
        return ir.DataType.FLOAT if str(node.name) in self.islands else ir.DataType.FLOAT16

    def _retype(self, node: ir.Node, target: ir.DataType) -> None:
        if node.op_type == "ConstantOfShape" and "value" not in node.attributes and _is_float(node.outputs[0]):
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(np.zeros(1, np.float32)))
        if _makes_float32(node):
            return
        taken, given = _formal_types(node, self.opset)
        for position, value in enumerate(node.inputs):
            if value is None or not _is_float(value):
                continue
            wanted = target if _allows_half(taken, position) else ir.DataType.FLOAT
            if value.dtype != wanted:
                node.replace_input_with(position, self._as(value, wanted))
        for name, attribute in list(node.attributes.items()):
            if name in ("to", "dtype") and attribute.value in (ir.DataType.FLOAT.value, ir.DataType.FLOAT16.value):
                node.attributes[name] = ir.AttrInt64(name, target.value)
            elif attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in FLOATS:
                array = _cast_constant(attribute.as_tensor().numpy(), target)
                node.attributes[name] = ir.AttrTensor(name, ir.tensor(array))
        for position, value in enumerate(node.outputs):
            if _is_float(value):
                value.type = ir.TensorType(target if _allows_half(given, position) else ir.DataType.FLOAT)

    def _as(self, value: ir.Value, target: ir.DataType) -> ir.Value:
        """The value in another type, made once."""
        key = (value, target)
        if key not in self._casts:
            array = array_of(value)
            if array is not None:
                # A weight may well become 0; whatever else is read may be divided by.
                weights = all(reader.op_type in MATRIX_OPS for reader, _ in value.uses())
                cast = array.astype(target.numpy()) if weights else _cast_constant(array, target)
                self._casts[key] = self.editor.constant(cast, f"{value.name}.{_suffix(target)}")
            else:
                self._casts[key] = self.editor.cast(value, target, name=f"{value.name}/to_{_suffix(target)}")
        return self._casts[key]

    def _cast_output(self, value: ir.Value, wanted: ir.DataType) -> None:
        name = str(value.name)
        value.name = self.editor.free_name(f"{name}/{_suffix(value.dtype)}")
        cast = self.editor.cast(value, wanted, name=f"{name}/to_{_suffix(wanted)}")
        for index, output in enumerate(self.graph.outputs):
            if output is value:
                self.graph.outputs[index] = cast
        cast.name = name


def _cast_constant(array: NDArray[Any], target: ir.DataType) -> NDArray[Any]:
    """A constant in another type, in which nothing becomes 0 that was none: an epsilon of 1e-12 keeps a divisor from 0.

    nvidia-modelopt clamps epsilons to the smallest subnormal in the same way.
    """
    cast = array.astype(target.numpy())
    lost = (cast == 0) & (array != 0)
    return np.where(lost, np.copysign(SMALLEST, array), cast).astype(cast.dtype)


def _suffix(dtype: ir.DataType | None) -> str:
    return "fp16" if dtype == ir.DataType.FLOAT16 else "fp32"
