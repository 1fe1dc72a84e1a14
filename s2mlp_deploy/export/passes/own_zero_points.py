"""Gives every quantized tensor a zero point of its own."""

from __future__ import annotations

import onnx_ir as ir

from s2mlp_deploy.graph.editing import Editor

_EIGHT_BITS = frozenset({ir.DataType.INT8, ir.DataType.UINT8})


class OwnZeroPoints(ir.passes.InPlacePass):
    """Undoes for zero points that equal constants are there once.

    ONNX Runtime 1.32 cannot load a graph whose int8 weights share one where it turns them into uint8, as engines ask
    it to on x86 processors without VNNI: "Attempt to replace the existing tensor".

    Postcondition: no scalar or vector of 8 bits is read twice.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Reports whether one was shared."""
        edit, modified = Editor(model.graph), False
        for value in list(model.graph.initializers.values()):
            tensor = value.const_value
            if value.dtype not in _EIGHT_BITS or tensor is None or len(tensor.shape) > 1:
                continue
            for node, index in list(value.uses())[1:]:
                copy = edit.constant(ir.Tensor(tensor.numpy(), dtype=tensor.dtype), str(value.name))
                node.replace_input_with(index, copy)
                modified = True
        return ir.passes.PassResult(model, modified)
