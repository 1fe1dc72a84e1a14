"""What a shift means, one cell at a time, and the specs that the tests of several rooms go through.

The reference shares nothing with the package but the specification's fields: no slices, no rolls, no windows.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from s2mlp_deploy.shift.spec import BORDERS, Border, ShiftGroup, ShiftSpec

LAYOUTS = ("channels-first", "channels-last")
SIZES = (5, 4, 3)
"""Cells along the first, second and third spatial axis of the test tensors."""


def shift_reference(x: np.ndarray[Any, Any], spec: ShiftSpec) -> np.ndarray[Any, Any]:
    """Asks for every cell of the output which cell of the input it is."""
    offsets_of = [group.offsets for group in spec.groups for _ in range(group.channels)]
    out = np.empty(x.shape, x.dtype)
    for cell in np.ndindex(*x.shape):
        source = list(cell)
        outside = False
        for axis, step in zip(spec.axes, offsets_of[cell[spec.channel_axis]], strict=True):
            wanted, size = cell[axis] - step, x.shape[axis]
            outside = outside or not 0 <= wanted < size
            if spec.border == "circular":
                wanted = wanted % size
            elif spec.border == "edge":
                wanted = min(max(wanted, 0), size - 1)
            source[axis] = wanted
        if outside and spec.border == "zero":
            out[cell] = 0
        elif outside and spec.border == "keep":
            out[cell] = x[cell]
        else:
            out[cell] = x[tuple(source)]
    return out


def both_ways(count: int, step: int) -> list[tuple[int, ...]]:
    """``step`` and ``-step`` along each of ``count`` axes, one axis at a time."""
    return [
        tuple(sign * step if axis == moved else 0 for axis in range(count))
        for moved in range(count)
        for sign in (1, -1)
    ]


STEPS: dict[str, Callable[[int], list[tuple[int, ...]]]] = {
    "one": lambda count: both_ways(count, 1),
    "two": lambda count: both_ways(count, 2),
    "some-still": lambda count: [(0,) * count, *both_ways(count, 1), (0,) * count],
    "diagonal": lambda count: list(itertools.product((1, -1), repeat=count)),
    "long-diagonal": lambda count: [(2, -1, 1)[:count], (-3, 2, -2)[:count], (1, 3, -1)[:count]],
    "one-group": lambda count: [(1, -2, 0)[:count]],
    "whole-axis": lambda count: [tuple(sign * size for size in SIZES[:count]) for sign in (1, -1)],
    "beyond-axis": lambda count: both_ways(count, 7),
}
"""Offsets of each group by the number of spatial axes."""


def case(rank: int, layout: str, steps: str, border: Border) -> tuple[tuple[int, ...], ShiftSpec]:
    """A shape of that rank with a batch of 2, and a shift of it whose groups differ in size."""
    sizes = SIZES[: rank - 2]
    groups = tuple(ShiftGroup(1 + index % 3, offsets) for index, offsets in enumerate(STEPS[steps](len(sizes))))
    channels = sum(group.channels for group in groups)
    if layout == "channels-first":
        return (2, channels, *sizes), ShiftSpec(groups, tuple(range(2, rank)), 1, border)
    return (2, *sizes, channels), ShiftSpec(groups, tuple(range(1, rank - 1)), rank - 1, border)


def cases() -> list[tuple[int, str, str, Border]]:
    """Arguments for :func:`case`: every rank, layout, set of steps and border."""
    return list(itertools.product((3, 4, 5), LAYOUTS, STEPS, BORDERS))  # type: ignore[arg-type]


def numbered(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    """Every cell its own value, none of them 0, of both signs and exact in fp32."""
    values = np.arange(1, int(np.prod(shape)) + 1).reshape(shape)
    return (values * np.where(values % 2, 1, -1)).astype(dtype)


@functools.cache
def question_and_answer(shape: tuple[int, ...], spec: ShiftSpec) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """All forms are asked the same, and the reference is slow."""
    x = numbered(shape)
    return x, shift_reference(x, spec)
