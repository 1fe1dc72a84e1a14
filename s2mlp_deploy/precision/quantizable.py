"""The GEMMs and convolutions of a graph that are worth quantizing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from s2mlp_deploy.errors import QuantizationError
from s2mlp_deploy.graph.editing import PREPROCESSING
from s2mlp_deploy.graph.operators import MATRIX_OPS, array_of, is_one_hot_convolution, is_sum_as_product
from s2mlp_deploy.graph.rows import least_size
from s2mlp_deploy.precision.exclusion import NOTHING, Exclusion

_FEW_CHANNELS = 16
_LARGEST_FP8_KERNEL = 32
_PRODUCTS = frozenset({"Attention", "ConvTranspose", "DeformConv", "Einsum", "GRU", "LSTM", "RNN"})
"""Operators of matrix products beside :data:`MATRIX_OPS`, which run in the type of the graph around them."""

BATCH_BYTES = 2**26
"""Activations of one batch that may be in memory at once: 64 MiB. The runtime holds several times that besides."""


@dataclass(frozen=True)
class QuantizableOp:
    """A GEMM or convolution with constant weights.

    Attributes:
        layer: The module it comes from.
        node: MatMul, Gemm or Conv.
        activation: What is multiplied with the weights.
        weight: The weights.
        axis: Of the weights, the one that counts output channels.
        bias: One number per output channel, or one for all, where there is one.
        add: The Add behind a MatMul that adds the bias; the other kinds add it themselves.
        output: The result with the bias.
    """

    layer: str
    node: ir.Node
    activation: ir.Value
    weight: ir.Value
    axis: int
    bias: ir.Value | None
    add: ir.Node | None
    output: ir.Value

    @property
    def weights(self) -> NDArray[np.float32]:
        """The weights' numbers."""
        array = array_of(self.weight)
        assert array is not None
        return array.astype(np.float32)

    @property
    def bias_values(self) -> NDArray[np.float32] | None:
        """The bias's numbers, float32 [output channels]."""
        array = array_of(self.bias)
        if array is None:
            return None
        return np.broadcast_to(array.reshape(-1), self.weights.shape[self.axis]).astype(np.float32)


@dataclass(frozen=True)
class OpSelection:
    """What can be quantized and what is left alone.

    Attributes:
        ops: In graph order.
        skipped: Layers that stay in float, with the reason; the node's name in place of the layer's where another op
            of the layer is quantized, and for products that have no weights to quantize.
    """

    ops: tuple[QuantizableOp, ...]
    skipped: dict[str, str]


def select_ops(
    model: ir.Model, exclusion: Exclusion = NOTHING, *, dtype: ir.DataType = ir.DataType.INT8
) -> OpSelection:
    """Finds the GEMMs and convolutions whose weights are constant.

    GEMMs with one row per image (a classifier's head, split attention's two small layers) are skipped: they are a
    thousandth of the work, and a per-tensor scale over sums of tokens costs accuracy for nothing. Convolutions with few
    channels are skipped because quantizing them makes them slower.

    Args:
        model: A float32 or float16 graph.
        exclusion: What the user does not want quantized.
        dtype: Of the weights: INT8, or FLOAT8E4M3FN, for which more convolutions are too small.

    Raises:
        QuantizationError: The graph is quantized already, or has nothing to quantize in that type.
    """
    graph = model.graph
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear", "QLinearMatMul", "QLinearConv") for node in graph):
        raise QuantizationError(
            "the graph is quantized already",
            fix="quantize the fp32 file of an artifact",
        )
    chosen: list[QuantizableOp] = []
    skipped: list[tuple[QuantizableOp, str]] = []
    excluded = False
    for op in quantizable_ops(model):
        if not (reason := _not_worth_it(op, graph, dtype)):
            reason = exclusion.reason(op.node)
            excluded = excluded or bool(reason)
        if reason:
            skipped.append((op, exclusion.reason(op.node) or reason))
        else:
            chosen.append(op)
    if not chosen:
        precision = "fp8" if dtype == ir.DataType.FLOAT8E4M3FN else "int8"
        raise QuantizationError(
            f"the graph has no GEMM or convolution with constant weights that {precision} would speed up",
            fix=f"leave {precision} out of --precision" + (", or exclude less" if excluded else ""),
        )
    layers = {op.layer for op in chosen}
    names = {(str(op.node.name) if op.layer in layers else op.layer): reason for op, reason in skipped}
    return OpSelection(tuple(chosen), names | _other_products(model))


def quantizable_ops(model: ir.Model) -> tuple[QuantizableOp, ...]:
    """All GEMMs and convolutions with constant weights, in graph order, but those of the preprocessing."""
    found = (_quantizable_op(node) for node in model.graph if not (node.name or "").startswith(PREPROCESSING))
    return tuple(op for op in found if op is not None)


