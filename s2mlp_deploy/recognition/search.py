"""Finding shifts in a captured graph by what they do.

Whoever wrote a shift as slice assignment, ``torch.roll``, ``cat`` of slices, an index table or a one-hot convolution
wrote the same map of cells. So no idiom is matched: each maximal region of pure data movement is run on cell numbers
(:mod:`.movement`), every tensor in it is compared with the tensors it came from (:mod:`.judge`), and the outermost ones
that are a grouped shift are reported. The proof is equality of the maps, at the example's sizes and, where sizes are
dynamic, at others.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.fx import Graph, Node

from s2mlp_deploy.recognition.match import NoShift, match_shifts
from s2mlp_deploy.recognition.movement import Sizes, dtype, is_movement, move, packet, tensor_inputs, varying, viewed
from s2mlp_deploy.recognition.results import Base, CopyMatch, NearMiss, Recognition, ShiftMatch
from s2mlp_deploy.recognition.sampling import is_deformable, read_sampling
from s2mlp_deploy.shift.op import shift
from s2mlp_deploy.shift.spec import ShiftSpec

LOG = logging.getLogger(__name__)


def recognise(graph: Graph, sizes: Sequence[Sizes]) -> Recognition:
    """Finds every grouped shift.

    Args:
        graph: Functional: no operator writes into its arguments.
        sizes: Concrete sizes to judge at; the first are the example's, the others confirm.
    """
    threads = torch.get_num_threads()
    # Thousands of operators on small tensors: on a busy machine, waiting for a second thread at the end of each one
    # took 40 times as long as the work (36 blocks written in place: 1.6 s alone, 71 s of CPU time with two threads).
    torch.set_num_threads(1)
    try:
        reached = varying(graph, sizes[0])
        results = [_search(region, sizes, reached) for region in _regions(graph, sizes[0])]
        results += [_sampling(node, sizes) for node in graph.nodes if is_deformable(node)]
    finally:
        torch.set_num_threads(threads)
    return Recognition(
        tuple(shift for result in results for shift in result.shifts),
        tuple(copy for result in results for copy in result.copies),
        tuple(sampling for result in results for sampling in result.samplings),
        tuple(miss for result in results for miss in result.near_misses),
    )


def _search(nodes: list[Node], sizes: Sequence[Sizes], reached: set[Node]) -> Recognition:
    """A region's results. What goes wrong in one ends neither the export nor the search through the others."""
    try:
        return _Region(nodes, sizes, reached).search()
    except Exception as error:
        LOG.debug("the region that ends in %s could not be followed", nodes[-1].name, exc_info=True)
        message = next(iter(str(error).strip().splitlines()), "")
        reason = f"its cells could not be followed: {type(error).__name__}: {message}"
        return Recognition(near_misses=(NearMiss(nodes[-1], reason, _in_words(set(map(_operator, nodes)))),))


def _sampling(node: Node, sizes: Sequence[Sizes]) -> Recognition:
    found = read_sampling(node, sizes)
    if isinstance(found, NoShift):
        return Recognition(near_misses=(NearMiss(node, found.reason, "deformable convolution"),))
    return Recognition(samplings=(found,))


def _regions(graph: Graph, sizes: Sizes) -> Iterator[list[Node]]:
    """Maximal connected sets of movement nodes, in the graph's order."""
    leader: dict[Node, Node] = {}

    def find(node: Node) -> Node:
        while leader[node] is not node:
            leader[node] = leader[leader[node]]
            node = leader[node]
        return node

    for node in graph.nodes:
        if is_movement(node, sizes):
            leader[node] = node
            for source in tensor_inputs(node, sizes):
                if source in leader:
                    leader[find(node)] = find(source)
    members: dict[Node, list[Node]] = {}
    for node in leader:
        members.setdefault(find(node), []).append(node)
    yield from members.values()


class _Numbered:
    """The cell numbers of a region's tensors at one choice of sizes."""

    def __init__(self, nodes: Iterable[Node], sizes: Sizes) -> None:
        self.sizes = sizes
        self.numbers: dict[Node, object] = {}
        self._next = 1
        for node in nodes:
            self.numbers[node] = move(node, sizes, self._of)

    def _of(self, node: Node) -> Tensor:
        if node not in self.numbers:
            # A tensor that enters the region: number its cells.
            shape = self.sizes.shapes[node]
            count = 1
            for size in shape:
                count *= size
            self.numbers[node] = torch.arange(self._next, self._next + count, dtype=torch.float64).reshape(shape)
            self._next += count
        return self.numbers[node]  # type: ignore[return-value]  # a list only for split, which getitem unpacks

    def tensor(self, node: Node) -> Tensor | None:
        numbers = self.numbers.get(node)
        return numbers if isinstance(numbers, Tensor) else None


