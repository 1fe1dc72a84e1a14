"""What recognition finds in a graph."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.fx import Node

from s2mlp_deploy.recognition.sampling import SamplingMatch
from s2mlp_deploy.shift.spec import ShiftSpec


@dataclass(frozen=True)
class Base:
    """A tensor that others are compared with: one of the graph, or a window of one along one axis.

    In-place code on the pieces of a chunk leaves no node for a piece of the original tensor, only for pieces of the
    tensors written later; the window names it all the same.

    Attributes:
        node: The tensor.
        axis: Axis of the window; None for the whole tensor.
        start: First cell.
        length: Cells.
    """

    node: Node
    axis: int | None = None
    start: int = 0
    length: int = 0

    def of(self, numbers: Tensor) -> Tensor:
        """The base's cells of the tensor's."""
        return numbers if self.axis is None else numbers.narrow(self.axis, self.start, self.length)


@dataclass(frozen=True)
class ShiftMatch:
    """A tensor of the graph that is a shift of another.

    Attributes:
        target: The node that computes it.
        base: What it is a shift of.
        spec: Which.
        idiom: What the region between them is made of, in words.
        sizes: At how many choices of input sizes the equality was checked.
        site: The first node between them that is typical of the idiom; its line is where a reader looks.
    """

    target: Node
    base: Base
    spec: ShiftSpec
    idiom: str
    sizes: int
    site: Node


@dataclass(frozen=True)
class CopyMatch:
    """A tensor that holds, cell by cell, what another one holds.

    Code that shifts one part of a tensor in place makes new tensors of the parts that it never touches.

    Attributes:
        target: The node that computes it.
        base: What it equals.
    """

    target: Node
    base: Base


@dataclass(frozen=True)
class NearMiss:
    """A tensor whose cells move, but not as a grouped shift.

    Attributes:
        target: The node that computes it.
        reason: Why it is none.
        idiom: What the region is made of.
    """

    target: Node
    reason: str
    idiom: str


@dataclass(frozen=True)
class Recognition:
    """All that was found in a graph."""

    shifts: tuple[ShiftMatch, ...] = ()
    copies: tuple[CopyMatch, ...] = ()
    samplings: tuple[SamplingMatch, ...] = ()
    near_misses: tuple[NearMiss, ...] = ()
