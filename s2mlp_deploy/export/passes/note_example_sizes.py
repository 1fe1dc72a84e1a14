"""Keeps with every shift how large its tensor is in the example."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from s2mlp_deploy.export.shift_node import DOMAIN, note_example


class NoteExampleSizes(ir.passes.InPlacePass):
    """Notes the example's sizes on ``Shift`` nodes, so that forms can be compared where sizes are free.

    Goes before torch's symbols are renamed.

    Args:
        sizes: Of the example, by torch's symbols.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self._sizes = sizes

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Changes no node, only what is noted with it."""
        for node in model.graph.all_nodes():
            if node.domain == DOMAIN:
                note_example(node, self._sizes)
        return ir.passes.PassResult(model, modified=False)