class _Region:
    """The search through one region."""

    def __init__(self, nodes: list[Node], sizes: Sequence[Sizes], reached: set[Node]) -> None:
        self.nodes = nodes
        self.members = set(nodes)
        self.reached = reached
        self.sizes = sizes
        self.at_example = _Numbered(nodes, sizes[0])
        self._elsewhere: list[_Numbered | None] | None = None

    def search(self) -> Recognition:
        """Walks from the tensors that leave the region towards its sources, up to the first shift on each way."""
        found: dict[Node, ShiftMatch | CopyMatch] = {}
        misses: dict[Node, NoShift] = {}
        pending = [node for node in self.nodes if any(user not in self.members for user in node.users)]
        seen: set[Node] = set()
        while pending:
            node = pending.pop()
            if node in seen or node not in self.members or node not in self.reached:
                continue
            seen.add(node)
            verdict = self._match(node)
            if isinstance(verdict, (ShiftMatch, CopyMatch)):
                found[node] = verdict
                pending.append(verdict.base.node)
                continue
            if verdict is not None:
                misses[node] = verdict
            pending += tensor_inputs(node, self.sizes[0])
        # A slice of a shift is a shift of a slice too: one that is there anyway is not done twice.
        found = {node: verdict for node, verdict in found.items() if not _shows_one_of(node, found)}
        # Where a shift was found, what lies between it and the way out (a view, a stack) is no near miss.
        kept = {n: miss for n, miss in misses.items() if not self._reaches(n, set(found))}
        outermost = {n: miss for n, miss in kept.items() if not any(u in kept for u in self._users_inside(n))}
        return Recognition(
            tuple(item for item in found.values() if isinstance(item, ShiftMatch)),
            tuple(item for item in found.values() if isinstance(item, CopyMatch)),
            near_misses=tuple(NearMiss(n, miss.reason, self._idiom(n, None)) for n, miss in outermost.items()),
        )

    def _users_inside(self, node: Node) -> set[Node]:
        reached: set[Node] = set()
        pending = [user for user in node.users if user in self.members]
        while pending:
            user = pending.pop()
            if user not in reached:
                reached.add(user)
                pending += [further for further in user.users if further in self.members]
        return reached

    def _upstream(self, node: Node) -> list[Node]:
        """Everything the node is made from, sources of the region first."""
        order: list[Node] = []
        seen: set[Node] = set()
        pending = [(node, False)]
        while pending:
            current, done = pending.pop()
            if done:
                order.append(current)
            elif current not in seen:
                seen.add(current)
                pending.append((current, True))
                if current in self.members:
                    pending += [(source, False) for source in tensor_inputs(current, self.sizes[0])]
        return order[:-1]

    def _reaches(self, node: Node, targets: set[Node]) -> bool:
        return any(upstream in targets for upstream in self._upstream(node))

    def _match(self, node: Node) -> ShiftMatch | CopyMatch | NoShift | None:
        """The node as a shift of the furthest tensor that it can be a shift of."""
        moved = self.at_example.tensor(node)
        if moved is None or moved.numel() == 0:
            return None
        reasons: list[NoShift] = []
        for base, numbers in self._bases(node, moved):
            if torch.equal(moved, numbers):
                if self._idiom(node, base.node) in ("slices", "views"):
                    return None  # written as plainly as it can be
                # Only what is no more than a relabelling here and everywhere else is dropped.
                if self._confirm(node, base, None):
                    return CopyMatch(node, base)
                continue
            specs = match_shifts(moved, numbers)
            if isinstance(specs, NoShift):
                reasons.append(specs)
                continue
            for spec in specs:
                confirmed = self._confirm(node, base, spec)
                if confirmed:
                    return ShiftMatch(node, base, spec, self._idiom(node, base.node), confirmed, self._site(node, base))
            reasons.append(NoShift("at another input size the same code moves cells differently"))
        return reasons[0] if reasons else None

    def _bases(self, node: Node, moved: Tensor) -> Iterator[tuple[Base, Tensor]]:
        """What the tensor may be a shift of, the furthest upstream first."""
        upstream = self._upstream(node)
        for candidate in upstream:
            numbers = self.at_example.tensor(candidate)
            if numbers is None or numbers.dim() != moved.dim() or dtype(candidate) != dtype(node):
                continue
            base = _window(candidate, numbers, moved)
            if base is None:
                continue
            window = base.of(numbers)
            if not _distinct(window):
                continue
            if base.axis is not None:
                for existing in upstream:
                    there = self.at_example.tensor(existing)
                    if there is not None and there.shape == window.shape and torch.equal(there, window):
                        base = Base(existing)
                        break
            yield base, window

    def _confirm(self, node: Node, base: Base, spec: ShiftSpec | None) -> int:
        """At how many sizes the map is the spec's (None: a copy); 0 where one contradicts."""
        if self._elsewhere is None:
            self._elsewhere = [self._number(sizes) for sizes in self.sizes[1:]]
        confirmed = 1
        for numbered in self._elsewhere:
            if numbered is None:
                continue
            moved, whole = numbered.tensor(node), numbered.tensor(base.node)
            if moved is None or whole is None:
                return 0
            if base.axis is not None and base.start + base.length > whole.shape[base.axis]:
                return 0  # the window lies along an axis whose size is free
            numbers = base.of(whole)
            if numbers.shape != moved.shape:
                return 0
            if spec is not None and numbers.shape[spec.channel_axis] != spec.channels:
                return 0  # the "channels" are an axis whose size is free
            if moved.numel() and not torch.equal(shift(numbers, spec) if spec else numbers, moved):
                return 0
            confirmed += 1
        return confirmed

    def _number(self, sizes: Sizes) -> _Numbered | None:
        try:
            return _Numbered(self.nodes, sizes)
        except (RuntimeError, IndexError, ValueError, ZeroDivisionError):
            # The code itself does not work at this size: reflection padding of one cell, or a batch of no whole clip.
            return None

    def _between(self, node: Node, base: Node | None) -> list[Node]:
        """The members that the node is made of, down to its base, in the graph's order."""
        pending, seen = [node], {base}
        between: set[Node] = set()
        while pending:
            current = pending.pop()
            if current in seen or current not in self.members:
                continue
            seen.add(current)
            between.add(current)
            pending += tensor_inputs(current, self.sizes[0])
        return [member for member in self.nodes if member in between]

    def _idiom(self, node: Node, base: Node | None) -> str:
        """What the region between two tensors is made of."""
        return _in_words({_operator(member) for member in self._between(node, base)})

    def _site(self, node: Node, base: Base) -> Node:
        """The node whose line shows the idiom best: the first typical one that moves only cells of the base.

        In-place code on the pieces of a chunk writes into one tensor in turn, and what was written for another piece
        lies between a piece and its base.
        """
        between = self._between(node, base.node)
        whole = self.at_example.tensor(base.node)
        assert whole is not None
        cells = torch.cat([base.of(whole).flatten(), torch.zeros(1, dtype=whole.dtype)])
        typical = [member for names, _ in _WORDS for member in between if _operator(member) in names]
        for member in typical:
            numbers = self.at_example.tensor(member)
            if numbers is not None and bool(torch.isin(numbers.contiguous(), cells).all()):
                return member
        return typical[0] if typical else node


