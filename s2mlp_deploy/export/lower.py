"""The canonical graph becomes a standard one: every ``s2mlp::Shift`` is written in a form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from s2mlp_deploy.errors import ExportError
from s2mlp_deploy.export.canonical import DOMAIN, ORIGIN
from s2mlp_deploy.export.forms import ShiftForm
from s2mlp_deploy.export.forms.base import GraphBuilder
from s2mlp_deploy.shift.spec import ShiftSpec


@dataclass(frozen=True)
class LoweredShift:
    """One shift of the graph and the form it got.

    Attributes:
        where: The module it comes from.
        spec: What it moves.
        form: The name of its form.
        nodes: How many ONNX nodes it became.
        origin: Name of the node of the captured program.
    """

    where: str
    spec: ShiftSpec
    form: str
    nodes: int
    origin: str


def lower_shifts(canonical: ir.Model, form: ShiftForm) -> tuple[ir.Model, tuple[LoweredShift, ...]]:
    """Writes every shift in one form, in a copy of the canonical model; weights are shared, not copied.

    Postconditions: no node outside the standard domain; each shift's nodes are named after it; the constants the
    shifts need are initializers.

    Raises:
        ExportError: A shift cannot take this form, or a foreign operator is left.
    """
    # A copy of the graph does not keep what its nodes' meta holds.
    origins = {node.name: node.meta.get(ORIGIN, "") for node in canonical.graph if node.domain == DOMAIN}
    model = canonical.clone()
    graph = model.graph
    opset = model.opset_imports[""]
    constants: dict[tuple[Any, ...], ir.Value] = {}
    lowered = []
    for node in list(graph):
        if node.domain != DOMAIN:
            continue
        spec = spec_of(node)
        source, target = node.inputs[0], node.outputs[0]
        assert source is not None
        build = GraphBuilder(str(node.name), opset, constants)
        result = form.lower(build, source, spec) if not spec.is_identity else source
        if result is source and target.is_graph_output():
            result = build.op("Identity", [source], shape=tuple(source.shape or ()))
        if result is source:
            # Nothing moves (an axis of one cell turned around, for example): the tensor keeps its own name.
            target.replace_all_uses_with(source)
            graph.remove(node, safe=True)
        else:
            name, is_output = target.name, target.is_graph_output()
            ir.convenience.replace_nodes_and_values(graph, node, [node], build.nodes, [target], [result])
            if is_output:
                result.name = name
        where = str(node.name).rsplit("/", 1)[0]
        lowered.append(LoweredShift(where, spec, form.name, len(build.nodes), str(origins.get(node.name, ""))))
    for value in constants.values():
        graph.register_initializer(value)
    model.opset_imports.pop(DOMAIN, None)
    foreign = sorted({node.domain for node in graph if node.domain not in ("", "ai.onnx")})
    if foreign:
        raise ExportError(f"operators of the domains {', '.join(foreign)} are left in the graph")
    return model, tuple(lowered)


def spec_of(node: ir.Node) -> ShiftSpec:
    """The specification a canonical ``Shift`` node carries."""
    get = node.attributes
    return ShiftSpec.from_op_args(
        get["channels"].as_ints(),
        get["offsets"].as_ints(),
        get["axes"].as_ints(),
        get["channel_axis"].as_int(),
        get["border"].as_string(),
    )
