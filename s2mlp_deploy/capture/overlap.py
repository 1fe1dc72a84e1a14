"""How many elements of one memory two views share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class View:
    """Where a tensor's elements lie in its memory, without the tensor.

    Attributes:
        shape: Sizes; none is 0 where there are elements.
        stride: Steps in elements.
        start: Position of the first element.
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    start: int

    @classmethod
    def of(cls, tensor: Tensor) -> View:
        """The view that a tensor is."""
        return cls(tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset()))

    @property
    def last(self) -> int:
        """Position of the last element."""
        return self.start + sum((size - 1) * stride for size, stride in zip(self.shape, self.stride, strict=True))


def overlap(a: View, b: View) -> int:
    """How many elements of one memory two different views share; 0 for the same view twice.

    An in-place shift copies between views of equal strides, and those are counted by arithmetic; others by marking the
    part of the memory that both reach into.
    """
    if a == b or 0 in a.shape or 0 in b.shape or max(a.start, b.start) > min(a.last, b.last):
        return 0
    if len(a.shape) == len(b.shape):
        # Axes of one element each take no step; the others from the longest stride to the shortest.
        kept = [axis for axis in range(len(a.shape)) if (a.shape[axis], b.shape[axis]) != (1, 1)]
        kept.sort(key=lambda axis: -a.stride[axis])
        strides = [a.stride[axis] for axis in kept]
        sizes = [(a.shape[axis], b.shape[axis]) for axis in kept]
        equal = strides == [b.stride[axis] for axis in kept]
        if equal and all(_distinct([size[side] for size in sizes], strides) for side in (0, 1)):
            return _shared(sizes, strides, b.start - a.start)
    return _marked(a, b)


def _distinct(sizes: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether no element of a view is another one too: each stride passes over all that lies within it."""
    within = 0
    for size, stride in zip(reversed(sizes), reversed(strides), strict=True):
        if stride <= within:
            return False
        within += (size - 1) * stride
    return True


def _shared(sizes: Sequence[tuple[int, int]], strides: Sequence[int], distance: int) -> int:
    """Pairs of indices at one position, for views of equal strides (falling) whose starts lie a distance apart.

    An index of the second view is one of the first plus a step along each axis; the steps make up for the distance.
    """
    if not strides:
        return int(distance == 0)
    (first, second), stride = sizes[0], strides[0]
    reach = sum((max(pair) - 1) * inner for pair, inner in zip(sizes[1:], strides[1:], strict=True))
    total = 0
    for step in range(-((reach - distance) // stride), (distance + reach) // stride + 1):
        # Index i of the second view meets index i + step of the first.
        common = min(first, second + step) - max(0, step)
        if common > 0:
            total += common * _shared(sizes[1:], strides[1:], distance - step * stride)
    return total


def _marked(a: View, b: View) -> int:
    low, high = max(a.start, b.start), min(a.last, b.last)
    marks = []
    for view in (a, b):
        positions = torch.tensor([view.start])
        for size, stride in zip(view.shape, view.stride, strict=True):
            positions = (positions[:, None] + torch.arange(size) * stride).flatten()
        inside = positions[(positions >= low) & (positions <= high)]
        mark = torch.zeros(high - low + 1, dtype=torch.bool)
        mark[inside - low] = True
        marks.append(mark)
    return int((marks[0] & marks[1]).sum())
