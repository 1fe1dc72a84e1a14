"""Finding shifts in a graph by what they do.

Whoever wrote a shift as slice assignment, ``torch.roll``, ``cat`` of slices, an index table or a one-hot convolution
wrote the same index map. So no idiom is matched: each maximal region of pure data movement is run on element numbers
(:mod:`.index_maps`), tensors in it are compared with the tensors they are made of (:mod:`.match`), and the outermost
ones that are a grouped shift are reported; what follows another fixed rule and costs less in other operators is
reported too (:mod:`.movements`). The proof is equality of the index maps, at the example's sizes and, where sizes are
free, at others.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Generic

import torch
from torch import Tensor

from s2mlp_deploy.recognition.bases import BaseFinder
from s2mlp_deploy.recognition.claims import Claim, Proven, Prover, holds
from s2mlp_deploy.recognition.elsewhere import depends, elsewhere, free_axes, in_short
from s2mlp_deploy.recognition.frames import shifts_in_frames
from s2mlp_deploy.recognition.graph import (
    IDIOMS,
    ZERO,
    Graph,
    N,
    SizedGraph,
    UnknownValueError,
)
from s2mlp_deploy.recognition.index_maps import IndexMaps, digest
from s2mlp_deploy.recognition.match import NoShift, match_shifts, why_no_shift
from s2mlp_deploy.recognition.movements import MovementSearch
from s2mlp_deploy.recognition.regions import Region, find_regions, in_words
from s2mlp_deploy.recognition.results import Base, CopyMatch, NearMiss, Recognition, ShiftMatch, SmearMatch
from s2mlp_deploy.recognition.sampling import match_sampling
from s2mlp_deploy.recognition.sizes import SizeProof
from s2mlp_deploy.recognition.smear import Smear, match_smear
from s2mlp_deploy.shift.spec import ShiftSpec
from s2mlp_deploy.torch_internals import threads

LOG = logging.getLogger(__name__)

_BUDGET = 1 << 28
"""Bytes of index maps that are kept of a region at the example's sizes."""
_MOST_SMEARS = 16
"""Of the tensors of a region that are no shift so many are looked at, those that leave it first."""
_MOST_PADDED = 2
"""With so many padded tensors a tensor is compared that is a shift of nothing else."""
_OF_ROWS = ("index table", "mask", "roll")
"""Idioms by which rows of flattened images move."""
_MOST_IN_ROWS = 4
"""Of the tensors of a region that are no shift in their own shape so many are looked at as rows of images."""


def recognise(graph: Graph[N], *, repair_smears: bool = False) -> Recognition[N]:
    """Finds every grouped shift, and the other fixed movements that are written at too high a price.

    Args:
        graph: Functional: no operator writes into its arguments.
        repair_smears: Whether what an overlapping copy left of a shift counts as that shift.
    """
    # Thousands of operators on small tensors: on a busy machine, waiting for a second thread at the end of each one
    # took 40 times as long as the work (36 blocks written in place: 1.6 s alone, 71 s of CPU time with two threads).
    with threads(1):
        example = graph.at({})
        results = [_search(graph, members, example, repair_smears) for members in find_regions(graph)]
        results += [_sampling(graph, node) for node in graph.nodes]
    return Recognition(
        tuple(shift for result in results for shift in result.shifts),
        tuple(copy for result in results for copy in result.copies),
        tuple(sampling for result in results for sampling in result.samplings),
        tuple(movement for result in results for movement in result.movements),
        tuple(smear for result in results for smear in result.smears),
        tuple(miss for result in results for miss in result.near_misses),
    )


