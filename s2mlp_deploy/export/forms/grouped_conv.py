"""``grouped-conv``: a depthwise convolution whose fixed kernels hold a single 1.

S2-MLP section 3.3 calls this equivalent to the shift. It is, once the border is padded by replication: a zero-padded
convolution is another operation. A convolution multiplies the other elements by 0, so one infinite value makes its
neighbours NaN, and hardware that rounds factors (TF32) would round the copies; the other forms do neither.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.errors import ExportError
from s2mlp_deploy.export.forms.base import groups_with_channels, keep_equals_edge, restore_kept, steps_of
from s2mlp_deploy.export.forms.pad_slice import pad, reach_of
from s2mlp_deploy.export.graph_builder import END, GraphBuilder, rank_of
from s2mlp_deploy.shift.spec import ShiftSpec

_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16}


class GroupedConv:
    """Pad (but for zeros), then one Conv with a group a channel. Channels-last needs a Transpose before and after."""

    name = "grouped-conv"

    def lower(self, build: GraphBuilder, x: ir.Value, spec: ShiftSpec) -> ir.Value:
        """See :class:`~s2mlp_deploy.export.forms.base.ShiftForm`.

        Raises:
            ExportError: The tensor is not floating point, or has more than three axes besides batch and channels.
        """
        if x.dtype not in _FLOATS:
            raise ExportError(
                f"a shift of {x.dtype} cannot be a convolution", where=x.name, fix="--shift-form slice-concat"
            )
        before, after = reach_of(spec)
        padded = x if spec.border == "zero" else pad(build, x, spec, before, after)
        moved = _convolve(build, padded, spec, before, after)
        if spec.border != "keep" or all(
            not steps or keep_equals_edge(steps) for steps in (steps_of(group, spec) for group in spec.groups)
        ):
            return moved
        parts = []
        for group, channels in groups_with_channels(spec):
            part = build.slice(moved, {spec.channel_axis: channels})
            if steps := steps_of(group, spec):
                part = restore_kept(build, build.slice(x, {spec.channel_axis: channels}), part, steps)
            parts.append(part)
        return build.concat(parts, spec.channel_axis)


def _convolve(
    build: GraphBuilder, x: ir.Value, spec: ShiftSpec, before: dict[int, int], after: dict[int, int]
) -> ir.Value:
    assert x.dtype is not None  # checked by lower
    rank = rank_of(x)
    others = [axis for axis in range(rank) if axis != spec.channel_axis and axis not in spec.axes]
    # The first axis that is neither channel nor shifted is the batch; the convolution sees [batch, channel, rest].
    batch = others[:1]
    spatial = [axis for axis in range(rank) if axis != spec.channel_axis and axis not in batch]
    if len(spatial) > 3:
        raise ExportError(
            f"a tensor of rank {rank} has {len(spatial)} axes to convolve over; runtimes know at most 3",
            where=x.name,
            fix="--shift-form slice-concat",
        )
    order = [*batch, spec.channel_axis, *spatial]
    turned = _transpose(build, x, order)
    if not batch:
        turned = build.op("Unsqueeze", [turned, build.ints([0])], shape=[1, *(turned.shape or ())])
    # Element p reads padded element p + before - offset, so that is where the kernel's 1 stands.
    offsets = [dict(zip(spec.axes, group.offsets, strict=True)) for group in spec.groups]
    taps = [[before.get(axis, 0) - steps.get(axis, 0) for axis in spatial] for steps in offsets]
    reach = [before.get(axis, 0) + after.get(axis, 0) for axis in spatial]
    # Steps of two need no products with what lies between.
    gaps = [math.gcd(far, *(tap[index] for tap in taps)) or 1 for index, far in enumerate(reach)]
    sizes = [far // gap + 1 for far, gap in zip(reach, gaps, strict=True)]
    kernel = np.zeros((spec.channels, 1, *sizes), x.dtype.numpy())
    for tap, (_, (start, end)) in zip(taps, groups_with_channels(spec), strict=True):
        place = tuple(at // gap for at, gap in zip(tap, gaps, strict=True))
        kernel[(slice(start, None if end == END else end), 0, *place)] = 1
    shape: list[int | ir.SymbolicDim | None] = list(turned.shape or ())
    attributes: dict[str, Any] = {"group": spec.channels}
    if max(gaps) > 1:
        attributes["dilations"] = gaps
    if spec.border == "zero":
        attributes["pads"] = [amount.get(axis, 0) for amount in (before, after) for axis in spatial]
    else:
        for index, axis in enumerate(spatial, start=2):
            size = shape[index]
            shape[index] = size - before.get(axis, 0) - after.get(axis, 0) if isinstance(size, int) else None
    result = build.op("Conv", [turned, build.constant(kernel, "one_hot")], attributes, shape=shape)
    if not batch:
        result = build.op("Squeeze", [result, build.ints([0])], shape=list(result.shape or ())[1:])
    return _transpose(build, result, [order.index(axis) for axis in range(rank)])


def _transpose(build: GraphBuilder, x: ir.Value, order: list[int]) -> ir.Value:
    if order == sorted(order):
        return x
    assert x.shape is not None
    return build.op("Transpose", [x], {"perm": order}, shape=[x.shape[axis] for axis in order])
