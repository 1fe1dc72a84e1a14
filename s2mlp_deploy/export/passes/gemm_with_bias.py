"""Writes a MatMul and the bias behind it as one Gemm over rows."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.graph.editing import Editor, move, remove
from s2mlp_deploy.graph.operators import array_of, only_reader
from s2mlp_deploy.graph.rows import rows_of


class GemmWithBias(ir.passes.InPlacePass):
    """Makes ``Add(MatMul(x, W), b)`` of three and more axes a Gemm of two, between two Reshapes that copy nothing.

    ONNX Runtime does that by itself for two axes only; with more, it writes the product and goes over it again for the
    bias.

    Preconditions: float32; constant weights of two axes and a constant bias of one axis; nothing but the Add
    reads the product; at most one size of the result is free.
    Postcondition: no such pair is left. The bias is the first addend of each sum, not the last: rounding differs.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Reports whether there was such a pair."""
        editor = Editor(model.graph)
        rows: dict[ir.Value, ir.Value] = {}
        found = [node for node in list(model.graph) if node.op_type == "MatMul" and _rewrite(editor, node, rows)]
        return ir.passes.PassResult(model, modified=bool(found))


def _rewrite(editor: Editor, node: ir.Node, rows: dict[ir.Value, ir.Value]) -> bool:
    source, weight, product = node.inputs[0], node.inputs[1], node.outputs[0]
    weights, add = array_of(weight), only_reader(product)
    if source is None or weights is None or weights.ndim != 2 or weights.dtype != np.float32 or add is None:
        return False
    other = next((operand for operand in add.inputs if operand is not product), None)
    result = add.outputs[0]
    bias = array_of(other)
    if add.op_type != "Add" or other is None or bias is None or bias.shape != (weights.shape[1],):
        return False
    shape = result.shape
    if shape is None or len(shape) < 3 or product.shape is None or len(product.shape) != len(shape):
        return False
    sizes = [size if isinstance(size, int) else -1 for size in shape]
    if sizes.count(-1) > 1:
        return False
    inputs, outputs = weights.shape
    scope = str(node.name).rpartition("/")[0]
    if source not in rows:
        rows[source] = editor.node(
            "Reshape",
            [source, editor.constant(np.array([-1, inputs], np.int64), f"{scope}.rows")],
            name=f"{scope}/Reshape",
            dtype=source.dtype,
            shape=ir.Shape([rows_of(shape), inputs]),
            before=node,
        )
    gemm = editor.node(
        "Gemm",
        [rows[source], weight, other],
        name=f"{scope}/Gemm",
        dtype=result.dtype,
        shape=ir.Shape([rows_of(shape), outputs]),
        before=node,
    )
    back = editor.node(
        "Reshape",
        [gemm, editor.constant(np.array(sizes, np.int64), f"{scope}.shape")],
        name=f"{scope}/Reshape_back",
        dtype=result.dtype,
        shape=shape,
        before=node,
    )
    move(result, back)
    remove(editor.graph, [add, node])
    return True
