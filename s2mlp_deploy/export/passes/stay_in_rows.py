"""Keeps what stands between two Gemms in rows, so that nothing is reshaped to and fro."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.graph.editing import Editor, move, remove
from s2mlp_deploy.graph.operators import array_of
from s2mlp_deploy.graph.rows import rows_of

_OF_ONE = frozenset(
    {"Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu", "Sigmoid", "Softplus", "Tanh"}
)
_OF_TWO = frozenset({"Add", "Mul", "Sub"})


class StayInRows(ir.passes.InPlacePass):
    """Moves Reshapes from rows to more axes behind element by element operators, residual sums and LayerNormalization.

    Sums and products with one number per channel, or one for all, are among them: ResMLP's Affine, LayerScale.

    A Reshape copies nothing, but each is a node to be run: s2mlpv2_small_7 has 144 around its Gemms, of which 18 stay.

    Precondition: :class:`~s2mlp_deploy.export.passes.gemm_with_bias.GemmWithBias` has run.
    Postcondition: no Reshape to rows reads a Reshape from rows of as many columns. No number changes.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Reports whether something moved."""
        editor, modified = Editor(model.graph), False
        seen: dict[ir.Value, ir.Value] = {}
        for node in list(model.graph):
            modified |= _moved(editor, node, seen) or _skipped(node)
        gone = [node for node in reversed(list(model.graph)) if node.op_type == "Reshape"]
        for node in gone:
            value = node.outputs[0]
            if not value.uses() and not value.is_graph_output():
                remove(model.graph, [node])
        return ir.passes.PassResult(model, modified=modified)


def _rows_of(value: ir.Value | None) -> ir.Value | None:
    """The rows that a value of more axes is another view of."""
    node = value.producer() if value is not None else None
    if value is None or node is None or node.op_type != "Reshape" or value.shape is None or len(value.shape) < 3:
        return None
    rows = node.inputs[0]
    if rows is None or rows.shape is None or len(rows.shape) != 2 or not isinstance(rows.shape[1], int):
        return None
    return rows if rows.shape[1] == value.shape[-1] else None


def _moved(editor: Editor, node: ir.Node, seen: dict[ir.Value, ir.Value]) -> bool:
    result = node.outputs[0]
    views = _views(node)
    if not views or not any(_rows_of(view) is not None for view in views) or result.shape is None:
        return False
    shape = result.shape
    if any(isinstance(size, ir.SymbolicDim) and size.value is None for size in shape):
        return False  # Two sizes that nothing is known of may be different ones.
    if any(view.shape != shape for view in views) or result.dtype != views[0].dtype:
        return False
    back = next(view.producer() for view in views if _rows_of(view) is not None)
    assert back is not None
    columns = shape[-1]
    scope = str(node.name).rpartition("/")[0]
    inputs = list(node.inputs)
    for index, view in enumerate(inputs):
        if view is None or view not in views:
            continue
        rows = _rows_of(view) or seen.get(view)
        if rows is None:
            target = editor.constant(np.array([-1, columns], np.int64), f"{scope}.rows")
            rows = seen[view] = editor.node(
                "Reshape",
                [view, target],
                name=f"{scope}/Reshape",
                dtype=view.dtype,
                shape=ir.Shape([rows_of(shape), columns]),
                before=node,
            )
        inputs[index] = rows
    for index, value in enumerate(inputs):
        node.replace_input_with(index, value)
    # The node keeps its result and its name; what reads it reads a view of it.
    result.shape = ir.Shape([rows_of(shape), columns])
    view = editor.node(
        "Reshape", [result, back.inputs[1]], name=f"{scope}/Reshape_back", dtype=result.dtype, shape=shape, after=node
    )
    reshape = view.producer()
    assert reshape is not None
    if result.is_graph_output():
        move(result, view)
        reshape.replace_input_with(0, result)
        result.name = editor.free_name(f"{node.name}.rows")
    else:
        for user, index in list(result.uses()):
            if user is not reshape:
                user.replace_input_with(index, view)
    return True


def _views(node: ir.Node) -> list[ir.Value]:
    """The inputs of a node that may be in rows: all that are no constants; none where the node is of another kind."""
    values = [value for value in node.inputs if value is not None]
    if node.op_type in _OF_ONE:
        return values[:1]
    if node.op_type in _OF_TWO and len(values) == 2:
        computed = [value for value in values if array_of(value) is None]
        constants = [array for value in values if (array := array_of(value)) is not None]
        return computed if all(array.ndim < 2 for array in constants) else []
    if node.op_type == "LayerNormalization" and len(node.outputs) == 1 and values[0].shape is not None:
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
        if axis in (-1, len(values[0].shape) - 1):
            node.attributes["axis"] = ir.AttrInt64("axis", -1)
            return values[:1]
    return []


def _skipped(node: ir.Node) -> bool:
    """Takes a Reshape to rows of a Reshape from the same rows out of the way."""
    if node.op_type != "Reshape" or node.outputs[0].is_graph_output():
        return False
    rows, target, shape = _rows_of(node.inputs[0]), array_of(node.inputs[1]), node.outputs[0].shape
    if rows is None or rows.shape is None or target is None or shape is None or list(target) != [-1, rows.shape[1]]:
        return False
    node.outputs[0].replace_all_uses_with(rows)
    return True
