"""The canonical graph becomes a standard one: every ``s2mlp::Shift`` is written in a form."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from s2mlp_deploy.artifact import ShiftRecord
from s2mlp_deploy.errors import ExportError
from s2mlp_deploy.export.forms import ShiftForm, choose
from s2mlp_deploy.export.graph_builder import GraphBuilder
from s2mlp_deploy.export.shift_node import DOMAIN, example_of, origin_of, spec_of


def lower_shifts(
    canonical: ir.Model, form: ShiftForm | None = None, *, others: bool = False
) -> tuple[ir.Model, tuple[ShiftRecord, ...]]:
    """Writes every shift, in a copy of the canonical model; weights are shared, not copied.

    The origin of each shift leaves the graph here and is returned with it.

    Args:
        canonical: With ``Shift`` nodes.
        form: How they are written; None is ``auto``, for each shift the form that costs least.
        others: Whether operators of other domains may stay: those of an ONNX file that had them.

    Postconditions: no node outside the standard domain, but for ``others``; each shift's nodes are named after it; the
    constants the shifts need are initializers.

    Raises:
        ExportError: A shift cannot take this form, or a foreign operator is left.
    """
    model = canonical.clone()
    graph = model.graph
    opset = model.opset_imports[""]
    constants: dict[tuple[Any, ...], ir.Value] = {}
    lowered = []
    for node in list(graph.all_nodes()):
        if node.domain != DOMAIN:
            continue
        spec = spec_of(node)
        source, target = node.inputs[0], node.outputs[0]
        owner = node.graph  # The graph of a branch, for a shift inside torch.cond.
        assert source is not None
        assert owner is not None
        build = GraphBuilder(str(node.name), opset, constants)
        dtype = source.dtype or ir.DataType.FLOAT
        origin = origin_of(node)
        chosen = form or choose(spec, example_of(node), dtype, origin.idiom, opset)
        result = chosen.lower(build, source, spec) if not spec.is_identity else source
        if result is source and target.is_graph_output():
            result = build.op("Identity", [source], shape=tuple(source.shape or ()))
        if result is source:
            # Nothing moves (an axis of one element turned around, for example): the tensor keeps its own name.
            target.replace_all_uses_with(source)
            owner.remove(node, safe=True)
        else:
            name, is_output = target.name, target.is_graph_output()
            ir.convenience.replace_nodes_and_values(owner, node, [node], build.nodes, [target], [result])
            if is_output:
                result.name = name
        lowered.append(ShiftRecord(spec, origin, chosen.name, len(build.nodes), build.scope))
    for value in constants.values():
        graph.register_initializer(value)
    model.opset_imports.pop(DOMAIN, None)
    foreign = sorted({node.domain for node in graph.all_nodes() if node.domain not in ("", "ai.onnx")})
    if foreign and not others:
        raise ExportError(f"operators of the domains {', '.join(foreign)} are left in the graph")
    return model, tuple(lowered)
