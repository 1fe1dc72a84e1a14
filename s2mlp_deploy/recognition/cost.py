"""What moving data costs, counted on the ONNX nodes that do it.

A model of ONNX Runtime's CPU provider on one thread: a node has its price, and so have the bytes that it writes, the
stretches of memory that it copies one by one, and the places that it looks up in a table. The constants are measured,
see ``benchmarks/shift_cost.md``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

ITEM = 4
"""Bytes of an element: costs are compared, and of movement both sides move the same type."""
_TUPLES = {"ScatterND": 1.0, "GatherND": 1.6, "ScatterElements": 0.65, "GatherElements": 0.25}
"""What an index of these costs over one of Gather's: 9.5 ns, 15, 6 and 2.3 where Gather takes 9.5."""
_SCATTER = 8
"""Nodes that a scatter counts as: engines fuse nothing across it, and those for GPUs run it as a kernel of its own."""


@dataclass(frozen=True)
class Cost:
    """What is written and computed.

    Attributes:
        nodes: ONNX nodes, but for views.
        views: Nodes that copy nothing.
        bytes: Written by other nodes than Transposes.
        runs: Stretches that Slice, Concat and Pad copy one by one, and elements that Pad repeats one by one.
        rows: Stretches that Gather looks up in its table.
        turned: Bytes written by Transposes.
        products: Multiplications of convolutions.
    """

    nodes: float = 0
    views: float = 0
    bytes: float = 0
    runs: float = 0
    rows: float = 0
    turned: float = 0
    products: float = 0

    def __add__(self, other: Cost) -> Cost:
        """Of both."""
        return Cost(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(Cost)))

    @property
    def microseconds(self) -> float:
        """The price of all of it on one thread of a processor with AVX-512.

        A node takes 1.3 us a run; 2 say that it also takes 0.4 ms once, when a session starts.
        """
        return (
            2 * self.nodes
            + 0.5 * self.views
            + 4.5e-5 * self.bytes
            + 3.3e-3 * self.runs
            + 9e-3 * self.rows
            + 7e-5 * self.turned
            + 4e-5 * self.products
        )


VIEW = Cost(views=1)


def copying(out: Sequence[int], runs: int = 0) -> Cost:
    """A node that writes a tensor in so many stretches."""
    return Cost(1, bytes=ITEM * math.prod(out), runs=runs)


def cutting(source: Sequence[int], out: Sequence[int]) -> Cost:
    """A Slice or Pad: up to the last axis that is cut or padded elements lie apart; behind it, together."""
    if len(source) != len(out):
        return copying(out)
    last = max((axis for axis, pair in enumerate(zip(source, out, strict=True)) if pair[0] != pair[1]), default=0)
    return copying(out, math.prod(out[:last]))


def joining(out: Sequence[int], axis: int, parts: int) -> Cost:
    """A Concat."""
    return copying(out, math.prod(out[:axis]) * parts)


def turning(out: Sequence[int]) -> Cost:
    """A Transpose."""
    return Cost(1, turned=ITEM * math.prod(out))


def looking_up(out: Sequence[int], axis: int) -> Cost:
    """A Gather along an axis."""
    block = math.prod(out[axis + 1 :])
    return Cost(1, bytes=ITEM * math.prod(out), rows=math.prod(out) / max(block, 1))


def choosing(out: Sequence[int]) -> Cost:
    """A Where under a mask that broadcasts: 1.25 ns an element."""
    return Cost(1, rows=0.14 * math.prod(out))


def indexing(kind: str, out: Sequence[int], indices: float) -> Cost:
    """A node that has an index for each of its stretches.

    Args:
        kind: ScatterND, GatherND, ScatterElements or GatherElements.
        out: What it writes.
        indices: How many there are.
    """
    nodes = _SCATTER if kind.startswith("Scatter") else 1
    return Cost(nodes, bytes=ITEM * math.prod(out), rows=_TUPLES[kind] * indices)
