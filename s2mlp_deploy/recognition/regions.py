"""Regions of pure data movement, and who is made of whom in one."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Generic

from s2mlp_deploy.recognition.graph import IDIOMS, Graph, N


def find_regions(graph: Graph[N]) -> Iterator[list[N]]:
    """Maximal connected sets of movement nodes, each in the graph's order."""
    leader: dict[N, N] = {}

    def find(node: N) -> N:
        while leader[node] != node:
            leader[node] = leader[leader[node]]
            node = leader[node]
        return node

    for node in graph.nodes:
        if graph.is_movement(node):
            leader[node] = node
            for source in graph.carried(node):
                if source in leader:
                    leader[find(node)] = find(source)
    members: dict[N, list[N]] = {}
    for node in leader:
        members.setdefault(find(node), []).append(node)
    yield from members.values()


class Region(Generic[N]):
    """A region's nodes and the tensors that enter it.

    Sets of its tensors are integers, one bit a tensor, so that a region of thousands of nodes costs no more than a
    few operations on integers for each.

    Attributes:
        members: Its movement nodes, in the graph's order.
        entries: The tensors that enter it.
        tensors: The entries, then the members: what a member is made of comes before it.
    """

    def __init__(self, graph: Graph[N], members: Sequence[N]) -> None:
        self.graph = graph
        self.members = members
        self._carried = {member: tuple(graph.carried(member)) for member in members}
        self.entries = list(dict.fromkeys(s for sources in self._carried.values() for s in sources if s not in self))
        self.tensors: list[N] = [*self.entries, *members]
        self._index = {node: index for index, node in enumerate(self.tensors)}
        self._upstream: list[int] = [0] * len(self.tensors)
        for member, sources in self._carried.items():
            for source in sources:
                index = self._index[source]
                self._upstream[self._index[member]] |= self._upstream[index] | 1 << index

    def __contains__(self, node: object) -> bool:
        return node in self._carried

    def exits(self) -> list[N]:
        """Members that something outside the region reads."""
        return [node for node in self.members if any(user not in self for user in self.graph.users(node))]

    def carried(self, member: N) -> tuple[N, ...]:
        """The tensors whose elements a member may pass on."""
        return self._carried[member]

    def in_order(self, chosen: Iterable[N]) -> list[N]:
        """Tensors of the region in the graph's order."""
        return sorted(chosen, key=self._index.__getitem__)

    def upstream(self, node: N) -> int:
        """The set of tensors that a member is made of, without itself."""
        return self._upstream[self._index[node]]

    def only(self, node: N) -> int:
        """The set of one tensor."""
        return 1 << self._index[node]

    def first(self, chosen: int) -> Iterator[N]:
        """The tensors of a set in the graph's order."""
        while chosen:
            lowest = chosen & -chosen
            yield self.tensors[lowest.bit_length() - 1]
            chosen ^= lowest

    def last(self, chosen: int) -> Iterator[N]:
        """The tensors of a set from the last to the first."""
        while chosen:
            index = chosen.bit_length() - 1
            yield self.tensors[index]
            chosen ^= 1 << index

    def is_made_of(self, node: N, targets: Container[N]) -> bool:
        """Whether any of the tensors that a member is made of is a target."""
        return any(tensor in targets for tensor in self.first(self.upstream(node)))

    def between(self, node: N, base: N | None) -> list[N]:
        """The members that a node is made of, itself and down to its base, in the graph's order."""
        pending, seen = [node], {base}
        found: set[N] = set()
        while pending:
            current = pending.pop()
            if current not in seen and current in self:
                seen.add(current)
                found.add(current)
                pending += self._carried[current]
        return self.in_order(found)

    def idiom(self, node: N, base: N | None) -> str:
        """What the code between two tensors uses to move elements, in words."""
        return in_words({self.graph.idiom(member) for member in self.between(node, base)})

    def is_view_of(self, node: N, targets: Container[N]) -> bool:
        """Whether a node shows a part or another shape of one of the targets."""
        source = self.graph.viewed(node)
        while source is not None:
            if source in targets:
                return True
            source = self.graph.viewed(source)
        return False


def in_words(idioms: Container[str | None]) -> str:
    """Idioms in a fixed order; slices are part of every slice assignment."""
    words = [word for word in IDIOMS if word in idioms]
    if "slice assignment" in words:
        words = [word for word in words if word != "slices"]
    return ", ".join(words) or "views"
