"""What recognition finds in a graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

from torch import Tensor

from s2mlp_deploy.recognition.graph import N
from s2mlp_deploy.recognition.plan import Plan
from s2mlp_deploy.recognition.smear import Smear
from s2mlp_deploy.shift.spec import ShiftSpec


@dataclass(frozen=True)
class Base(Generic[N]):
    """A tensor that others are compared with: one of the graph, or a window of one along one axis.

    In-place code on the pieces of a chunk leaves no node for a piece of the original tensor, only for pieces of the
    tensors written later; the window names it all the same.

    Attributes:
        node: The tensor.
        axis: Axis of the window; None for the whole tensor.
        start: First index of the window along the axis.
        length: Its size along the axis.
        shape: In which the whole tensor is seen, its first size -1; empty for its own. Code that looks rows up in a
            table has flat tensors alone.
    """

    node: N
    axis: int | None = None
    start: int = 0
    length: int = 0
    shape: tuple[int, ...] = ()

    def of(self, tensor: Tensor) -> Tensor:
        """The window of the tensor, or the tensor in that shape."""
        if self.axis is not None:
            return tensor.narrow(self.axis, self.start, self.length)
        return tensor.reshape(self.shape) if self.shape else tensor


@dataclass(frozen=True)
class ShiftMatch(Generic[N]):
    """A tensor of the graph that is a shift of another.

    Attributes:
        target: The node that computes it.
        base: What it is a shift of.
        spec: Which.
        idiom: What the code between them uses to move elements, in words.
        sizes: At how many choices of input sizes the index maps were compared.
        site: The first node between them that is typical of the idiom; its line is where a reader looks.
        shape: Of the target, -1 for a size that is free, where the shift is of the base in another shape; else empty.
    """

    target: N
    base: Base[N]
    spec: ShiftSpec
    idiom: str
    sizes: int
    site: N
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class CopyMatch(Generic[N]):
    """A tensor that holds, element by element, what another one holds.

    Code that shifts one part of a tensor in place makes new tensors of the parts that it never touches.

    Attributes:
        target: The node that computes it.
        base: What it equals.
    """

    target: N
    base: Base[N]


@dataclass(frozen=True)
class SamplingMatch(Generic[N]):
    """A deformable convolution that is a shift and an ordinary convolution of the same weights.

    Attributes:
        target: The node that computes it.
        source: What it samples.
        spec: The shift of what it samples, channels first with a border of zeros; None where every offset is 0.
        sizes: At how many choices of input sizes the offsets were read.
    """

    target: N
    source: N
    spec: ShiftSpec | None
    sizes: int


@dataclass(frozen=True)
class MovementMatch(Generic[N]):
    """A tensor that a fixed rule makes of others, and that costs less in other operators.

    Attributes:
        target: The node that computes it.
        sources: What its elements come from.
        plan: The operators that make it of the sources.
        idiom: What the code between them uses to move elements, in words.
        sizes: At how many choices of input sizes the index maps were compared.
        site: The first node between them that is typical of the idiom.
    """

    target: N
    sources: tuple[N, ...]
    plan: Plan
    idiom: str
    sizes: int
    site: N


@dataclass(frozen=True)
class SmearMatch(Generic[N]):
    """A tensor that an overlapping copy in place made of another, where a shift was meant.

    Attributes:
        target: The node that computes it.
        base: What it was made of.
        smear: The shift that was meant, and which groups were smeared.
        idiom: What the code between them uses to move elements, in words.
        sizes: At how many choices of input sizes the index maps were compared.
        site: The node whose line shows it.
    """

    target: N
    base: Base[N]
    smear: Smear
    idiom: str
    sizes: int
    site: N


@dataclass(frozen=True)
class NearMiss(Generic[N]):
    """A tensor whose elements move, but not as a grouped shift.

    Attributes:
        target: The node that computes it.
        reason: Why it is none.
        idiom: What the code uses to move elements.
    """

    target: N
    reason: str
    idiom: str


@dataclass(frozen=True)
class Recognition(Generic[N]):
    """All that was found in a graph, each kind in the graph's order."""

    shifts: tuple[ShiftMatch[N], ...] = ()
    copies: tuple[CopyMatch[N], ...] = ()
    samplings: tuple[SamplingMatch[N], ...] = ()
    movements: tuple[MovementMatch[N], ...] = ()
    smears: tuple[SmearMatch[N], ...] = ()
    near_misses: tuple[NearMiss[N], ...] = ()
