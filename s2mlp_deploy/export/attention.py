"""Scaled dot-product attention, written out before torch's exporter sees it.

The exporter's own translation takes four axes only, scales both operands, transposes through eleven nodes of shapes
where a size is free, and puts float32's lowest number where a mask is False: a row that may attend to nothing is then
the mean of all values, where torch says 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.export import ExportedProgram

from s2mlp_deploy.capture.checks import all_nodes
from s2mlp_deploy.export.rewrite import without_strides
from s2mlp_deploy.torch_internals import quiet_exporter

_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default


def write_out_attention(program: ExportedProgram) -> ExportedProgram:
    """The program with every scaled dot-product attention as products, a mask and a softmax; itself without one."""
    if not any(node.target is _ATTENTION for node in all_nodes(program)):
        return program
    without_strides(program)
    with torch.no_grad(), quiet_exporter():
        written: ExportedProgram = program.run_decompositions({_ATTENTION: attention})
    return written


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,  # noqa: ARG001  Of the operator.
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """What ``torch.nn.functional.scaled_dot_product_attention`` computes without dropout.

    Args:
        query: [..., targets, channels].
        key: [..., sources, channels].
        value: [..., sources, outputs].
        attn_mask: Broadcasts to [..., targets, sources]: False, or -inf, where a target does not see a source. A target
            that sees none gets 0.
        dropout_p: Refused before, where it is not 0.
        is_causal: Whether a target sees the sources up to its own place only.
        scale: Of the products; None: the root of the channels' reciprocal.
        enable_gqa: Whether key and value have fewer heads (the third axis from the end), each for several of the query.

    Returns:
        [..., targets, outputs].
    """
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
    nothing: Tensor | None = None
    if is_causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        scores = scores.masked_fill(~seen, float("-inf"))
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        nothing = ~attn_mask.any(-1, keepdim=True)
        # Rows that are thrown away later see all, so that nothing is NaN in between.
        scores = scores.masked_fill(~(attn_mask | nothing), float("-inf"))
    elif attn_mask is not None:
        nothing = attn_mask.amax(-1, keepdim=True) == float("-inf")
        scores = scores + attn_mask.masked_fill(nothing, 0.0)
    result = torch.softmax(scores, -1) @ value
    return result if nothing is None else result.masked_fill(nothing, 0.0)
