"""``slice-concat``: the shifted elements and the border, cut out and joined again."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.export.forms.base import groups_with_channels, restore_kept, steps_of, window_of
from s2mlp_deploy.export.graph_builder import END, GraphBuilder, rank_of, size_of
from s2mlp_deploy.shift.spec import ShiftSpec

_SURE_TURN = 2
"""Two Slices and a Concat turn an axis of any length by this much: one of 1 or 2 elements comes back to itself."""


class SliceConcat:
    """Two Slices and a Concat per group that moves, and one Concat over the groups.

    The channel range is cut in the same Slice as the elements, so the groups need no Split first: a Split would copy
    the whole tensor once more.
    """

    name = "slice-concat"

    def lower(self, build: GraphBuilder, x: ir.Value, spec: ShiftSpec) -> ir.Value:
        """See :class:`~s2mlp_deploy.export.forms.base.ShiftForm`."""
        parts = []
        for group, channels in groups_with_channels(spec):
            steps = steps_of(group, spec)
            window = {spec.channel_axis: channels}
            if not steps:
                parts.append(build.slice(x, window))
            elif spec.border == "keep":
                parts.append(_keep(build, x, window, steps))
            else:
                part, first = x, window
                for axis, step in steps:
                    part, first = _along(build, part, first, axis, step, spec.border), {}
                parts.append(part)
        return build.concat(parts, spec.channel_axis)


def _keep(
    build: GraphBuilder, x: ir.Value, window: dict[int, tuple[int, int]], steps: list[tuple[int, int]]
) -> ir.Value:
    if len(steps) == 1:
        axis, step = steps[0]
        source, _, vacated = window_of(step)
        body, rim = build.slice(x, window | {axis: source}), build.slice(x, window | {axis: vacated})
        return build.concat([rim, body] if step > 0 else [body, rim], axis)
    part = build.slice(x, window)
    moved = part
    for axis, step in steps:
        moved = _along(build, moved, {}, axis, step, "edge")
    return restore_kept(build, part, moved, steps)


def _along(
    build: GraphBuilder, x: ir.Value, window: dict[int, tuple[int, int]], axis: int, step: int, border: str
) -> ir.Value:
    """Moves the elements inside ``window`` along one axis."""
    reach, size = abs(step), size_of(x, axis)
    source, _, _ = window_of(step)
    if border == "circular":
        # Concat(x[-s:], x[:-s]); torch.roll also turns more than once around.
        if size is not None:
            reach = step % size
            if reach == 0:
                return build.slice(x, window)
        elif reach > _SURE_TURN:
            # The axis may be shorter than the step, whose remainder is then unknown: turn by less, several times.
            turn = _SURE_TURN if step > 0 else -_SURE_TURN
            x, window = _along(build, x, window, axis, turn, border), {}
            return _along(build, x, window, axis, step - turn, border)
        cut = -reach if step > 0 or size is not None else reach
        head = build.slice(x, window | {axis: (cut, END)})
        return build.concat([head, build.slice(x, window | {axis: (0, cut)})], axis)
    if border == "edge":
        element = build.slice(x, window | {axis: (0, 1) if step > 0 else (-1, END)})
        rim = [element] * reach
    else:
        element = _zeros_like_slab(build, x, window, axis)
        rim = [element] * reach
    if reach == 1 or (size is not None and size >= reach):
        body = build.slice(x, window | {axis: source})
        return build.concat([*rim, body] if step > 0 else [body, *rim], axis)
    # The axis may be shorter than the step: join first, then cut to the axis' own size.
    body = build.slice(x, window)
    joined = build.concat([*rim, body] if step > 0 else [body, *rim], axis)
    return build.slice(joined, {axis: source})


def _zeros_like_slab(build: GraphBuilder, x: ir.Value, window: dict[int, tuple[int, int]], axis: int) -> ir.Value:
    """Zeros of the shape of one element's slab, batch and other axes included.

    Not ``x * 0``: that gives −0 for negative values and NaN for infinite ones.
    """
    slab = build.slice(x, window | {axis: (0, 1)})
    shape = build.op("Shape", [slab], shape=[rank_of(slab)], dtype=ir.DataType.INT64)
    assert x.dtype is not None
    return build.op(
        "ConstantOfShape",
        [shape],
        {"value": ir.tensor(np.zeros(1, x.dtype.numpy()))},
        shape=tuple(slab.shape) if slab.shape is not None else None,
        dtype=x.dtype,
    )
