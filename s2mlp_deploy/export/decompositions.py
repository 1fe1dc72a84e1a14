"""Operators that torch's exporter translates wrongly or not at all, written as others before it sees them."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from s2mlp_deploy.capture.checks import all_nodes
from s2mlp_deploy.export.rewrite import without_strides
from s2mlp_deploy.torch_internals import tracing

_ATTENTION, _ROLL = torch.ops.aten.scaled_dot_product_attention.default, torch.ops.aten.roll.default
_SLICES, _ROWS = torch.ops.aten.slice_scatter.default, torch.ops.aten.select_scatter.default
_AS_IT_IS = cast(Tensor, NotImplemented)
_CENTRE, _UNCENTRE = torch.ops.aten.fft_fftshift.default, torch.ops.aten.fft_ifftshift.default
_SPLITS = (torch.ops.aten.split.Tensor, torch.ops.aten.unsafe_split.Tensor)
_LOG_SIGMOID = torch.ops.aten.log_sigmoid.default
_LOG_ADD_EXP, _LOG_ADD_EXP2 = torch.ops.aten.logaddexp.default, torch.ops.aten.logaddexp2.default
_ALWAYS = (_ATTENTION, _CENTRE, _UNCENTRE, _SLICES, _ROWS, _LOG_SIGMOID, _LOG_ADD_EXP, _LOG_ADD_EXP2)


def decomposed(program: ExportedProgram) -> ExportedProgram:
    """The program with those operators as others; itself without one."""
    _slice_free_splits(program)
    if not any(node.target in _ALWAYS or _is_free_roll(node) for node in all_nodes(program)):
        return program
    without_strides(program)
    with torch.no_grad(), tracing():
        written: ExportedProgram = program.run_decompositions(
            {
                _ATTENTION: attention,
                _ROLL: roll,
                _CENTRE: centre,
                _UNCENTRE: uncentre,
                _SLICES: slice_scatter,
                _ROWS: select_scatter,
                _LOG_SIGMOID: log_sigmoid,
                _LOG_ADD_EXP: log_add_exp,
                _LOG_ADD_EXP2: log_add_exp2,
            }
        )
    return written


def _slice_free_splits(program: ExportedProgram) -> None:
    """Pieces of a length that depends on sizes become slices: the exporter makes sequences, which it fails to fold."""
    for node in list(all_nodes(program)):
        if node.target not in _SPLITS or isinstance(node.args[1], int):
            continue
        source, length = node.args[:2]
        axis = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
        for piece in list(node.users):
            with node.graph.inserting_before(piece):
                start, end = (_times(piece, length, cast(int, piece.args[1]) + more) for more in (0, 1))
                cut = node.graph.call_function(torch.ops.aten.slice.Tensor, (source, axis, start, end))
            cut.meta = dict(piece.meta)
            piece.replace_all_uses_with(cut)
            node.graph.erase_node(piece)
        node.graph.erase_node(node)


def _times(piece: Node, size: Any, number: int) -> Any:
    """A multiple of a size, as a node that speaks of the same line as the piece."""
    if not number:
        return 0
    made = piece.graph.call_function(operator.mul, (size, number))
    made.meta = {**piece.meta, "val": size.meta["val"] * number}
    return made


def _is_free_roll(node: Node) -> bool:
    return node.target is _ROLL and not _are_numbers(node.args[1])


def _are_numbers(steps: Any) -> bool:
    return all(isinstance(step, int) for step in steps)


def roll(x: Tensor, shifts: Sequence[int | torch.SymInt], dims: Sequence[int] = ()) -> Tensor:
    """``torch.roll`` by steps that depend on sizes, which the exporter takes for attributes, as index tables.

    Args:
        x: Any shape.
        shifts: Steps, one an axis.
        dims: The axes; none: ``x`` is rolled as if it had one axis.
    """
    if _are_numbers(shifts):
        return _AS_IT_IS  # The exporter's slices are faster.
    if not dims:
        return roll(x.flatten(), shifts, (0,)).view_as(x)
    for step, axis in zip(shifts, dims, strict=True):
        # As tensors: the exporter takes whole numbers in arithmetic for constants.
        length, moved = _tensor(x.shape[axis]), _tensor(step)
        x = x.index_select(axis, (torch.arange(x.shape[axis]) - moved) % length)
    return x


def _tensor(number: Any) -> Tensor:
    return torch.scalar_tensor(number, dtype=torch.int64)


def slice_scatter(x: Tensor, source: Tensor, dim: int = 0, start: Any = None, end: Any = None, step: Any = 1) -> Tensor:
    """What is left of ``x[start:end:step] = source`` where no shift was found: pieces side by side, or a table.

    The exporter writes it as ScatterND between transposes, the slowest operators of such graphs.
    """
    length: Any = x.shape[dim]
    if not _are_numbers([length, step, start or 0, end or 0]):
        return _AS_IT_IS
    places = range(*slice(start, end, step).indices(length))
    if not places:
        return x.clone()
    if len(places) == length:
        return source.clone()
    if step == 1:
        pieces = [x.narrow(dim, 0, places[0]), source, x.narrow(dim, places[-1] + 1, length - places[-1] - 1)]
        return torch.cat([piece for piece in pieces if piece.shape[dim] != 0], dim)
    own = torch.arange(length)
    away = own - places[0]
    written = (away >= 0) & (own <= places[-1]) & (away % step == 0)
    # Folded to a constant.
    table = torch.where(written, length + away // step, own)
    return torch.cat([x, source], dim).index_select(dim, table)


def select_scatter(x: Tensor, source: Tensor, dim: int, index: Any) -> Tensor:
    """The same for ``x[index] = source``."""
    if not _are_numbers([x.shape[dim], index]):
        return _AS_IT_IS
    place = index % x.shape[dim]
    return slice_scatter(x, source.unsqueeze(dim), dim, place, place + 1)


def centre(x: Tensor, dim: Sequence[int] | None = None) -> Tensor:
    """``torch.fft.fftshift``: a roll by half of each axis, which the exporter does not know for free sizes."""
    axes = tuple(range(x.dim())) if dim is None else tuple(dim)
    return torch.roll(x, [x.shape[axis] // 2 for axis in axes], axes)


def uncentre(x: Tensor, dim: Sequence[int] | None = None) -> Tensor:
    """``torch.fft.ifftshift``."""
    axes = tuple(range(x.dim())) if dim is None else tuple(dim)
    return torch.roll(x, [(x.shape[axis] + 1) // 2 for axis in axes], axes)


def log_sigmoid(x: Tensor) -> Tensor:
    """``log(1 / (1 + exp(-x)))``; the exporter writes that, which is -inf below -104, where torch says ``x``."""
    return -F.softplus(-x)


def log_add_exp(x: Tensor, y: Tensor) -> Tensor:
    """``log(exp(x) + exp(y))``; the exporter writes that, which is inf above 88, where torch's is the larger one."""
    # Two infinities are equal, and their difference is none.
    apart = torch.where(x == y, torch.zeros_like(x), x - y)
    return torch.maximum(x, y) + torch.log1p(torch.exp(-apart.abs()))


def log_add_exp2(x: Tensor, y: Tensor) -> Tensor:
    """The same of powers of two."""
    return log_add_exp(x * math.log(2), y * math.log(2)) / math.log(2)


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

    The exporter's own translation takes four axes only, scales both operands, transposes through eleven nodes of shapes
    where a size is free, and puts float32's lowest number where a mask is False: a row that may attend to nothing is
    then the mean of all values, where torch says 0.

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
