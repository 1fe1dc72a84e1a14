"""Names nodes and values after the modules that they come from."""

from __future__ import annotations

import onnx_ir as ir

from s2mlp_deploy.artifact import NETWORK, module_of
from s2mlp_deploy.graph.modules import noted_scope, scopes_of


class NameAfterModules(ir.passes.InPlacePass):
    """Names nodes, their outputs and folded weights after module paths: ``stages.0.blocks.1.mlp.fc1/MatMul``.

    Precondition: nodes carry the scopes that torch's exporter notes in their metadata, or have names that are paths, as
    its older exporter writes them.
    Postcondition: names of nodes and values are unique, in subgraphs too, and depend on nothing but the graph.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Always reports a change."""
        _name(model.graph)
        return ir.passes.PassResult(model, modified=True)


def _name(graph: ir.Graph) -> None:
    fixed = {*graph.inputs, *graph.outputs}
    taken: dict[str, int] = {}
    taken_names = {value.name for value in (*fixed, *graph.initializers.values())}

    def unique(base: str) -> str:
        while True:
            count = taken.get(base, 0)
            taken[base] = count + 1
            name = base if count == 0 else f"{base}_{count}"
            if name not in taken_names:
                taken_names.add(name)
                return name

    nodes = [*graph, *(node for branch in graph.subgraphs() for node in branch)]
    scopes = {node: module_path(node) for node in nodes}
    for node in nodes:
        # What the root's own forward made is the root's, whatever is beside it.
        scope = scopes[node] or ("" if noted_scope(node) == "" else _neighbours_scope(node, scopes))
        node.name = unique(f"{scope}/{node.op_type}" if scope else f"/{node.op_type}")
        for index, output in enumerate(node.outputs):
            if output not in fixed:
                output.name = f"{node.name}.out{index}" if len(node.outputs) > 1 else f"{node.name}.out"
    for name, value in list(graph.initializers.items()):
        if name.startswith("val_"):
            # Folded by the exporter: a transposed weight, or the constant axes and shapes of one node.
            user = next(iter(value.uses())).node
            rank = len(value.shape) if value.shape is not None else 0
            stem = user.name or user.op_type
            scope = stem.split("/")[0]
            base = f"{scope}.weight_t" if user.op_type == "MatMul" and rank == 2 and scope else f"{stem}.constant"
            value.name = unique(base)


def module_path(node: ir.Node) -> str:
    """The module that a node says it comes from, in the ways of torch's exporters; empty where it says nothing."""
    name = str(node.name or "")
    path = scopes_of(node) or (module_of(name) if name.startswith("/") else "")
    return "" if path == NETWORK else path


def _neighbours_scope(node: ir.Node, scopes: dict[ir.Node, str]) -> str:
    """For a node that the optimiser made: the innermost module that its neighbours share."""
    producers = [value.producer() for value in node.inputs if value is not None]
    consumers = [use.node for value in node.outputs for use in value.uses()]
    paths = [scopes[near].split(".") for near in (*producers, *consumers) if near is not None and scopes.get(near)]
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)
