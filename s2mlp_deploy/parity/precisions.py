"""What a file computes in."""

from __future__ import annotations

import onnx_ir as ir

_QUANTIZED = frozenset(
    {"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul", "QuantizeLinear"}
)
"""Activations are integers there; where weights alone are stored as such, floats are computed with."""


def precision_of(graph: ir.Graph | None, stated: object) -> str:
    """What a file computes in: what it says, where its types bear that out, else what they say.

    Args:
        graph: Of an ONNX file; None for an engine, whose sidecar alone speaks of it.
        stated: What its own description says: ``int8-trt``, for example.
    """
    told = stated if isinstance(stated, str) else None
    if graph is None:
        return told or "fp32"
    # A file need not state the types of what it computes: casts and constants tell them.
    types = {value.dtype for value in graph.initializers.values()}
    for node in graph.all_nodes():
        types |= {value.dtype for value in node.outputs}
        tensor, target = node.attributes.get("value"), node.attributes.get("to")
        types |= {tensor.as_tensor().dtype} if tensor is not None and node.op_type == "Constant" else set()
        types |= {ir.DataType(target.as_int())} if target is not None else set()
    quantized = any(node.op_type in _QUANTIZED for node in graph.all_nodes())
    found = "fp32"
    if ir.DataType.FLOAT8E4M3FN in types:
        found = "fp8"
    elif quantized and types & {ir.DataType.INT8, ir.DataType.UINT8}:
        found = "int8"
    elif ir.DataType.FLOAT16 in types:
        found = "fp16"
    return told if told is not None and told.partition("-")[0] == found else found
