"""Names dynamic sizes after the axes that they are the size of."""

from __future__ import annotations

import re

import onnx_ir as ir

from s2mlp_deploy.graph.axes import axis_name
from s2mlp_deploy.text import whole_number


class NameDynamicAxes(ir.passes.InPlacePass):
    """Gives torch's symbols (``s77``) the names of the axes of the inputs that they are the size of.

    Postcondition: no symbol of torch that is the size of an input is left in a shape, and no number as a symbol.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Always reports a change."""
        _rename(model)
        return ir.passes.PassResult(model, modified=True)


def _rename(model: ir.Model) -> None:
    pattern = re.compile(r"[A-Za-z_]\w*")
    names: dict[str, str] = {}
    for value in model.graph.inputs:
        shape = value.shape or ()
        for axis, dim in enumerate(shape):
            if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
                for symbol in pattern.findall(dim.value):
                    usual = axis_name(axis, len(shape))
                    # A second size on the same axis of another input is another name.
                    unique = usual if usual not in names.values() else f"{usual}_{len(names)}"
                    names.setdefault(symbol, unique)

    def rename(value: ir.Value) -> None:
        shape = value.shape
        if shape is None or shape.frozen:
            return
        for index, dim in enumerate(shape):
            if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
                named = pattern.sub(lambda m: names.get(m[0], m[0]), dim.value)
                known = whole_number(named)
                shape[index] = ir.SymbolicDim(named) if known is None else known

    seen: set[int] = set()
    values = [*model.graph.inputs, *(output for node in model.graph.all_nodes() for output in node.outputs)]
    for value in values:
        if id(value.shape) not in seen:
            seen.add(id(value.shape))
            rename(value)
