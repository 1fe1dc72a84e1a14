"""Computes equal shifts of one tensor once."""

from __future__ import annotations

import logging

import onnx_ir as ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass

from s2mlp_deploy.export.shift_node import DOMAIN, origin_of, spec_of
from s2mlp_deploy.shift.spec import ShiftSpec

LOG = logging.getLogger(__name__)


class MergeEqualShifts(ir.passes.InPlacePass):
    """Leaves the first of equal shifts of one tensor, with its origin.

    The exporter eliminates common subexpressions too, but takes shifts that say other origins for different ones. This
    pass gives the later ones the origin of the first and lets onnx-ir's pass do the rest, in the main graph as there.

    Postcondition: no two ``Shift`` nodes of the main graph have the same input and specification.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Merges until nothing is left to merge: merged shifts may make later ones equal."""
        modified = False
        while _share_origins(model.graph) and CommonSubexpressionEliminationPass()(model).modified:
            modified = True
        return ir.passes.PassResult(model, modified)


def _share_origins(graph: ir.Graph) -> bool:
    first: dict[tuple[ir.Value | None, ShiftSpec], ir.Node] = {}
    changed = False
    for node in graph:
        if node.domain != DOMAIN:
            continue
        kept = first.setdefault((node.inputs[0], spec_of(node)), node)
        if kept is not node:
            LOG.info("the shift at %s equals the one at %s: computed once", origin_of(node).line, origin_of(kept).line)
            # Onto both: a text of the user's may say the same in other words, and would stay different.
            for equal in (kept, node):
                equal.attributes["origin"] = ir.AttrString("origin", origin_of(kept).to_text())
            changed = True
    return changed
