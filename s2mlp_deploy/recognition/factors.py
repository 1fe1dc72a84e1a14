"""What the axes of a view of a tensor are made of: factors of the tensor's own axes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Component:
    """A factor of an axis of the result, and where it lies along an axis of the source.

    Attributes:
        target: The axis of the result.
        place: Of the factor among those of its axis.
        offsets: Along the source's axis, in its elements.
        step: Between neighbours; None where they are no arithmetic progression.
    """

    target: int
    place: int
    offsets: tuple[int, ...]
    step: int | None

    @property
    def size(self) -> int:
        """How many."""
        return len(self.offsets)


def factored(along: Sequence[list[int]], shape: Sequence[int]) -> list[list[Component]] | None:
    """What lies along each axis of the source, from offsets of the result's axes; None where it cannot be told."""
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    found: list[list[Component]] = [[] for _ in shape]
    still: list[tuple[int, int, int]] = []
    for target, offsets in enumerate(along):
        factors = _factors(offsets)
        if factors is None:
            axis = _axis_of(offsets, shape, strides)
            if axis is None:
                return None
            found[axis].append(Component(target, 0, tuple(o // strides[axis] for o in offsets), None))
            continue
        pending = list(enumerate(factors))
        place = 1000  # Parts of a factor that is divided come after it.
        whole: list[tuple[int, int, int]] = []
        for index, (size, step) in pending:
            pieces = _within_axes(size, step, shape, strides) if step else [(None, size, 0)]
            if pieces is None:
                return None
            for depth, (axis, count, stride) in enumerate(pieces):
                order = index * place + place - 1 - depth
                if axis is None:
                    whole.append((target, order, count))
                else:
                    each = stride // strides[axis] if stride > 0 else -(-stride // strides[axis])
                    found[axis].append(Component(target, order, tuple(each * i for i in range(count)), each))
        still += whole
    for target, order, count in still:
        # Repeated elements: the same place of an axis again and again.
        axis = next((a for a in reversed(range(len(shape))) if not found[a]), None)
        if axis is None:
            return None
        found[axis].append(Component(target, order, (0,) * count, None))
    return found


def _within_axes(
    size: int, step: int, shape: Sequence[int], strides: Sequence[int]
) -> list[tuple[int | None, int, int]] | None:
    """A factor as factors that lie along one axis of the source each, the innermost first."""
    pieces: list[tuple[int | None, int, int]] = []
    sign = 1 if step > 0 else -1
    while size > 1:
        axis = next((a for a, n in enumerate(shape) if n > 1 and strides[a] <= abs(step) < strides[a] * n), None)
        if axis is None or abs(step) % strides[axis]:
            return None
        each, length = abs(step) // strides[axis], shape[axis]
        if (size - 1) * each < length:
            pieces.append((axis, size, step))
            return pieces
        inside = length // each
        if length % each or size % inside:
            return None
        pieces.append((axis, inside, step))
        size, step = size // inside, sign * strides[axis] * length
    return pieces


def _axis_of(offsets: Sequence[int], shape: Sequence[int], strides: Sequence[int]) -> int | None:
    """The axis of the source along which offsets lie."""
    reach = max(offsets) - min(offsets)
    for axis, stride in enumerate(strides):
        if shape[axis] > 1 and all(o % stride == 0 for o in offsets) and reach < stride * shape[axis]:
            return axis
    return None


def _factors(offsets: list[int]) -> list[tuple[int, int]] | None:
    """(size, step) of the axes that an axis is made of, the outermost first; None where it is made of none."""
    size = len(offsets)
    if size == 1:
        return []
    step = offsets[1]
    together = next((i for i in range(size) if offsets[i] != i * step), size)
    for inner in range(together, 1, -1):
        if size % inner == 0 and all(offsets[i] == offsets[i - i % inner] + i % inner * step for i in range(size)):
            outer = _factors(offsets[::inner])
            return None if outer is None else [*outer, (inner, step)]
    return None


def nested(ordered: Sequence[Component]) -> tuple[int, int] | None:
    """(step, count) of an axis whose factors are one stretch of it; None where they are not."""
    if not ordered:
        return 1, 1
    if any(not component.step for component in ordered):
        return None
    steps = [abs(component.step or 0) for component in ordered]
    for outer, inner in itertools.pairwise(range(len(ordered))):
        if steps[outer] != steps[inner] * ordered[inner].size:
            return None
    return steps[-1], math.prod(component.size for component in ordered)
