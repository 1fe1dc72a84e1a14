"""``gather``: every element names the element it is read from."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from s2mlp_deploy.export.forms.base import groups_with_channels, keep_equals_edge, steps_of
from s2mlp_deploy.export.graph_builder import GraphBuilder, size_of
from s2mlp_deploy.shift.spec import ShiftSpec


class Gather:
    """One Gather per group and axis, with the source's index for every element of the axis.

    Where an axis is dynamic its indices are computed at run time. A border of zeros, and a kept border that is no
    replicated one, choose by a mask afterwards.
    """

    name = "gather"

    def lower(self, build: GraphBuilder, x: ir.Value, spec: ShiftSpec) -> ir.Value:
        """See :class:`~s2mlp_deploy.export.forms.base.ShiftForm`."""
        parts = []
        for group, channels in groups_with_channels(spec):
            part = build.slice(x, {spec.channel_axis: channels})
            steps = steps_of(group, spec)
            moved = part
            for axis, step in steps:
                index = _index(build, part, axis, step, spec.border)
                moved = build.op("Gather", [moved, index], {"axis": axis}, shape=tuple(part.shape or ()))
            if steps and (spec.border == "zero" or (spec.border == "keep" and not keep_equals_edge(steps))):
                moved = _outside_from(build, part, moved, steps, spec.border)
            parts.append(moved)
        return build.concat(parts, spec.channel_axis)


def _index(build: GraphBuilder, x: ir.Value, axis: int, step: int, border: str) -> ir.Value:
    """Where each element of the axis is read from, int64 [size]; for positions outside, the nearest inside."""
    size = size_of(x, axis)
    if size is not None:
        source = np.arange(size) - step
        source = source % size if border == "circular" else np.clip(source, 0, size - 1)
        return build.constant(source.astype(np.int64), "index")
    source_value, length = _dynamic_source(build, x, axis, step)
    if border == "circular":
        # Mod without fmod takes the sign of the divisor, as NumPy's % does.
        return build.op("Mod", [source_value, length], shape=[None])
    last = build.op("Sub", [length, _scalar(build, 1)], shape=[])
    clipped = build.op("Max", [source_value, _scalar(build, 0)], shape=[None])
    return build.op("Min", [clipped, last], shape=[None])


def _outside_from(
    build: GraphBuilder, x: ir.Value, moved: ir.Value, steps: list[tuple[int, int]], border: str
) -> ir.Value:
    """Gives the vacated elements 0, or their own value where the border is kept."""
    rank = len(x.shape or ())
    inside: ir.Value | None = None
    for axis, step in steps:
        mask = _inside(build, x, axis, step, rank)
        inside = mask if inside is None else build.op("And", [inside, mask], shape=[None] * rank, dtype=mask.dtype)
    assert x.dtype is not None
    other = x if border == "keep" else build.constant(np.zeros((), x.dtype.numpy()), "zero")
    return build.op("Where", [inside, moved, other], shape=tuple(x.shape or ()), dtype=x.dtype)


def _inside(build: GraphBuilder, x: ir.Value, axis: int, step: int, rank: int) -> ir.Value:
    """Whether each element of the axis is read from inside the tensor; bool, shaped to broadcast along that axis."""
    shape = [1] * rank
    size = size_of(x, axis)
    if size is not None:
        shape[axis] = size
        source = np.arange(size) - step
        mask: NDArray[Any] = ((source >= 0) & (source < size)).reshape(shape)
        return build.constant(mask, "inside")
    shape[axis] = -1
    source_value, length = _dynamic_source(build, x, axis, step)
    compare = ("GreaterOrEqual", [source_value, _scalar(build, 0)]) if step > 0 else ("Less", [source_value, length])
    inside = build.op(*compare, shape=[None], dtype=ir.DataType.BOOL)
    return build.op("Reshape", [inside, build.ints(shape)], shape=[s if s > 0 else None for s in shape])


def _dynamic_source(build: GraphBuilder, x: ir.Value, axis: int, step: int) -> tuple[ir.Value, ir.Value]:
    """``arange(size) - step`` and ``size`` of a dynamic axis."""
    shape = build.op("Shape", [x], {"start": axis, "end": axis + 1}, shape=[1], dtype=ir.DataType.INT64)
    length = build.op("Squeeze", [shape, build.ints([0])], shape=[])
    return build.op(
        "Range",
        [_scalar(build, -step), build.op("Sub", [length, _scalar(build, step)], shape=[]), _scalar(build, 1)],
        shape=[None],
    ), length


def _scalar(build: GraphBuilder, value: int) -> ir.Value:
    return build.constant(np.asarray(value, np.int64), "scalar")
