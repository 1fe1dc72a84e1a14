"""Writes sums over tokens as products with a row of ones."""

from __future__ import annotations

import onnx_ir as ir

from s2mlp_deploy.graph.sums import sums_as_products


class TokenSums(ir.passes.InPlacePass):
    """Makes split attention's sum over tokens, and a network's mean before its head, GEMMs of one row.

    What an Add only adds up for such a sum is summed over tokens first and then added as vectors.

    Preconditions: float32; channels last; the sizes of the inner axes and of the channels known.
    Postcondition: no such sum is left, others are as they were. Factors are 1 (or 1 / T), so that only the order of
    additions differs. Graphs of float16 take the products back
    (:func:`~s2mlp_deploy.graph.sums.products_as_sums`).
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Reports whether there was such a sum."""
        return ir.passes.PassResult(model, modified=sums_as_products(model.graph))
