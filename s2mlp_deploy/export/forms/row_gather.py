"""``row-gather``: one Gather per axis for the groups of all channels together.

With the channels and a shifted axis beside each other, and the longest block of other axes behind them, every pair of
channel and position is a row in memory, and a table says which row goes where. So the number of nodes does not depend
on the number of groups, which is what shifts of one channel a group need (CycleMLP, Rolling-UNet).

Where channels are the last axis and a group has many, its channels at a position are a row already: one Gather then
moves everything along all axes, between two Reshapes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from s2mlp_deploy.export.forms.base import steps_of
from s2mlp_deploy.export.graph_builder import GraphBuilder, rank_of, size_of
from s2mlp_deploy.shift.spec import ShiftSpec

Axes = Sequence[int]
_SWAPPED = (0, 2, 1, 3)
_WIDE = 16
"""Channels from which on a row of them is worth looking up: 64 bytes of float32."""
_MOST_ROWS = 1 << 16
"""Of one table: half a mebibyte in the file."""


class RowGather:
    """One Gather per axis that anything moves along, between Transposes where channels and axis lie apart.

    Where an axis is dynamic its table is computed at run time. A border of zeros is one row of zeros behind the others;
    a kept border of diagonal steps chooses by a mask afterwards.
    """

    name = "row-gather"

    def lower(self, build: GraphBuilder, x: ir.Value, spec: ShiftSpec) -> ir.Value:
        """See :class:`~s2mlp_deploy.export.forms.base.ShiftForm`."""
        if (width := _row_width(x, spec)) is not None:
            return _at_once(build, x, spec, width)
        diagonal = spec.border == "keep" and any(len(steps_of(group, spec)) > 1 for group in spec.groups)
        border = "edge" if diagonal else spec.border
        moved = x
        inside: ir.Value | None = None
        for axis, steps in _steps_by_channel(spec):
            moved = _along(build, moved, spec, axis, steps, border)
            if diagonal:
                mask = _mask(build, x, spec.channel_axis, axis, steps)
                shape = [None] * len(x.shape or ())
                inside = mask if inside is None else build.op("And", [inside, mask], shape=shape, dtype=mask.dtype)
        if inside is not None:
            return build.op("Where", [inside, moved, x], shape=tuple(x.shape or ()), dtype=x.dtype)
        return moved


def _row_width(x: ir.Value, spec: ShiftSpec) -> int | None:
    """How many channels move together wherever they go; None where one table for all axes is not to be had.

    A border of zeros would need a row of them behind the others, which is a copy of the tensor.
    """
    rank, width = rank_of(x), math.gcd(*(group.channels for group in spec.groups))
    sizes = [size_of(x, axis) for axis in range(rank)]
    first = min(spec.axes)
    inner = sizes[first:]
    if spec.border == "zero" or spec.channel_axis != rank - 1 or width < _WIDE or None in inner:
        return None
    rows = math.prod(size for size in inner if size is not None) // width
    return width if 0 < rows <= _MOST_ROWS and sizes[:first].count(None) <= 1 else None


def _at_once(build: GraphBuilder, x: ir.Value, spec: ShiftSpec, width: int) -> ir.Value:
    first, rank = min(spec.axes), rank_of(x)
    sizes = [size_of(x, axis) for axis in range(rank)]
    inner = [size for size in sizes[first:-1] if size is not None]
    table = _table_of_positions(inner, first, spec, width)
    lead = sizes[:first]
    outer = None if None in lead else math.prod(size for size in lead if size is not None)
    shape = [outer, table.size, width]
    flat = build.op("Reshape", [x, build.ints([-1 if size is None else size for size in shape])], shape=shape)
    rows = build.op("Gather", [flat, build.constant(table, "row")], {"axis": 1}, shape=shape)
    back = build.ints([-1 if size is None else size for size in sizes])
    return build.op("Reshape", [rows, back], shape=tuple(x.shape or ()))


def _table_of_positions(sizes: Sequence[int], first: int, spec: ShiftSpec, width: int) -> NDArray[np.int64]:
    """For every position and block of channels the row that is read; rows are counted the same way.

    Args:
        sizes: Of the axes from the first shifted one to that before the channels.
        first: The number of the first of them.
        spec: The shift.
        width: Channels of a row.
    """
    own = np.indices(sizes)
    blocks = spec.channels // width
    columns: list[NDArray[np.int64]] = []
    for group in spec.groups:
        source, inside = own.copy(), np.ones(sizes, bool)
        for axis, step in steps_of(group, spec):
            at = axis - first
            moved = own[at] - step
            inside &= (moved >= 0) & (moved < sizes[at])
            source[at] = moved % sizes[at] if spec.border == "circular" else moved.clip(0, sizes[at] - 1)
        if spec.border == "keep":
            source = np.where(inside, source, own)
        position = np.ravel_multi_index(tuple(source), sizes).ravel()
        for _ in range(group.channels // width):
            columns.append(position * blocks + len(columns))
    return np.stack(columns, axis=1).ravel()


def _steps_by_channel(spec: ShiftSpec) -> list[tuple[int, NDArray[np.int64]]]:
    """For each axis that anything moves along, the step of every channel."""
    counts = [group.channels for group in spec.groups]
    steps = np.repeat(np.array([group.offsets for group in spec.groups], np.int64), counts, axis=0)
    return [(axis, steps[:, index]) for index, axis in enumerate(spec.axes) if steps[:, index].any()]


def _along(
    build: GraphBuilder, x: ir.Value, spec: ShiftSpec, axis: int, steps: NDArray[np.int64], border: str
) -> ir.Value:
    channel = spec.channel_axis
    lead = [0] if 0 not in (channel, *spec.axes) else []
    rows = _Turned(build, x)
    # Two moves of one axis each: ONNX Runtime turns those nine times as fast as both at once.
    rows.move(axis, len(lead) + (rows.order[len(lead)] == channel))
    rows.move(channel, len(lead))
    rest = [other for other in rows.order if other not in (*lead, channel, axis)]
    flat = rows.seen_as([lead, [channel, axis], rest])
    size = size_of(x, axis)
    count = None if size is None else size * spec.channels
    shape = list(flat.shape or ())
    if border == "zero":
        last = build.ints([0, 0, 0, 0, 1, 0])
        flat = build.op("Pad", [flat, last], shape=[shape[0], None if count is None else count + 1, shape[2]])
    if size is not None:
        table = build.constant(_known_table(size, steps, border), "row")
    else:
        table = _table(build, rows.length(axis), steps, border)
    rows.becomes(build.op("Gather", [flat, table], {"axis": 1}, shape=shape))
    return rows.turned_back()


class _Turned:
    """A tensor whose axes are brought into another order, a move at a time.

    Every move is a Reshape to four axes and a Transpose of the two in the middle. The Reshapes are free, and keep
    runtimes from making one general Transpose of two fast ones.
    """

    def __init__(self, build: GraphBuilder, x: ir.Value) -> None:
        self.order = list(range(len(x.shape or ())))
        self._build, self._x, self._now = build, x, x
        self._moves: list[tuple[int, int]] = []
        self._lengths: dict[int, ir.Value] = {}

    def move(self, axis: int, to: int) -> None:
        """Moves an axis to a place in the order."""
        start = self.order.index(axis)
        if start == to:
            return
        self._moves.append((axis, start))
        first, last = min(start, to), max(start, to) + 1
        middle = start if to < start else start + 1
        order = self.order
        parts = [order[:first], order[first:middle], order[middle:last], order[last:]]
        turned = [self._static(parts[index]) for index in _SWAPPED]
        self._now = self._build.op("Transpose", [self.seen_as(parts)], {"perm": _SWAPPED}, shape=turned)
        self.order = [*order[:first], *order[middle:last], *order[first:middle], *order[last:]]

    def becomes(self, value: ir.Value) -> None:
        """Takes another value of the same elements' order."""
        self._now = value

    def turned_back(self) -> ir.Value:
        """The value with the axes in the order of the beginning."""
        for axis, start in reversed(self._moves[:]):
            self.move(axis, start)
        return self._reshape([[axis] for axis in self.order], tuple(self._x.shape or ()))

    def seen_as(self, parts: Sequence[Axes]) -> ir.Value:
        """With one axis for each part of the order."""
        return self._reshape(parts, [self._static(part) for part in parts])

    def length(self, axis: int) -> ir.Value:
        """The size of a dynamic axis of the tensor, int64 [1]."""
        if axis not in self._lengths:
            attributes = {"start": axis, "end": axis + 1}
            self._lengths[axis] = self._build.op("Shape", [self._x], attributes, shape=[1], dtype=ir.DataType.INT64)
        return self._lengths[axis]

    def _static(self, part: Axes) -> int | None:
        sizes = [size_of(self._x, axis) for axis in part]
        return None if None in sizes else int(np.prod([size for size in sizes if size is not None], dtype=np.int64))

    def _reshape(self, parts: Sequence[Axes], shape: Sequence[int | ir.SymbolicDim | None]) -> ir.Value:
        build = self._build
        sizes = [self._static(part) for part in parts]
        unknown = [index for index, size in enumerate(sizes) if size is None]
        if len(unknown) <= 1:
            target = build.ints([-1 if size is None else size for size in sizes])
        else:
            # Reshape finds out one size by itself.
            pieces = [
                build.ints([size if size is not None else -1])
                if index not in unknown[1:]
                else self._product(parts[index])
                for index, size in enumerate(sizes)
            ]
            target = build.concat(pieces, 0)
        return build.op("Reshape", [self._now, target], shape=shape)

    def _product(self, part: Axes) -> ir.Value:
        result: ir.Value | None = None
        for axis in part:
            size = size_of(self._x, axis)
            factor = self._build.ints([size]) if size is not None else self.length(axis)
            result = factor if result is None else self._build.op("Mul", [result, factor], shape=[1])
        assert result is not None
        return result


