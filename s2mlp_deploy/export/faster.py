"""The graph passes that make a graph faster, as `export` runs them on every canonical graph."""

from __future__ import annotations

import onnx_ir as ir

from s2mlp_deploy.export.passes.gemm_with_bias import GemmWithBias
from s2mlp_deploy.export.passes.split_weights import SplitWeights
from s2mlp_deploy.export.passes.stay_in_rows import StayInRows
from s2mlp_deploy.export.passes.token_sums import TokenSums
from s2mlp_deploy.graph.editing import drop_unused_initializers

FASTER: tuple[type[ir.passes.InPlacePass], ...] = (
    TokenSums,
    SplitWeights,
    GemmWithBias,
    StayInRows,
)
"""In this order, each kept for what it gains: ``benchmarks/passes.md``."""


def make_faster(canonical: ir.Model) -> bool:
    """Runs them all on a graph whose shifts have no form yet.

    Args:
        canonical: In float32; changed in place.

    Returns:
        Whether there was anything to do.
    """
    modified = False
    for fast in FASTER:
        modified |= bool(fast()(canonical).modified)
    drop_unused_initializers(canonical.graph)
    return modified
