"""The GEMMs and convolutions of a graph that are worth quantizing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from s2mlp_deploy.errors import QuantizationError
from s2mlp_deploy.graph.editing import PREPROCESSING
from s2mlp_deploy.graph.operators import array_of, is_one_hot_convolution

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
        bias: One number per output channel, where there is one.
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


@dataclass(frozen=True)
class OpSelection:
    """What can be quantized and what is left alone.

    Attributes:
        ops: In graph order.
        skipped: Layers with weights that stay in float, with the reason.
    """

    ops: tuple[QuantizableOp, ...]
    skipped: dict[str, str]


def select_ops(model: ir.Model) -> OpSelection:
    """Finds the GEMMs and convolutions whose weights are constant.

    GEMMs with one row per image (a classifier's head, split attention's two small layers) are skipped: they are a
    thousandth of the work, and a per-tensor scale over sums of tokens costs accuracy for nothing.

    Args:
        model: A float32 or float16 graph.

    Raises:
        QuantizationError: The graph is quantized already, or has nothing to quantize.
    """
    graph = model.graph
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear", "QLinearMatMul", "QLinearConv") for node in graph):
        raise QuantizationError(
            "the graph is quantized already",
            fix="quantize the fp32 file of an artifact",
        )
    chosen: list[QuantizableOp] = []
    skipped: dict[str, str] = {}
    for node in graph:
        op = _quantizable_op(node)
        if op is None or (node.name or "").startswith(PREPROCESSING):
            continue
        if _one_row_per_image(op, graph):
            skipped[op.layer] = "one row per image"
        else:
            chosen.append(op)
    if not chosen:
        raise QuantizationError(
            "the graph has no GEMM or convolution with constant weights that int8 would speed up",
            fix="leave out --precision int8",
        )
    return OpSelection(tuple(chosen), skipped)


def _quantizable_op(node: ir.Node) -> QuantizableOp | None:
    if node.op_type not in ("MatMul", "Gemm", "Conv") or is_one_hot_convolution(node):
        return None
    activation, weight = node.inputs[0], node.inputs[1]
    weights = array_of(weight)
    if activation is None or weight is None or weights is None or activation.const_value is not None:
        return None
    layer = str(node.name).rsplit("/", 1)[0]
    if node.op_type == "MatMul":
        if weights.ndim != 2:
            return None
        add, bias = _bias_behind(node, weights.shape[1])
        output = add.outputs[0] if add is not None else node.outputs[0]
        return QuantizableOp(layer, node, activation, weight, 1, bias, add, output)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and array_of(bias) is None:
        return None
    if node.op_type == "Conv":
        return QuantizableOp(layer, node, activation, weight, 0, bias, None, node.outputs[0])
    flags = {name: attribute.value for name, attribute in node.attributes.items()}
    if flags.get("transA", 0) or flags.get("alpha", 1.0) != 1.0 or flags.get("beta", 1.0) != 1.0:
        return None
    return QuantizableOp(
        layer, node, activation, weight, 0 if flags.get("transB", 0) else 1, bias, None, node.outputs[0]
    )


def _bias_behind(node: ir.Node, channels: int) -> tuple[ir.Node | None, ir.Value | None]:
    """The Add of a constant per output channel that is the only reader of a MatMul."""
    uses = list(node.outputs[0].uses())
    if len(uses) != 1 or node.outputs[0].is_graph_output() or uses[0][0].op_type != "Add":
        return None, None
    add = uses[0][0]
    other = next((value for value in add.inputs if value is not node.outputs[0]), None)
    constant = array_of(other)
    if constant is None or constant.shape != (channels,):
        return None, None
    return add, other


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
    one = sum(
        4 * int(np.prod([s for s in value.shape or () if isinstance(s, int)], dtype=np.int64)) for value in values
    )
    return int(np.clip(BATCH_BYTES // max(one, 1), 1, 32))
