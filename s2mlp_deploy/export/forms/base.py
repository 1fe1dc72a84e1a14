"""What every ONNX form of a shift has in common: the protocol, and what groups, steps and borders are in a graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import onnx_ir as ir

from s2mlp_deploy.export.graph_builder import END, GraphBuilder
from s2mlp_deploy.shift.spec import ShiftGroup, ShiftSpec


class ShiftForm(Protocol):
    """One way to write a shift with standard ONNX operators."""

    @property
    def name(self) -> str:
        """The name on the command line and in the manifest."""
        ...

    def lower(self, build: GraphBuilder, x: ir.Value, spec: ShiftSpec) -> ir.Value:
        """Emits the nodes that shift ``x`` by ``spec`` and returns their result.

        On finite input every form gives equal numbers. Their bits are the same but for zeros, whose sign a Conv, and
        ONNX Runtime's Where, may lose. Sizes along spatial axes may be dynamic.
        """
        ...


def groups_with_channels(spec: ShiftSpec) -> Iterator[tuple[ShiftGroup, tuple[int, int]]]:
    """Each group with its first channel and the one after its last."""
    start = 0
    for group in spec.groups:
        # The last group reads to the end, so that one group of all channels needs no Slice.
        end = start + group.channels
        yield group, (start, END if end == spec.channels else end)
        start = end


def steps_of(group: ShiftGroup, spec: ShiftSpec) -> list[tuple[int, int]]:
    """(axis, step) for the axes along which a group moves."""
    return [(axis, step) for axis, step in zip(spec.axes, group.offsets, strict=True) if step]


def window_of(step: int) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Bounds along one axis of the elements that are read, of those that receive them, and of the vacated ones."""
    if step > 0:
        return (0, -step), (step, END), (0, step)
    return (-step, END), (0, step), (step, END)


def restore_kept(build: GraphBuilder, x: ir.Value, moved: ir.Value, steps: Sequence[tuple[int, int]]) -> ir.Value:
    """Gives the vacated elements of ``moved`` back their values of ``x``: the border ``keep``.

    Peels one axis after the other, so that a diagonal step keeps an L-shaped rim.
    """
    (axis, step), rest = steps[0], steps[1:]
    _, inside, vacated = window_of(step)
    centre = build.slice(moved, {axis: inside})
    if rest:
        centre = restore_kept(build, build.slice(x, {axis: inside}), centre, rest)
    rim = build.slice(x, {axis: vacated})
    return build.concat([rim, centre] if step > 0 else [centre, rim], axis)


def keep_equals_edge(steps: Sequence[tuple[int, int]]) -> bool:
    """Whether a kept border and a replicated one are the same: one axis, one element."""
    return len(steps) == 1 and abs(steps[0][1]) == 1
