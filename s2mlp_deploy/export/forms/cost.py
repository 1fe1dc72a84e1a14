"""What a shift costs in each form, counted on the nodes that it becomes: how ``auto`` chooses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields

import onnx_ir as ir

from s2mlp_deploy.export.forms.base import ShiftForm
from s2mlp_deploy.export.graph_builder import GraphBuilder
from s2mlp_deploy.graph.operators import array_of, fills_with_constant
from s2mlp_deploy.recognition.cost import Cost
from s2mlp_deploy.shift.spec import ShiftSpec

_VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Shape"})
"""What copies nothing."""


def cost_of(form: ShiftForm, spec: ShiftSpec, sizes: Sequence[int], dtype: ir.DataType, opset: int) -> Cost:
    """Counts what a shift becomes in a form.

    Args:
        form: The form.
        spec: The shift.
        sizes: Of the tensor.
        dtype: Of its elements.
        opset: Of the graph.

    Raises:
        ExportError: The form cannot write this shift.
    """
    build = GraphBuilder("", opset, {})
    form.lower(build, ir.Value(name="x", type=ir.TensorType(dtype), shape=ir.Shape(sizes)), spec)
    counted = [_count(node) for node in build.nodes]
    return Cost(*(sum(getattr(cost, field.name) for cost in counted) for field in fields(Cost)))


def _count(node: ir.Node) -> Cost:
    if node.op_type in _VIEWS:
        return Cost(views=1)
    out, value = _sizes(node.outputs[0]), node.outputs[0]
    written = int(math.prod(out) * (value.dtype.itemsize if value.dtype is not None else 4))
    if node.op_type == "Transpose":
        return Cost(1, turned=written)
    if node.op_type == "Gather":
        block = math.prod(out[node.attributes["axis"].as_int() + 1 :])
        return Cost(1, bytes=written, rows=math.prod(out) // max(block, 1))
    if node.op_type == "Conv":
        kernel = array_of(node.inputs[1])
        assert kernel is not None
        return Cost(1, bytes=written, products=math.prod(out) * kernel[0].size)
    if node.op_type == "Concat":
        runs = math.prod(out[: node.attributes["axis"].as_int()]) * len(node.inputs)
    elif node.op_type in ("Slice", "Pad"):
        runs = _runs(node, out)
    else:
        runs = 0
    return Cost(1, bytes=written, runs=runs)


def _runs(node: ir.Node, out: Sequence[int]) -> int:
    """Up to the last axis that is cut or padded, elements lie apart; behind it, together."""
    whole = _sizes(node.inputs[0])
    last = max((axis for axis, pair in enumerate(zip(whole, out, strict=True)) if pair[0] != pair[1]), default=0)
    runs = math.prod(out[:last])
    if node.op_type == "Pad" and not fills_with_constant(node):
        runs += (math.prod(out) - math.prod(whole)) // max(math.prod(out[last + 1 :]), 1)
    return runs


def _sizes(value: ir.Value | None) -> list[int]:
    assert value is not None
    assert value.shape is not None
    return [size if isinstance(size, int) else 1 for size in value.shape]