def _shows_one_of(node: Node, targets: Container[Node]) -> bool:
    """Whether a node is a view of one of them."""
    source = viewed(node)
    while source is not None:
        if source in targets:
            return True
        source = viewed(source)
    return False


def _window(node: Node, numbers: Tensor, moved: Tensor) -> Base | None:
    """The part of a tensor that has the other's shape and holds its cells; None where there is none."""
    shorter = [axis for axis in range(moved.dim()) if moved.shape[axis] != numbers.shape[axis]]
    if not shorter:
        return Base(node)
    if len(shorter) > 1 or moved.shape[shorter[0]] > numbers.shape[shorter[0]]:
        return None
    axis, length = shorter[0], moved.shape[shorter[0]]
    held = (
        torch.isin(numbers.contiguous(), moved.contiguous())
        .movedim(axis, 0)
        .reshape(numbers.shape[axis], -1)
        .any(1)
        .nonzero()
        .flatten()
    )
    if not len(held) or int(held[-1]) - int(held[0]) >= length:
        return None
    start = min(int(held[0]), numbers.shape[axis] - length)
    return Base(node, axis, start, length)


def _distinct(numbers: Tensor) -> bool:
    """Whether every cell is another one, and none a constant."""
    flat = numbers.flatten()
    return bool((flat > 0).all()) and torch.unique(flat).numel() == flat.numel()


_WORDS = (
    ({"slice_scatter", "select_scatter", "index_put", "copy"}, "slice assignment"),
    ({"roll"}, "roll"),
    ({"conv1d", "conv2d", "conv3d", "convolution"}, "one-hot convolution"),
    ({"index", "index_select", "gather", "_unsafe_index"}, "index table"),
    ({"where"}, "mask"),
    ({"flip"}, "flip"),
    ({"pad", "constant_pad_nd"} | {f"{m}_pad{d}d" for m in ("replication", "reflection") for d in (1, 2, 3)}, "pad"),
    ({"cat", "stack"}, "concatenation"),
    ({"slice", "narrow", "select", "split", "split_with_sizes", "chunk", "unbind"}, "slices"),
)


def _operator(node: Node) -> str:
    return str(getattr(packet(node), "__name__", "getitem"))


def _in_words(operators: set[str]) -> str:
    words = [word for names, word in _WORDS if names & operators]
    if "slice assignment" in words:
        words = [word for word in words if word != "slices"]
    return ", ".join(words) or "views"
