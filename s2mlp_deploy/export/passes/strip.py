"""Removes what tells of the machine and the code that exported: stack traces, module paths, file names."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import ClearMetadataAndDocStringPass


class StripProvenance(ir.passes.InPlacePass):
    """Clears metadata and documentation everywhere, and says who wrote the model.

    onnx-ir's own pass clears nodes and the graphs that hold them, in subgraphs and functions too; values, the model
    and graphs without nodes are left to this one.

    Postcondition: no metadata and no documentation in the model, its graphs, functions, nodes and values.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Always reports a change: the producer is written anew."""
        ClearMetadataAndDocStringPass()(model)
        model.metadata_props.clear()
        model.doc_string = None
        model.producer_name = "s2mlp-deploy"
        model.graph.name = "s2mlp_deploy"
        owners: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
        for graph in [*owners, *(inner for owner in owners for inner in owner.subgraphs())]:
            graph.metadata_props.clear()
            graph.doc_string = None
            constants = graph.initializers.values() if isinstance(graph, ir.Graph) else ()
            for value in (*graph.inputs, *constants, *(output for node in graph for output in node.outputs)):
                value.metadata_props.clear()
                value.doc_string = None
        return ir.passes.PassResult(model, modified=True)
