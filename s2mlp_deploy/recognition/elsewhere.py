"""A region at other sizes than the example's: which ones are compared, and its index maps there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic

from s2mlp_deploy.recognition.graph import Graph, N, SizeDependence, SizedGraph, UnknownValueError
from s2mlp_deploy.recognition.index_maps import IndexMaps
from s2mlp_deploy.recognition.regions import Region
from s2mlp_deploy.recognition.sizes import Choice, other_sizes

_BUDGET = 1 << 26
"""Bytes of index maps that are kept of a region at each choice of other sizes."""
_FEWEST = 3
"""One or two elements hardly move."""
_MAX_ELEMENTS = 1 << 25
"""A choice of other sizes at which more elements than this enter a region is not tried: 128 MiB of numbers."""

_Axes = Sequence[tuple[N, int]]
"""Axes of the tensors that enter a region."""


class Elsewhere(Generic[N]):
    """A region at one choice of other sizes.

    Args:
        region: The region.
        choice: The sizes.
        axes: For each free size the axes of what enters the region that depend on it.
    """

    def __init__(self, region: Region[N], choice: Choice, axes: Mapping[str, _Axes[N]]) -> None:
        self.choice = choice
        self._region = region
        self._axes = axes
        self._maps: IndexMaps[N] | str | None = None
        self.dull: frozenset[str] = frozenset()
        """Free sizes whose axes hold too few elements here to say anything; known with the maps."""

    def maps(self) -> IndexMaps[N] | str:
        """The region's index maps there, or why there are none."""
        if self._maps is None:
            try:
                graph = self._region.graph.at(self.choice.sizes)
                self.dull = frozenset(name for name, axes in self._axes.items() if _shortest(graph, axes) < _FEWEST)
                self._maps = IndexMaps(self._region, graph, budget=_BUDGET)
                if self._maps.elements > _MAX_ELEMENTS:
                    self._maps = f"{self._maps.elements} elements are too many to compare"
            except UnknownValueError as error:
                self._maps = in_short(error)
        return self._maps

    def forget(self) -> None:
        """Frees the index maps: those around many sizes would not fit side by side."""
        self._maps = None


def elsewhere(region: Region[N], dependence: SizeDependence) -> list[Elsewhere[N]]:
    """The region at every choice of sizes at which findings in it are compared; empty where no size is free.

    Args:
        region: The region.
        dependence: Where the rule of its movement may change.
    """
    axes = _free_axes(region)

    def elements(name: str, value: int) -> int:
        if not axes[name]:
            return value
        try:
            return _shortest(region.graph.at({name: value}), axes[name])
        except UnknownValueError:
            return 0  # No such size: a batch that is no whole clip, for example.

    return [Elsewhere(region, choice, axes) for choice in other_sizes(region.graph.free_sizes, dependence, elements)]


def depends(graph: Graph[N], members: Sequence[N]) -> SizeDependence:
    """Where a movement has to be compared; nowhere in particular where no size is free."""
    return graph.size_dependence(members) if graph.free_sizes else SizeDependence()


def in_short(error: BaseException) -> str:
    """The kind of an error and the first line of what it says."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"


def free_axes(graph: Graph[N], node: N) -> frozenset[int]:
    """The axes of a tensor whose sizes depend on free sizes.

    Raises:
        UnknownValueError: The graph cannot be run at another size.
    """
    found: set[int] = set()
    here = graph.at({}).shape(node)
    for size in graph.free_sizes:
        other = size.max if size.example != size.max else size.min
        there = graph.at({size.name: other}).shape(node)
        found |= {axis for axis, pair in enumerate(zip(here, there, strict=True)) if pair[0] != pair[1]}
    return frozenset(found)


def _free_axes(region: Region[N]) -> dict[str, _Axes[N]]:
    graph = region.graph
    axes: dict[str, _Axes[N]] = {}
    for size in graph.free_sizes:
        other = size.max if size.example != size.max else size.min
        here, there = graph.at({}), graph.at({size.name: other})
        found: list[tuple[N, int]] = []
        for entry in region.entries:
            try:
                pairs = zip(here.shape(entry), there.shape(entry), strict=True)
                found += [(entry, axis) for axis, (a, b) in enumerate(pairs) if a != b]
            except UnknownValueError:
                continue
        axes[size.name] = found
    return axes


def _shortest(graph: SizedGraph[N], axes: _Axes[N]) -> int:
    """How many elements the shortest of some axes holds; many where there is none."""
    return min((graph.shape(node)[axis] for node, axis in axes), default=_FEWEST)
