"""A float16 graph as a float32 one that rounds where the other does: float16 arithmetic on any processor.

ONNX Runtime's CPU provider computes float16 graphs in float32 and keeps values that float16 loses, an overflow among
them. Here every float16 result is rounded by a Cast to float16 and back, which ONNX Runtime keeps because it loses
bits. A GEMM adds up in float32 and is rounded once, as tensor cores do it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.graph.editing import Editor
from s2mlp_deploy.graph.operators import array_of, is_movement


def round_like_half(model: ir.Model) -> ir.Model:
    """A float32 graph whose results are those of a float16 graph, rounded one by one.

    Args:
        model: Of float16, with or without float32 islands and Q/DQ. Inputs and outputs may have either type.

    Returns:
        A copy without any float16 arithmetic; inputs and outputs are float32.
    """
    model = model.clone()
    graph = model.graph
    editor = Editor(graph)
    float32 = ir.TensorType(ir.DataType.FLOAT)
    for value in graph.initializers.values():
        array = array_of(value)
        if value.dtype == ir.DataType.FLOAT16 and array is not None:
            value.const_value = ir.tensor(array.astype(np.float32), name=value.name)
            value.type = float32
    half_inputs = [value for value in graph.inputs if value.dtype == ir.DataType.FLOAT16]
    for node in list(graph):
        for name, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == ir.DataType.FLOAT16:
                array = attribute.as_tensor().numpy().astype(np.float32)
                node.attributes[name] = ir.AttrTensor(name, ir.tensor(array))
        for value in list(node.outputs):
            if value.dtype != ir.DataType.FLOAT16:
                continue
            value.type = float32
            # What only moves rounded numbers need not round them again.
            if not is_movement(node):
                _round(editor, node, value)
    for value in half_inputs:
        value.type = float32
        _round(editor, None, value)
    return model


def _round(editor: Editor, node: ir.Node | None, value: ir.Value) -> None:
    """Puts a rounding behind a value, for all who read it."""
    readers = list(value.uses())
    if node is not None and node.op_type == "Cast":  # It makes float16 already; only the way back is missing.
        value.type = ir.TensorType(ir.DataType.FLOAT16)
        half = value
    else:
        half = editor.cast(value, ir.DataType.FLOAT16, name=f"{value.name}/round")
    back = editor.cast(half, ir.DataType.FLOAT, name=f"{value.name}/rounded")
    for reader, index in readers:
        reader.replace_input_with(index, back)
    for index, output in enumerate(editor.graph.outputs):
        if output is value and node is not None:
            name = value.name
            value.name = editor.free_name(f"{name}/exact")
            editor.graph.outputs[index] = back
            back.name = name