def _known_table(size: int, steps: NDArray[np.int64], border: str) -> NDArray[np.int64]:
    """For every channel and position the row that is read, [channels * size]; rows are counted the same way.

    The row behind the last one is of zeros.
    """
    channels, position = np.arange(len(steps))[:, None], np.arange(size)[None, :]
    source = position - steps[:, None]
    inside = (source >= 0) & (source < size)
    if border == "circular":
        source = source % size
    elif border == "keep":
        source = np.where(inside, source, position)
    else:
        source = source.clip(0, size - 1)
    row = source + channels * size
    return (np.where(inside, row, channels.size * size) if border == "zero" else row).ravel()


def _table(build: GraphBuilder, length: ir.Value, steps: NDArray[np.int64], border: str) -> ir.Value:
    """:func:`_known_table` of an axis whose length is known at run time only."""
    row_shape = [len(steps), None]
    source_value, position_value = _source(build, length, steps[:, None])
    if border == "circular":
        source_value = build.op("Mod", [source_value, length], shape=row_shape)
    elif border != "zero":
        last = build.op("Sub", [length, build.ints([1])], shape=[1])
        nearest = build.op("Max", [source_value, build.ints([0])], shape=row_shape)
        nearest = build.op("Min", [nearest, last], shape=row_shape)
        if border == "keep":
            within = build.op("Equal", [nearest, source_value], shape=row_shape, dtype=ir.DataType.BOOL)
            nearest = build.op(
                "Where", [within, source_value, position_value], shape=row_shape, dtype=source_value.dtype
            )
        source_value = nearest
    first = build.op("Mul", [build.constant(np.arange(len(steps))[:, None], "channel"), length], shape=[len(steps), 1])
    row_value = build.op("Add", [source_value, first], shape=row_shape)
    if border == "zero":
        behind = build.op("Mul", [build.ints([len(steps)]), length], shape=[1])
        within = _within(build, source_value, length)
        row_value = build.op("Where", [within, row_value, behind], shape=row_shape, dtype=row_value.dtype)
    return build.op("Reshape", [row_value, build.ints([-1])], shape=[None])


