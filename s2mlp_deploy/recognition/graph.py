"""The graph that recognition reads, whatever library holds it.

Recognition needs little of a graph: its nodes in order, which of their inputs they pass on, and each node run on a
tensor of element numbers. :mod:`.fx` gives that for a program of ``torch.export``; any other kind of graph needs an
adapter with these methods and nothing else.

Element numbers are int32. In an index map, a positive number is an element of a tensor that enters the region,
:data:`ZERO` a constant zero, and :data:`UNWRITTEN` memory that was allocated and never written.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from s2mlp_deploy.recognition.cost import Cost
from s2mlp_deploy.shift.origin import CONVOLUTION

N = TypeVar("N", bound=Hashable)
"""A node: one that computes a tensor, or a list of tensors that other nodes pick from."""

INDEX = torch.int32
"""The type of element numbers: half of int64, and 2**31 elements are more than any region's inputs hold."""
ZERO = 0
UNWRITTEN = -1

IDIOMS = (
    "slice assignment",
    "roll",
    CONVOLUTION,
    "index table",
    "mask",
    "flip",
    "pad",
    "concatenation",
    "slices",
)
"""What code uses to move elements, the most telling first. Views (reshape, transpose) have no word."""


class UnknownValueError(Exception):
    """A value cannot be known before the network runs, or does not exist at this size."""


MAX_SIZE = 1 << 12
"""Free sizes above this are not tried."""


@dataclass(frozen=True)
class FreeSize:
    """A size of the inputs that may differ from run to run.

    Attributes:
        name: Of the size, unique in the graph.
        example: Its value in the example.
        min: The smallest allowed.
        max: The largest that is allowed and tried.
    """

    name: str
    example: int
    min: int = 1
    max: int = MAX_SIZE


@dataclass(frozen=True)
class SizeDependence:
    """Where the rule by which elements move may change with a free size.

    Attributes:
        turns: Free sizes by name, each with values around one place where the rule may change (``h // 32`` at 32). At
            least one value of each must be compared; code that works at some of them only (views of whole windows)
            is compared at those.
        problem: Why no number of sizes would tell, in words; None where they do.
    """

    turns: tuple[tuple[str, tuple[int, ...]], ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class DeformableConv(Generic[N]):
    """The parts of a deformable convolution (channels first) that say where it samples.

    Attributes:
        source: What it samples, [batch, channels, height, width].
        offset: [batch, groups x kernel elements x (row, column), height, width].
        mask: None where every sample counts whole.
        padding: Rows and columns of zeros on each side.
        groups: How many groups of channels have offsets of their own.
    """

    source: N
    offset: N
    mask: N | None
    padding: tuple[int, int]
    groups: int


class SizedGraph(Protocol[N]):
    """A graph at one choice of its free sizes."""

    def shape(self, node: N) -> tuple[int, ...]:
        """The sizes of a tensor.

        Raises:
            UnknownValueError: The graph has no such size, or the node is no tensor.
        """
        ...

    def constant(self, node: N) -> Tensor:
        """The value of a node that no input reaches.

        Raises:
            UnknownValueError: An input reaches it, or it is too large to be an index.
        """
        ...

    def run(self, node: N, tensor: Callable[[N], Any]) -> Any:
        """Runs a node of pure movement on index maps (of type :data:`INDEX`).

        Args:
            node: One for which the graph's ``is_movement`` holds.
            tensor: The index maps of the nodes in its ``carried``.

        Returns:
            Its own index map, or a list of them.

        Raises:
            UnknownValueError: An index is not known at this size.
            RuntimeError: The code does not work at this size.
        """
        ...

    def cost(self, node: N) -> Cost:
        """What a node of pure movement costs as ONNX Runtime runs it, or what an exporter makes of it.

        Raises:
            UnknownValueError: Its sizes are not known.
        """
        ...


class Graph(Protocol[N]):
    """A graph of tensor operators without side effects."""

    @property
    def nodes(self) -> Sequence[N]:
        """In an order in which they can run."""
        ...

    @property
    def free_sizes(self) -> Sequence[FreeSize]:
        """Sizes of the inputs that are not fixed."""
        ...

    def at(self, sizes: Mapping[str, int]) -> SizedGraph[N]:
        """The graph with these free sizes; those not named are the example's."""
        ...

    def size_dependence(self, members: Sequence[N]) -> SizeDependence:
        """Where a movement through these nodes has to be compared to be known at all sizes."""
        ...

    def name(self, node: N) -> str:
        """For messages."""
        ...

    def users(self, node: N) -> Sequence[N]:
        """The nodes that read it; something that is no node of a region for an output of the graph."""
        ...

    def dtype(self, node: N) -> Hashable | None:
        """The type of a tensor's elements; None where the node is no tensor."""
        ...

    def is_movement(self, node: N) -> bool:
        """Whether a node only moves elements of one type, with everything that decides where known in advance."""
        ...

    def is_variable(self, node: N) -> bool:
        """Whether an input or chance reaches a node; all others are constants, which exporters fold."""
        ...

    def carried(self, node: N) -> Sequence[N]:
        """The inputs whose elements a movement may pass on: not its indices, masks or kernels."""
        ...

    def viewed(self, node: N) -> N | None:
        """The tensor that a node shows a part or another shape of; None for any other node."""
        ...

    def idiom(self, node: N) -> str | None:
        """Which of :data:`IDIOMS` the node's operator belongs to; None for views."""
        ...

    def deformable(self, node: N) -> DeformableConv[N] | None:
        """The node as a deformable convolution; None for any other node."""
        ...
