"""Which tensors of a region another one may be a shift of."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator
from typing import Generic

import torch
from torch import Tensor

from s2mlp_deploy.recognition.graph import ZERO, N, SizedGraph, UnknownValueError
from s2mlp_deploy.recognition.index_maps import IndexMaps, all_distinct, digest
from s2mlp_deploy.recognition.regions import Region
from s2mlp_deploy.recognition.results import Base

_MOST_BASES = 4
"""A tensor is compared with so many of the first tensors it could be a shift of, and with so many of the last.

So a chain of hundreds of writes, each of which could be the base of all later ones, is compared in linear time.
"""


class BaseFinder(Generic[N]):
    """The tensors that others may be shifts of: of the same type and shape, or longer along one axis."""

    def __init__(self, region: Region[N], maps: IndexMaps[N], example: SizedGraph[N]) -> None:
        self._region = region
        self._maps = maps
        self._distinct: dict[N, bool] = {}
        self._digests: dict[N, int] = {}
        self._useless = 0
        self._frames: dict[tuple[object, tuple[int, ...]], int] = {}
        for index, node in enumerate(region.tensors):
            try:
                frame = (region.graph.dtype(node), example.shape(node))
            except UnknownValueError:
                continue  # A list of tensors.
            self._frames[frame] = self._frames.get(frame, 0) | 1 << index

    def of(self, node: N, moved: Tensor, rejected: Container[Base[N]]) -> Iterator[tuple[Base[N], Tensor]]:
        """What a node may be a shift of, with its index map, the furthest upstream first.

        Tensors with one index map at the example's sizes may differ at others, so each of them is given, but for those
        of which one is rejected.

        Args:
            node: A member of the region.
            moved: Its index map.
            rejected: Bases that the node is no shift of; read as the iteration goes on.
        """
        region = self._region
        wanted = tuple(moved.shape)
        similar = self._of_frames(node, lambda shape: _longer_axis(shape, wanted) is not None) & region.upstream(node)
        different: dict[object, Base[N]] = {}
        for candidate in region.first(similar & ~self._useless):
            base = self._as_base(candidate, moved)
            if base is not None:
                earlier = different.setdefault(self._digests.get(candidate, candidate), base[0])
                if earlier not in rejected:
                    yield base
                similar &= ~region.only(candidate)
            if len(different) == _MOST_BASES:
                break
        else:
            return
        nearest = []
        last: dict[object, Base[N]] = {}
        for candidate in region.last(similar & ~self._useless):
            base = self._as_base(candidate, moved)
            if base is not None:
                key = self._digests.get(candidate, candidate)
                last.setdefault(key, base[0])
                if different.get(key) not in rejected:
                    nearest.append(base)
            if len(last) == _MOST_BASES:
                break
        yield from reversed(nearest)

    def flat(self, node: N, moved: Tensor) -> Iterator[tuple[N, Tensor]]:
        """Tensors of as many elements, each once, in whatever shape; one for each order of elements.

        Args:
            node: A member of the region.
            moved: Its index map.
        """
        similar = self._of_frames(node, lambda shape: math.prod(shape) == moved.numel()) & ~self._useless
        orders: set[int] = set()
        for candidate in self._region.first(similar & self._region.upstream(node)):
            numbers = self._maps.of(candidate)
            if numbers is not None and self._is_distinct(candidate, numbers):
                order = digest(numbers.flatten())
                if order not in orders:
                    orders.add(order)
                    yield candidate, numbers
                if len(orders) == _MOST_BASES:
                    return

    def shapes(self, elements: int) -> list[tuple[int, ...]]:
        """Of the region's tensors of so many elements."""
        return [shape for _, shape in self._frames if math.prod(shape) == elements]

    def bordered(self, node: N, moved: Tensor) -> Iterator[N]:
        """Padded tensors of the same shape, which hold constants or elements twice, the furthest upstream first."""
        frame = (self._region.graph.dtype(node), tuple(moved.shape))
        for candidate in self._region.first(self._region.upstream(node) & self._frames.get(frame, 0) & self._useless):
            if candidate in self._region and self._region.graph.idiom(candidate) in ("pad", "concatenation"):
                yield candidate

    def named(self, node: N, base: Base[N], numbers: Tensor) -> Base[N]:
        """A window as the tensor of the graph that holds just it, where there is one."""
        if base.axis is None:
            return base
        frame = (self._region.graph.dtype(node), tuple(numbers.shape))
        for existing in self._region.first(self._region.upstream(node) & self._frames.get(frame, 0)):
            there = self._maps.of(existing)
            if there is not None and torch.equal(there, numbers):
                return Base(existing)
        return base

    def _of_frames(self, node: N, fits: Callable[[tuple[int, ...]], bool]) -> int:
        """The set of the tensors of a node's type and a shape that fits."""
        dtype, found = self._region.graph.dtype(node), 0
        for (other, shape), tensors in self._frames.items():
            if other == dtype and fits(shape):
                found |= tensors
        return found

    def _as_base(self, candidate: N, moved: Tensor) -> tuple[Base[N], Tensor] | None:
        """A tensor, or the window of one, whose elements are all different; None where there is none."""
        numbers = self._maps.of(candidate)
        if numbers is None:
            return None
        if numbers.shape == moved.shape:
            if not self._is_distinct(candidate, numbers):
                self._useless |= self._region.only(candidate)
                return None
            if candidate not in self._digests:
                self._digests[candidate] = digest(numbers)
            return Base(candidate), numbers
        base = _window(candidate, numbers, moved)
        if base is None or not (self._is_distinct(candidate, numbers) or all_distinct(base.of(numbers))):
            return None
        return base, base.of(numbers)

    def _is_distinct(self, node: N, numbers: Tensor) -> bool:
        if node not in self._distinct:
            self._distinct[node] = all_distinct(numbers)
        return self._distinct[node]


def _longer_axis(shape: tuple[int, ...], wanted: tuple[int, ...]) -> int | None:
    """The one axis along which a shape is longer than another; −1 where they are equal, None where they do not fit."""
    if len(shape) != len(wanted):
        return None
    axes = [axis for axis in range(len(shape)) if shape[axis] != wanted[axis]]
    if not axes:
        return -1
    return axes[0] if len(axes) == 1 and shape[axes[0]] > wanted[axes[0]] else None


def _window(node: N, numbers: Tensor, moved: Tensor) -> Base[N] | None:
    """The part of a tensor that has the other's shape and holds its elements; None where there is none."""
    axis = _longer_axis(tuple(numbers.shape), tuple(moved.shape))
    assert axis is not None
    most = int(moved.max())
    held_by = torch.zeros(max(most, ZERO) + 1, dtype=torch.bool)
    held_by[moved.clamp(min=ZERO).flatten()] = True
    held_by[ZERO] = False
    inside = held_by[numbers.clamp(ZERO, len(held_by) - 1)] & (numbers <= most)
    held = inside.movedim(axis, 0).flatten(1).any(1).nonzero().flatten()
    length = moved.shape[axis]
    if not len(held) or int(held[-1]) - int(held[0]) >= length:
        return None
    start = min(int(held[0]), numbers.shape[axis] - length)
    return Base(node, axis, start, length)