def _source(build: GraphBuilder, length: ir.Value, steps: NDArray[np.int64]) -> tuple[ir.Value, ir.Value]:
    """``arange(size) - steps``, broadcast, and ``arange(size)``."""
    count = build.op("Squeeze", [length, build.ints([0])], shape=[])
    zero, one = (build.constant(np.asarray(value, np.int64), "scalar") for value in (0, 1))
    position = build.op("Range", [zero, count, one], shape=[None])
    return build.op("Sub", [position, build.constant(steps, "steps")], shape=[len(steps), None]), position


def _within(build: GraphBuilder, source: ir.Value, length: ir.Value) -> ir.Value:
    shape = tuple(source.shape or ())
    low = build.op("GreaterOrEqual", [source, build.ints([0])], shape=shape, dtype=ir.DataType.BOOL)
    high = build.op("Less", [source, length], shape=shape, dtype=ir.DataType.BOOL)
    return build.op("And", [low, high], shape=shape, dtype=ir.DataType.BOOL)


def _mask(build: GraphBuilder, x: ir.Value, channel: int, axis: int, steps: NDArray[np.int64]) -> ir.Value:
    """Whether each element is read from inside along an axis; bool, of the rank of the tensor, to be broadcast."""
    rank, size = len(x.shape or ()), size_of(x, axis)
    shape = [1] * rank
    shape[channel], shape[axis] = len(steps), size if size is not None else -1
    if size is not None:
        source = np.arange(size)[None, :] - steps[:, None]
        inside = (source >= 0) & (source < size)
        return build.constant((inside if channel < axis else inside.T).reshape(shape), "inside")
    length = build.op("Shape", [x], {"start": axis, "end": axis + 1}, shape=[1], dtype=ir.DataType.INT64)
    source_value, _ = _source(build, length, steps[:, None])
    inside_value = _within(build, source_value, length)
    if axis < channel:
        inside_value = build.op("Transpose", [inside_value], {"perm": [1, 0]}, shape=[None, len(steps)])
    known = [entry if entry > 0 else None for entry in shape]
    return build.op("Reshape", [inside_value, build.ints(shape)], shape=known)