def _search(graph: Graph[N], members: list[N], example: SizedGraph[N], repair: bool) -> Recognition[N]:
    """A region's results. What goes wrong in one ends neither the export nor the search through the others."""
    try:
        return _Search(graph, members, example).run(repair=repair)
    except Exception as error:
        if not isinstance(error, UnknownValueError):
            # Any operator may fail on element numbers in a way of its own; a defect of ours must not hide among those.
            LOG.warning("the region that ends in %s could not be followed", graph.name(members[-1]), exc_info=True)
        reason = f"its elements could not be followed: {in_short(error)}"
        return Recognition(near_misses=(NearMiss(members[-1], reason, in_words(set(map(graph.idiom, members)))),))


def _sampling(graph: Graph[N], node: N) -> Recognition[N]:
    parts = graph.deformable(node)
    if parts is None:
        return Recognition()
    found = match_sampling(graph, node, parts)
    if isinstance(found, NoShift):
        return Recognition(near_misses=(NearMiss(node, found.reason, "deformable convolution"),))
    return Recognition(samplings=(found,))


class _Search(Generic[N]):
    """The search through one region."""

    def __init__(self, graph: Graph[N], members: Sequence[N], example: SizedGraph[N]) -> None:
        self._graph = graph
        self._region = Region(graph, members)
        self._maps = IndexMaps(self._region, example, budget=_BUDGET)
        self._example = example
        self._others = elsewhere(self._region, depends(graph, members))
        self._prover = Prover(self._region, self._others)
        self._bases = BaseFinder(self._region, self._maps, example)
        self._reasons: dict[N, str | Base[N]] = {}
        self._unlike: set[tuple[int, Base[N]]] = set()
        self._smears_tried = 0
        self._rows_tried = 0
        self._moves_rows = any(graph.idiom(member) in _OF_ROWS for member in members)

    def run(self, *, repair: bool = False) -> Recognition[N]:
        """Walks from the tensors that leave the region towards its inputs, up to the first shift on each way."""
        region, graph = self._region, self._graph
        shifts: dict[N, ShiftMatch[N]] = {}
        copies: dict[N, CopyMatch[N]] = {}
        smears: list[SmearMatch[N]] = []
        seen: set[N] = set()
        frontier = region.exits()
        while frontier:
            nodes = [n for n in dict.fromkeys(frontier) if n not in seen and n in region and graph.is_variable(n)]
            seen.update(nodes)
            frontier = []
            for node, found in self._compare(nodes).items():
                if isinstance(found, ShiftMatch):
                    shifts[node] = found
                    frontier.append(found.base.node)
                elif found is not None:
                    copies[node] = found
                    frontier.append(found.base.node)
                elif (smear := self._smear(node)) is not None:
                    smears.append(smear)
                    frontier.append(smear.base.node)
                    if repair:
                        parts = smear.smear.spec, smear.idiom, smear.sizes, smear.site
                        shifts[node] = ShiftMatch(node, smear.base, *parts)
                else:
                    frontier += region.carried(node)
        matches = {*shifts, *copies}
        stops = {node: found.base.node for node, found in shifts.items()}
        same = {node: found.base for node, found in copies.items()}
        movements = MovementSearch(region, self._example, self._others, stops, same).run()
        rewritten = {found.target for found in movements}
        # A slice of a shift is a shift of a slice too: one that is there anyway is not done twice.
        kept = [node for node in region.members if node in matches and not region.is_view_of(node, matches)]
        return Recognition(
            tuple(shifts[node] for node in kept if node in shifts),
            tuple(copies[node] for node in kept if node in copies and node not in rewritten),
            movements=movements,
            smears=tuple(smears),
            near_misses=self._near_misses(seen - matches, shifts, rewritten),
        )

    def _near_misses(
        self, seen: set[N], shifts: Mapping[N, object], rewritten: Collection[N]
    ) -> tuple[NearMiss[N], ...]:
        """The outermost tensors that move, are no shift, and are left as they were written."""
        region = self._region
        # Where a shift was found, what lies between it and the way out (a view, a stack) is no near miss.
        missed = [n for n in region.members if n in seen and n in self._reasons and not region.is_made_of(n, shifts)]
        inner = 0
        for node in missed:
            inner |= region.upstream(node)
        hidden = set(region.first(inner))
        misses = [NearMiss(n, self._reason(n), region.idiom(n, None)) for n in missed if n not in hidden]
        # A transposed or reshaped tensor is written as plainly as it can be.
        return tuple(miss for miss in misses if miss.idiom != "views" and not self._is_part_of(miss.target, rewritten))

    def _is_part_of(self, node: N, rewritten: Collection[N]) -> bool:
        """Whether a node, or what it is made of, or what is made of it is written in another way."""
        if node in rewritten or self._region.is_made_of(node, rewritten):
            return True
        return any(self._region.is_made_of(target, {node}) for target in rewritten)

    def _reason(self, node: N) -> str:
        reason = self._reasons[node]
        if isinstance(reason, str):
            return reason
        return why_no_shift(_known(self._maps.of(node)), reason.of(_known(self._maps.of(reason.node))))

    def _compare(self, nodes: Sequence[N]) -> dict[N, ShiftMatch[N] | CopyMatch[N] | None]:
        """Each node as a shift or a copy of the furthest tensor that it can be one of."""
        results: dict[N, ShiftMatch[N] | CopyMatch[N] | None] = {}
        waiting = {node: self._claims(node) for node in nodes}
        while waiting:
            claims: dict[N, Claim[N]] = {}
            for node, attempts in list(waiting.items()):
                claim = next(attempts, None)
                if claim is None:
                    results[node] = None
                    del waiting[node]
                else:
                    claims[node] = claim
            # All at once, so that each choice of sizes is run once and only one is in memory.
            for node, found in self._prover.prove(claims).items():
                if not isinstance(found, str):
                    results[node] = self._match(node, claims[node].base, found)
                    del waiting[node]
                elif claims[node].specs:
                    self._reasons.setdefault(node, found)
        return results

    def _match(self, node: N, base: Base[N], proven: Proven) -> ShiftMatch[N] | CopyMatch[N]:
        if proven.spec is None:
            return CopyMatch(node, base)
        idiom = self._region.idiom(node, base.node)
        shape = self._open_shape(node) if base.shape else ()
        return ShiftMatch(node, base, proven.spec, idiom, proven.sizes, self._site(node, base), shape)

    def _claims(self, node: N) -> Iterator[Claim[N]]:
        """What the node is at the example's sizes, the furthest base first."""
        moved = self._maps.of(node)
        if moved is None or not moved.numel():
            return
        rejected: set[Base[N]] = set()
        for base, numbers in self._bases.of(node, moved, rejected):
            if torch.equal(moved, numbers):
                named = self._bases.named(node, base, numbers)
                if self._region.idiom(node, named.node) in ("slices", "views"):
                    self._reasons.pop(node, None)
                    return  # Written as plainly as it can be.
                # Only what is no more than a relabelling here and everywhere else is dropped.
                yield Claim(named, ())
                continue
            # A chain of writes holds each of its tensors several times, as slices of everything.
            known = (digest(moved), base)
            specs = () if known in self._unlike else match_shifts(moved, numbers)
            if specs:
                yield Claim(self._bases.named(node, base, numbers), specs)
            else:
                self._unlike.add(known)
                rejected.add(base)
                self._reasons.setdefault(node, base)
        for padded in itertools.islice(self._bases.bordered(node, moved), _MOST_PADDED):
            specs = self._shifts_of_padded(node, padded)
            if specs:
                yield Claim(Base(padded), specs)
        yield from self._shifts_of_rows(node, moved)

    def _shifts_of_rows(self, node: N, moved: Tensor) -> Iterator[Claim[N]]:
        """What a node is as a shift of images of which it holds the rows."""
        if not self._moves_rows or self._rows_tried >= _MOST_IN_ROWS or not self._open_shape(node):
            return
        if all(self._graph.idiom(member) not in _OF_ROWS for member in self._region.between(node, None)):
            return
        self._rows_tried += 1
        known = self._bases.shapes(moved.numel())
        for candidate, numbers in self._bases.flat(node, moved):
            for frame, specs in shifts_in_frames(moved, numbers, known):
                yield Claim(Base(candidate, shape=frame), specs)

    def _open_shape(self, node: N) -> tuple[int, ...]:
        """The shape of a tensor with -1 for the size that is free; empty where there are several or it is not known."""
        try:
            free = free_axes(self._graph, node)
        except UnknownValueError:
            return ()
        sizes = (-1 if axis in free else n for axis, n in enumerate(self._example.shape(node)))
        return tuple(sizes) if len(free) < 2 else ()

    def _shifts_of_padded(self, node: N, padded: N) -> tuple[ShiftSpec, ...]:
        """What a node is as a shift of a tensor that holds constants or elements twice: those get numbers too."""
        part = Region(self._graph, self._region.between(node, padded))
        maps = IndexMaps(part, self._example, budget=_BUDGET)
        specs = match_shifts(_known(maps.of(node)), _known(maps.of(padded)))
        # The proof is the equality of the region's own index maps, as for all others.
        whole, moved = self._maps.of(padded), self._maps.of(node)
        return tuple(spec for spec in specs if holds(Base(padded), spec, moved, whole))

    def _smear(self, node: N) -> SmearMatch[N] | None:
        """The node as what an overlapping copy left of a shift."""
        moved = self._maps.of(node)
        if moved is None or not moved.numel() or self._smears_tried >= _MOST_SMEARS:
            return None
        self._smears_tried += 1
        for base, numbers in itertools.islice(self._bases.of(node, moved, ()), 1):
            found = match_smear(moved, numbers) if base.axis is None else None
            if found is None:
                continue
            dependence = depends(self._graph, self._region.between(node, base.node))
            proof = SizeProof(self._graph.free_sizes, dependence.turns)
            for other in self._others if dependence.problem is None else ():
                maps = other.maps()
                if isinstance(maps, str):
                    continue
                try:
                    left, wanted = _known(maps.of(base.node)), _known(maps.of(node))
                except (UnknownValueError, RuntimeError, ValueError, IndexError, ZeroDivisionError, MemoryError):
                    continue  # The code does not work at this size.
                if not _is_left_by(found, left, wanted):
                    break
                proof.confirm(other.choice, other.dull)
            else:
                if dependence.problem is None and not proof.unproven:
                    idiom = self._region.idiom(node, base.node)
                    return SmearMatch(node, base, found, idiom, proof.count, self._site(node, base))
        return None

    def _site(self, node: N, base: Base[N]) -> N:
        """The node whose line shows the idiom best: the first typical one that moves only elements of the base.

        In-place code on the pieces of a chunk writes into one tensor in turn, and what was written for another piece
        lies between a piece and its base.
        """
        elements = base.of(_known(self._maps.of(base.node)))
        most = int(elements.max())
        own = torch.zeros(most + 1, dtype=torch.bool)
        own[elements.flatten()] = True
        own[ZERO] = True
        typical = self._typical(self._region.between(node, base.node))
        for member in typical:
            numbers = self._maps.of(member)
            if numbers is None or (numbers.numel() and not ZERO <= int(numbers.min()) <= int(numbers.max()) <= most):
                continue
            if bool(own[numbers].all()):
                return member
        return typical[0] if typical else node

    def _typical(self, members: Sequence[N]) -> list[N]:
        """Members that use an idiom, those with the most telling one first."""
        words = [(self._graph.idiom(member), member) for member in members]
        return [member for idiom in IDIOMS for word, member in words if word == idiom]


def _is_left_by(smear: Smear, whole: Tensor, wanted: Tensor) -> bool:
    """Whether a tensor is what that copy leaves of its base."""
    try:
        return torch.equal(smear.of(whole), wanted)
    except (RuntimeError, ValueError, IndexError):
        return False


def _known(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor
