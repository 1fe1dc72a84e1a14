"""What an ONNX operator does: which nodes only move data, which are GEMMs and convolutions. No onnx at import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx_ir as ir

MATRIX_OPS = frozenset({"MatMul", "Gemm", "Conv"})
"""GEMMs and convolutions: what runs in reduced precision, and what an engine's precision is checked by."""

DATA_MOVEMENT_OPS = frozenset(
    {
        "Concat",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Pad",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators that move elements without computing. Whether a node does depends on more: see :func:`is_movement`."""


def array_of(value: ir.Value | None) -> NDArray[Any] | None:
    """A constant's numbers; None for what is computed."""
    if value is None or value.const_value is None:
        return None
    return value.const_value.numpy()


def is_movement(node: ir.Node) -> bool:
    """Whether a node only moves elements, those of :func:`data_inputs`, so that int8 passes through it.

    That is an operator of :data:`DATA_MOVEMENT_OPS` (a Pad only if it writes zeros or the border), or a depthwise
    convolution with one-hot kernels.
    """
    if node.op_type == "Pad":
        given = node.inputs[2] if len(node.inputs) > 2 else None
        fill = array_of(given)
        return not fills_with_constant(node) or given is None or (fill is not None and float(fill) == 0.0)
    return node.op_type in DATA_MOVEMENT_OPS or is_one_hot_convolution(node)


def fills_with_constant(pad: ir.Node) -> bool:
    """Whether a Pad writes a number of its own, not the border's."""
    mode = pad.attributes.get("mode")
    return mode is None or mode.as_string() == "constant"


def is_one_hot_convolution(node: ir.Node) -> bool:
    """Whether a node is a depthwise convolution that copies one element to another: a shift as grouped-conv."""
    if node.op_type != "Conv" or (len(node.inputs) > 2 and node.inputs[2] is not None):
        return False
    kernel = array_of(node.inputs[1])
    group = node.attributes.get("group")
    if kernel is None or kernel.shape[1] != 1 or group is None or group.as_int() != kernel.shape[0]:
        return False
    flat = kernel.reshape(kernel.shape[0], -1)
    return bool(np.all(np.count_nonzero(flat, axis=1) == 1) and np.all(flat.max(axis=1) == 1))


def data_inputs(node: ir.Node) -> tuple[int, ...]:
    """Positions of the inputs whose numbers a movement moves; the others are indices, axes and kernels."""
    return tuple(range(len(node.inputs))) if node.op_type == "Concat" else (0,)


def only_reader(value: ir.Value) -> ir.Node | None:
    """The one node that reads a value, once, and stands in its graph.

    None where there are others, where the graph returns it, or where only a branch of an If reads it.
    """
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    reader, producer = uses[0][0], value.producer()
    return reader if producer is None or reader.graph is producer.graph else None


def is_square(node: ir.Node) -> bool:
    """Whether a node squares numbers: the first step of a variance."""
    if node.op_type == "Mul":
        return node.inputs[0] is node.inputs[1]
    exponent = array_of(node.inputs[1]) if node.op_type == "Pow" else None
    return exponent is not None and exponent.size == 1 and float(exponent.reshape(())) == 2.0


def is_sum_as_product(node: ir.Node) -> bool:
    """Whether a node adds up rows: a MatMul with a constant row of equal numbers on the left."""
    row = array_of(node.inputs[0]) if node.op_type == "MatMul" else None
    return row is not None and row.ndim == 2 and row.shape[0] == 1 and row.size > 0 and not np.ptp(row)
