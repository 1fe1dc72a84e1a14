"""``pad-slice``: one Pad for all groups, then one Slice per group."""

from __future__ import annotations

import onnx_ir as ir

from s2mlp_deploy.export.forms.base import groups_with_channels, keep_equals_edge, restore_kept, steps_of
from s2mlp_deploy.export.graph_builder import END, GraphBuilder, rank_of, size_of
from s2mlp_deploy.shift.spec import ShiftSpec

_MODES = {"edge": "edge", "keep": "edge", "zero": "constant", "circular": "wrap"}


class PadSlice:
    """Pads every shifted axis by the largest step, then each group reads its own window.

    A kept border is a replicated one where that is the same thing; elsewhere the vacated elements are joined back.
    """

    name = "pad-slice"

    def lower(self, build: GraphBuilder, x: ir.Value, spec: ShiftSpec) -> ir.Value:
        """See :class:`~s2mlp_deploy.export.forms.base.ShiftForm`."""
        before, after = reach_of(spec)
        padded = pad(build, x, spec, before, after)
        parts = []
        for group, channels in groups_with_channels(spec):
            offsets = dict(zip(spec.axes, group.offsets, strict=True))
            # Element p reads padded element p + before - offset; the window is as long as the axis.
            window = {axis: (before[axis] - step, -(after[axis] + step) or END) for axis, step in offsets.items()}
            part = build.slice(padded, {spec.channel_axis: channels} | window)
            steps = steps_of(group, spec)
            if spec.border == "keep" and steps and not keep_equals_edge(steps):
                part = restore_kept(build, build.slice(x, {spec.channel_axis: channels}), part, steps)
            parts.append(part)
        return build.concat(parts, spec.channel_axis)


def reach_of(spec: ShiftSpec) -> tuple[dict[int, int], dict[int, int]]:
    """Elements of padding needed before and after each axis so that every group's window lies inside."""
    before, after = {}, {}
    for index, axis in enumerate(spec.axes):
        steps = [group.offsets[index] for group in spec.groups]
        before[axis], after[axis] = max(0, *steps), max(0, *(-step for step in steps))
    return before, after


def pad(build: GraphBuilder, x: ir.Value, spec: ShiftSpec, before: dict[int, int], after: dict[int, int]) -> ir.Value:
    """Pads by the spec's border; ``keep`` as ``edge``."""
    axes = [axis for axis in spec.axes if before[axis] or after[axis]]
    if not axes:
        return x
    if spec.border == "circular" and build.opset < 19:
        # Pad's mode "wrap" came with opset 19.
        for axis in axes:
            x = _wrap(build, x, axis, before[axis], after[axis])
        return x
    pads = [
        [before.get(axis, 0) for axis in range(rank_of(x))],
        [after.get(axis, 0) for axis in range(rank_of(x))],
    ]
    shape: list[int | ir.SymbolicDim | None] = list(x.shape or ())
    for axis in axes:
        size = size_of(x, axis)
        shape[axis] = None if size is None else size + before[axis] + after[axis]
    return build.op("Pad", [x, build.ints(pads[0] + pads[1])], {"mode": _MODES[spec.border]}, shape=shape)


def _wrap(build: GraphBuilder, x: ir.Value, axis: int, before: int, after: int) -> ir.Value:
    """Pads one axis as if it were a ring, also by more elements than it has."""
    # As many elements as the axis surely has can be read at once; longer padding reads on in the ring made so far.
    sure = size_of(x, axis) or 1
    if max(before, after) <= sure:
        head = [build.slice(x, {axis: (-before, END)})] if before else []
        tail = [build.slice(x, {axis: (0, after)})] if after else []
        return build.concat([*head, x, *tail], axis)
    for done in range(0, before, sure):
        upto = min(done + sure, before)
        x = build.concat([build.slice(x, {axis: (-upto, -done or END)}), x], axis)
    for done in range(0, after, sure):
        upto = min(done + sure, after)
        x = build.concat([x, build.slice(x, {axis: (before + done, before + upto)})], axis)
    return x
