"""The operator ``s2mlp::shift``: one node per shift in every captured program.

Importing this module registers the operator with torch. Its result is always a new contiguous tensor, so the
overlapping in-place copy that public code writes, whose eager result is undefined, cannot happen here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from s2mlp_deploy.shift.spec import ShiftGroup, ShiftSpec, in_bounds


def shift(x: Tensor, spec: ShiftSpec) -> Tensor:
    """Shifts ``x`` by ``spec`` through the operator ``s2mlp::shift``.

    Args:
        x: Any rank, any dtype.
        spec: What to move where; its groups must hold as many channels as ``x``.

    Returns:
        A new contiguous tensor of the same shape and dtype.

    Raises:
        ShiftError: The spec does not fit the tensor.
    """
    spec.check_shape(x.shape)
    result: Tensor = torch.ops.s2mlp.shift(x, *spec.op_args())
    return result


@torch.library.custom_op("s2mlp::shift", mutates_args=())
def _shift(
    x: Tensor,
    channels: Sequence[int],
    offsets: Sequence[int],
    axes: Sequence[int],
    channel_axis: int,
    border: str,
    origin: str = "",
) -> Tensor:
    # Carried for the manifest, see s2mlp_deploy.shift.origin; it changes no number.
    del origin
    spec = ShiftSpec.from_op_args(channels, offsets, axes, channel_axis, border)
    spec.check_shape(x.shape)
    parts = torch.split(x, list(channels), dim=channel_axis)
    moved = [_move(part, group, spec) for part, group in zip(parts, spec.groups, strict=True)]
    # With one group cat would return its input's memory layout; a custom operator must not alias its input.
    return (
        torch.cat(moved, dim=channel_axis).contiguous()
        if len(moved) > 1
        else moved[0].clone(memory_format=torch.contiguous_format)
    )


def _move(part: Tensor, group: ShiftGroup, spec: ShiftSpec) -> Tensor:
    """One channel group, moved."""
    steps = [(axis, step) for axis, step in zip(spec.axes, group.offsets, strict=True) if step]
    if not steps:
        return part
    if spec.border == "circular":
        return torch.roll(part, [step for _, step in steps], [axis for axis, _ in steps])
    if spec.border == "edge":
        for axis, step in steps:
            part = part.index_select(axis, _edge_index(part.shape[axis], step, part.device))
        return part
    target, source = _windows(part, steps)
    moved = part.clone() if spec.border == "keep" else torch.zeros_like(part)
    moved[target] = part[source]
    return moved


def _edge_index(size: int, step: int, device: torch.device) -> Tensor:
    return (torch.arange(size, device=device) - step).clamp(0, size - 1)


def _windows(x: Tensor, steps: Sequence[tuple[int, int]]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The elements that receive a value from inside the tensor, and those that the values come from."""
    target = [slice(None)] * x.dim()
    source = [slice(None)] * x.dim()
    for axis, step in steps:
        target[axis], source[axis] = in_bounds(x.shape[axis], step)
    return tuple(target), tuple(source)


@_shift.register_fake
def _(x: Tensor, *arguments: Any) -> Tensor:
    ShiftSpec.from_op_args(*arguments[:5]).check_shape(x.shape)
    return x.new_empty(x.shape)


def _setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[object, ...], output: Tensor) -> None:
    del output
    ctx.spec = ShiftSpec.from_op_args(*inputs[1:6])  # type: ignore[attr-defined, arg-type]


def _backward(
    ctx: torch.autograd.function.FunctionCtx, gradient: Tensor
) -> tuple[Tensor, None, None, None, None, None, None]:
    spec: ShiftSpec = ctx.spec  # type: ignore[attr-defined]
    parts = torch.split(gradient, [group.channels for group in spec.groups], dim=spec.channel_axis)
    moved = [_adjoint(part, group, spec) for part, group in zip(parts, spec.groups, strict=True)]
    return torch.cat(moved, dim=spec.channel_axis), None, None, None, None, None, None


_shift.register_autograd(_backward, setup_context=_setup_context)


def _adjoint(gradient: Tensor, group: ShiftGroup, spec: ShiftSpec) -> Tensor:
    """Sends the gradient of each output element to the input element it was read from.

    Written with differentiable operations on ``gradient``, so that second derivatives work.
    """
    steps = [(axis, step) for axis, step in zip(spec.axes, group.offsets, strict=True) if step]
    if not steps:
        return gradient
    if spec.border == "circular":
        return torch.roll(gradient, [-step for _, step in steps], [axis for axis, _ in steps])
    if spec.border == "edge":
        for axis, step in reversed(steps):
            index = _edge_index(gradient.shape[axis], step, gradient.device)
            gradient = torch.zeros_like(gradient).index_add(axis, index, gradient)
        return gradient
    target, source = _windows(gradient, steps)
    moved = torch.zeros_like(gradient)
    moved[source] = gradient[target]
    if spec.border == "keep":
        kept = gradient.clone()
        kept[target] = 0
        moved = moved + kept
    return moved