def _quantizable_op(node: ir.Node) -> QuantizableOp | None:
    if node.op_type not in MATRIX_OPS or is_one_hot_convolution(node):
        return None
    activation, weight = node.inputs[0], node.inputs[1]
    weights = array_of(weight)
    if activation is None or weight is None or weights is None or activation.const_value is not None:
        return None
    if weights.dtype not in (np.float32, np.float16):  # float64 stays what it is: nothing observes it.
        return None
    layer = str(node.name).rsplit("/", 1)[0]
    if node.op_type == "MatMul":
        if weights.ndim != 2:
            return None
        add, bias = _bias_behind(node, weights.shape[1])
        output = add.outputs[0] if add is not None else node.outputs[0]
        return QuantizableOp(layer, node, activation, weight, 1, bias, add, output)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if node.op_type == "Conv":
        if bias is not None and array_of(bias) is None:
            return None
        return QuantizableOp(layer, node, activation, weight, 0, bias, None, node.outputs[0])
    flags = {name: attribute.value for name, attribute in node.attributes.items()}
    if flags.get("transA", 0) or flags.get("alpha", 1.0) != 1.0 or flags.get("beta", 1.0) != 1.0:
        return None
    axis = 0 if flags.get("transB", 0) else 1
    if bias is not None and not _per_channel(array_of(bias), weights.shape[axis], 2):
        return None
    return QuantizableOp(layer, node, activation, weight, axis, bias, None, node.outputs[0])


def _other_products(model: ir.Model) -> dict[str, str]:
    """The names of GEMMs, convolutions and recurrences that no placement quantizes, with the reason."""
    return {
        str(node.name): _why_not(node)
        for node in model.graph
        if node.op_type in MATRIX_OPS | _PRODUCTS
        and not (node.name or "").startswith(PREPROCESSING)
        and not is_one_hot_convolution(node)
        and not is_sum_as_product(node)
        and _quantizable_op(node) is None
    }


def _why_not(node: ir.Node) -> str:
    if node.op_type in _PRODUCTS:
        return f"{node.op_type} is not quantized"
    left, right = array_of(node.inputs[0]), array_of(node.inputs[1])
    if right is None:
        return "a product of two activations" if left is None else "weights on the left"
    if node.op_type == "MatMul" and left is None:
        return f"weights of rank {right.ndim}"
    return "another product than activations times weights plus a constant bias"


def _per_channel(constant: NDArray[Any] | None, channels: int, rank: int) -> bool:
    """Whether a constant adds one number per channel to a result whose last axis is that of channels.

    ``[channels]``, ``[1, channels]``, one number for all channels.
    """
    if constant is None or constant.ndim > rank:
        return False
    return constant.size == 1 or (constant.shape[-1] == channels and constant.size == channels)


def _bias_behind(node: ir.Node, channels: int) -> tuple[ir.Node | None, ir.Value | None]:
    """The Add of a constant per output channel that is the only reader of a MatMul."""
    uses = list(node.outputs[0].uses())
    if len(uses) != 1 or node.outputs[0].is_graph_output() or uses[0][0].op_type != "Add":
        return None, None
    add = uses[0][0]
    other = next((value for value in add.inputs if value is not node.outputs[0]), None)
    shape = node.outputs[0].shape
    if not _per_channel(array_of(other), channels, len(shape) if shape is not None else 1):
        return None, None
    return add, other


def _not_worth_it(op: QuantizableOp, graph: ir.Graph, dtype: ir.DataType) -> str:
    if _one_row_per_image(op, graph):
        return "one row per image"
    return "too few channels" if op.node.op_type == "Conv" and _is_small_convolution(op, graph, dtype) else ""


def _is_small_convolution(op: QuantizableOp, graph: ir.Graph, dtype: ir.DataType) -> bool:
    """Whether a convolution has no fast int8 or fp8 kernel, by the rule of nvidia-modelopt.

    ``find_nodes_from_convs_to_exclude`` in ``modelopt/onnx/quantization/graph_utils.py``: 16 input and output channels
    at least, but for int8 convolutions whose channels come in eights; for fp8 17, and kernels of at most 32 elements.
    """
    outputs, inputs, *kernel = (int(size) for size in op.weights.shape)
    attribute = op.node.attributes.get("group")
    grouped = attribute is not None and attribute.as_int() > 1
    if dtype == ir.DataType.FLOAT8E4M3FN:
        return min(outputs, inputs) <= _FEW_CHANNELS or int(np.prod(kernel)) > _LARGEST_FP8_KERNEL
    if min(outputs, inputs) >= _FEW_CHANNELS:
        return False
    if grouped:
        return outputs % 8 != 0 or min(kernel) < 3
    first = any(op.activation is value for value in graph.inputs)
    in_eights = outputs % 8 == 0 or inputs % 8 == 0
    return not (in_eights and (first or max(outputs, inputs) >= _FEW_CHANNELS) and len(set(kernel)) == 1)


def _one_row_per_image(op: QuantizableOp, graph: ir.Graph) -> bool:
    shape, image = op.activation.shape, graph.inputs[0].shape if graph.inputs else None
    return (
        op.node.op_type != "Conv"
        and shape is not None
        and image is not None
        and len(image) > 0
        and len(shape) == 2
        and shape[0] == image[0]
    )


def observed_values(selection: OpSelection) -> tuple[ir.Value, ...]:
    """The values whose histogram a placement may ask for: inputs of all ops, and results of convolutions."""
    values: dict[ir.Value, None] = {}
    for op in selection.ops:
        values[op.activation] = None
        if op.node.op_type == "Conv":
            values[op.output] = None
    return tuple(values)


def batch_for(values: Sequence[ir.Value]) -> int:
    """How many samples fit into :data:`BATCH_BYTES`."""
    one = sum(4 * int(np.prod([least_size(size) for size in value.shape or ()], dtype=np.int64)) for value in values)
    return int(np.clip(BATCH_BYTES // max(one, 1), 1, 32))
