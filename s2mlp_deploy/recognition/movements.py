"""Movements that are no shift and follow a fixed rule: those that cost less in other operators.

What lies between a tensor that leaves a region and the region's inputs (or the shifts in it) is one index map. Where
plain steps have the same map (:mod:`.fixed`), here and at other sizes, and cost less than the operators that would go,
they take their place. Single windows, transposes and concatenations are left alone: they are as plain as can be.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Generic

import torch
from torch import Tensor

from s2mlp_deploy.recognition.cost import Cost, copying
from s2mlp_deploy.recognition.elsewhere import Elsewhere, free_axes
from s2mlp_deploy.recognition.fixed import Entry, find_plan
from s2mlp_deploy.recognition.graph import IDIOMS, Graph, N, SizeDependence, SizedGraph, UnknownValueError
from s2mlp_deploy.recognition.index_maps import IndexMaps
from s2mlp_deploy.recognition.plan import Plan, cost, run
from s2mlp_deploy.recognition.regions import Region, in_words
from s2mlp_deploy.recognition.results import Base, MovementMatch
from s2mlp_deploy.recognition.sizes import SizeProof
from s2mlp_deploy.shift.origin import CONVOLUTION

LOG = logging.getLogger(__name__)

_COSTLY = ("slice assignment", "index table", "mask", CONVOLUTION)
"""Idioms that are looked at: all others are written as plainly as they can be."""
_BUDGET = 1 << 28
_MOST_TRIED = 8
"""Tensors of a region, from its exits inwards."""
_MOST_FOLLOWED = 1 << 11
"""Members of a region that are followed, over all of its tensors that are tried: chains of thousands cost minutes."""
_GAIN = 0.8
"""The share of the cost that may be left. Costs are a model: what gains less may lose."""
_FAILURES = (UnknownValueError, RuntimeError, ValueError, IndexError, ZeroDivisionError, MemoryError)


class MovementSearch(Generic[N]):
    """The search through one region, after its shifts.

    Args:
        region: The region.
        example: Its graph at the example's sizes.
        others: The region at other sizes.
        stops: Tensors that become a shift of another, each with that other one.
        copies: Tensors that become another one, or a window of it, each with that.
    """

    def __init__(
        self,
        region: Region[N],
        example: SizedGraph[N],
        others: Sequence[Elsewhere[N]],
        stops: Mapping[N, N],
        copies: Mapping[N, Base[N]],
    ) -> None:
        self._region = region
        self._graph: Graph[N] = region.graph
        self._example = example
        self._others = others
        self._stops = stops
        self._copies = copies
        self._same = {node: base.node for node, base in copies.items() if base.axis is None}
        self._free: dict[N, frozenset[int]] = {}
        self._users: dict[N, Sequence[N]] = {}
        self._costly: set[N] | None = None

    def run(self) -> tuple[MovementMatch[N], ...]:
        """Walks from the tensors that leave the region towards its inputs, up to the first movement on each way."""
        if not any(self._graph.idiom(member) in _COSTLY for member in self._region.members):
            return ()
        found: list[MovementMatch[N]] = []
        seen: set[N] = set()
        frontier, tried = self._region.exits(), 0
        most = min(_MOST_TRIED, max(1, _MOST_FOLLOWED // len(self._region.members)))
        while frontier:
            node = frontier.pop(0)
            if node in seen or node not in self._region or not self._graph.is_variable(node):
                continue
            seen.add(node)
            if node in self._stops or node in self._same:
                frontier.append(self._stops[node] if node in self._stops else self._same[node])
            elif tried >= most or not self._is_costly(node):
                frontier += self._region.carried(node)
            else:
                tried += 1
                match = self._movement(node)
                if match is None:
                    frontier += self._region.carried(node)
                else:
                    found.append(match)
                    frontier += match.sources
        return tuple(found)

    def _movement(self, node: N) -> MovementMatch[N] | None:
        """The best way to write a tensor or what it shows in another shape; None where none is better than what is."""
        inner = node
        while (shown := self._shown(inner)) is not None and shown in self._region:
            if shown in self._stops or shown in self._same:
                break
            inner = shown
        # What is viewed may have a free size of its own that the view hides, and what views it a cheaper order of axes.
        found = [self._best(target) for target in dict.fromkeys((node, inner))]
        return max((each for each in found if each), key=lambda each: each[0], default=(0.0, None))[1]

    def _shown(self, node: N) -> N | None:
        """The tensor that a node shows whole, in another shape or order."""
        source = self._graph.viewed(node)
        if source is None:
            return None
        try:
            same = torch.Size(self._example.shape(node)).numel() == torch.Size(self._example.shape(source)).numel()
        except UnknownValueError:
            return None
        return source if same and self._graph.idiom(node) in (None, "slices") else None

    def _is_costly(self, node: N) -> bool:
        """Whether something costly computes a tensor, its shifts and copies aside."""
        if self._costly is None:
            self._costly, stops = set(), {*self._stops, *self._copies}
            for member in self._region.members:
                above = (source in self._costly and source not in stops for source in self._region.carried(member))
                if self._graph.idiom(member) in _COSTLY or any(above):
                    self._costly.add(member)
        return node in self._costly

    def _standing(self, target: N) -> list[N]:
        """What computes a tensor once shifts and copies are written: what it would be measured against."""
        return self._between(target, {*self._stops, *self._copies})

    def _between(self, target: N, stops: Collection[N]) -> list[N]:
        """The members that a target is made of, itself and down to the stops, in the graph's order."""
        pending, found = [target], set[N]()
        while pending:
            node = pending.pop()
            if node in self._region and node not in found and (node is target or node not in stops):
                found.add(node)
                pending += self._region.carried(node)
        return self._region.in_order(found)

    def _best(self, target: N) -> tuple[float, MovementMatch[N]] | None:
        """What is gained at most, and how."""
        best: tuple[float, MovementMatch[N]] | None = None
        tried: list[list[N]] = []
        # Of what a view of an input is made of, and of the input itself: a transpose may be part of the movement.
        for stops in ({*self._stops, *self._views_of_inputs()}, set(self._stops)):
            members = self._between(target, stops)
            if members in tried:
                continue
            tried.append(members)
            try:
                found = self._rewritten(target, members)
            except Exception as error:
                # What goes wrong here leaves the movement as it was written; a defect of ours must not hide in that.
                level = logging.DEBUG if isinstance(error, _FAILURES) else logging.WARNING
                LOG.log(level, "%s cannot be written in another way", self._graph.name(target), exc_info=True)
                continue
            if found is not None and (best is None or found[0] > best[0]):
                best = found
        return best

    def _views_of_inputs(self) -> set[N]:
        found: set[N] = set()
        for member in self._region.members:
            source = self._shown(member)
            if source is not None and (source in found or source not in self._region or source in self._stops):
                found.add(member)
        return found

    def _rewritten(self, target: N, members: Sequence[N]) -> tuple[float, MovementMatch[N]] | None:
        """What is gained by other operators, and which; None where nothing is."""
        part = Region(self._graph, members)
        dies = self._dying(target)
        if not any(self._graph.idiom(node) in _COSTLY for node in dies):
            return None
        before = sum((self._example.cost(node) for node in dies), Cost())
        windows = {n for node in dies for n in self._region.carried(node) if n in self._copies and n not in self._same}
        before = sum((copying(self._example.shape(node)) for node in windows), before)
        maps = IndexMaps(part, self._example, budget=_BUDGET)
        moved = maps.of(target)
        if moved is None or len({self._graph.dtype(node) for node in (target, *part.entries)}) != 1:
            return None
        shapes = [self._example.shape(entry) for entry in part.entries]
        numbers = [maps.of(entry) for entry in part.entries]
        entries = [
            Entry(each, self._free_axes(entry))
            for entry, each in zip(part.entries, numbers, strict=True)
            if each is not None and each.numel()
        ]
        if len(entries) != len(part.entries) or not entries:
            return None
        plan = find_plan(moved, entries, self._free_axes(target))
        if plan is None:
            return None
        after = cost(plan, shapes).microseconds
        if after > _GAIN * before.microseconds:
            return None
        if not torch.equal(run(plan, [entry.numbers for entry in entries]), moved):
            return None
        proven = self._proven(target, part.entries, plan, members)
        if isinstance(proven, str):
            LOG.debug("%s: %s", self._graph.name(target), proven)
            return None
        words = {self._graph.idiom(member) for member in members}
        typical = next((m for word in IDIOMS for m in members if self._graph.idiom(m) == word), target)
        match = MovementMatch(target, tuple(part.entries), plan, in_words(words), proven, typical)
        return before.microseconds - after, match

    def _dying(self, target: N) -> list[N]:
        """The members that nobody reads once the target is written in another way."""
        dead = {target, *self._copies}
        for member in reversed(self._region.members):
            if member not in self._users:
                self._users[member] = self._graph.users(member)
            if member not in dead and all(user in dead for user in self._users[member]):
                dead.add(member)
        return [member for member in self._standing(target) if member in dead]

    def _proven(self, target: N, sources: Sequence[N], plan: Plan, members: Sequence[N]) -> int | str:
        """At how many sizes the plan has the target's index map; or why that is not known at all of them."""
        free = self._graph.free_sizes
        if not free:
            return 1
        depends: SizeDependence = self._graph.size_dependence(members)
        if depends.problem is not None:
            return depends.problem
        proof = SizeProof(free, depends.turns)
        for other in self._others:
            maps = other.maps()
            if not isinstance(maps, str):
                try:
                    wanted, given = maps.of(target), [maps.of(source) for source in sources]
                except _FAILURES:
                    LOG.debug("%s cannot be run at %s", self._graph.name(target), other.choice.sizes, exc_info=True)
                else:
                    # Where the code works and the steps do not, they are not the same.
                    if wanted is None or not _has_map(plan, given, wanted):
                        return "at another input size the same code moves elements differently"
                    proof.confirm(other.choice, other.dull)
            if other.choice.turn is not None:
                other.forget()
        return f"it could not be compared at another {', '.join(proof.unproven)}" if proof.unproven else proof.count

    def _free_axes(self, node: N) -> frozenset[int]:
        """The axes of a tensor whose sizes depend on free sizes.

        Raises:
            UnknownValueError: The graph cannot be run at another size.
        """
        if node not in self._free:
            self._free[node] = free_axes(self._graph, node)
        return self._free[node]


def _has_map(plan: Plan, sources: Sequence[Tensor | None], wanted: Tensor) -> bool:
    """Whether steps move the elements of their sources to where they are wanted."""
    try:
        return torch.equal(run(plan, [source for source in sources if source is not None]), wanted)
    except (RuntimeError, ValueError, IndexError):
        return False  # They do not fit these sizes.
