"""Where the rule by which elements move may change with a free size of an ONNX graph.

A movement is compared at a few sizes, which proves its rule where sizes enter it by sums and products. ONNX has no
formulas of sizes, only nodes that compute with them, so those are looked at: whatever else is computed from a free size
(a quotient, a minimum, a comparison), and is an index, leaves the movement as it was written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import onnx_ir as ir

from s2mlp_deploy.recognition.graph import FreeSize, SizeDependence, SizedGraph, UnknownValueError
from s2mlp_deploy.recognition.onnx_ops import constant_of

_PLAIN = frozenset(
    {
        "Add",
        "Cast",
        "Concat",
        "ConstantOfShape",
        "Expand",
        "Identity",
        "Mul",
        "Neg",
        "Range",
        "Reshape",
        "Squeeze",
        "Sub",
        "Transpose",
        "Unsqueeze",
    }
)
"""What sums and products of sizes, and tables of consecutive numbers, are made with."""
_SIZES = frozenset({"Shape", "Size"})
_NEAR = 2
"""A bound so near to an end takes away the same elements at every size that is compared: those have three and more."""
_ENDLESS = 1 << 30
"""Bounds from here on mean "to the end"."""


class Sizes(Protocol):
    """What is asked of a graph here."""

    free_sizes: Sequence[FreeSize]

    def at(self, sizes: Mapping[str, int]) -> SizedGraph[ir.Value]:
        """The graph at other sizes."""
        ...

    def carried(self, node: ir.Value) -> Sequence[ir.Value]:
        """What a movement passes on."""
        ...

    def unmoved(self, value: ir.Value) -> Sequence[ir.Value]:
        """What decides where elements go."""
        ...

    def is_variable(self, node: ir.Value) -> bool:
        """Whether an input's elements reach a value."""
        ...

    def is_inferred(self, node: ir.Value) -> bool:
        """Whether the sizes of a tensor are numbers and free sizes themselves."""
        ...

    def is_from_sizes(self, node: ir.Value) -> bool:
        """Whether a value is computed from the sizes of a tensor."""
        ...

    def name(self, node: ir.Value) -> str:
        """For messages."""
        ...


def size_dependence(graph: Sizes, members: Sequence[ir.Value]) -> SizeDependence:
    """Where a movement through these values has to be compared.

    Args:
        graph: Theirs.
        members: Values that only hold moved elements.
    """
    own = {*members, *(source for value in members for source in graph.carried(value))}
    for value in members:
        for index in graph.unmoved(value):
            for part in _computed_from_sizes(graph, index):
                if problem := _irregular(graph, part, own):
                    return SizeDependence(problem=f"where elements go depends on {graph.name(part)}, {problem}")
    turns: dict[tuple[str, tuple[int, ...]], None] = {}
    for size in graph.free_sizes:
        other = size.max if size.example != size.max else size.min
        try:
            here, there = graph.at({}), graph.at({size.name: other})
            for value in members:
                for bound, is_the_size in _bounds_on_free_axes(graph, value, here, there, size, other):
                    if not is_the_size or not size.min <= bound < size.max:
                        return SizeDependence(
                            problem=f"{graph.name(value)} cuts a free size at {bound}, and may do more at others"
                        )
                    around = tuple(v for v in (bound, bound + 1, bound - 1) if max(size.min, 1) <= v <= size.max)
                    turns[size.name, around] = None
        except UnknownValueError as error:
            return SizeDependence(problem=f"no other {size.name} can be compared: {error}")
    return SizeDependence(tuple(turns))


def _computed_from_sizes(graph: Sizes, index: ir.Value) -> Iterator[ir.Value]:
    """The values that an index is computed by, as far as they depend on sizes."""
    pending, seen = [index], set[ir.Value]()
    while pending:
        value = pending.pop()
        producer = value.producer()
        if value in seen or producer is None or not graph.is_from_sizes(value):
            continue
        seen.add(value)
        yield value
        # Of what an input reaches a Shape reads the sizes alone.
        known = [source for source in producer.inputs if source is not None and not graph.is_variable(source)]
        pending += known


def _irregular(graph: Sizes, value: ir.Value, own: set[ir.Value]) -> str:
    """Why a computation with sizes may follow another rule at other sizes; empty where it does not."""
    node = value.producer()
    assert node is not None
    if node.op_type in _SIZES:
        source = node.inputs[0]
        if source is None or source in own or graph.is_inferred(source) or not graph.is_variable(source):
            return ""
        return "the size of a tensor that takes no part in it"
    if node.domain not in ("", "ai.onnx"):
        return "an operator of another domain"
    if node.op_type in _PLAIN:
        return ""
    if node.op_type == "Gather":
        return "" if constant_of(node.inputs[1]) is not None else "an index that is computed from sizes"
    if node.op_type == "Slice":
        bounds = [constant_of(bound) for bound in node.inputs[1:3]]
        near = all(b is not None and bool(((abs(b) <= _NEAR) | (b >= _ENDLESS)).all()) for b in bounds)
        return "" if near or _of_a_shape(node.inputs[0]) else "which cuts a table whose length is free"
    if node.op_type in ("Equal", "Where"):
        # What exporters put before an Expand: a size of -1, which no tensor has, is the tensor's own.
        test = node if node.op_type == "Equal" else (node.inputs[0].producer() if node.inputs[0] is not None else None)
        if test is not None and test.op_type == "Equal":
            sides = [constant_of(side) for side in test.inputs]
            if any(side is not None and bool((side < 0).all()) for side in sides):
                return ""
    return f"a {node.op_type} of sizes"


def _of_a_shape(value: ir.Value | None) -> bool:
    """Whether a value is the list of a tensor's sizes, whose length is fixed."""
    node = value.producer() if value is not None else None
    return node is not None and node.op_type == "Shape"


def _bounds_on_free_axes(
    graph: Sizes, value: ir.Value, here: SizedGraph[ir.Value], there: SizedGraph[ir.Value], size: FreeSize, other: int
) -> Iterator[tuple[int, bool]]:
    """Where a Slice or Split cuts an axis that depends on a free size, and whether the axis is just that size."""
    node = value.producer()
    if node is None or node.op_type not in ("Slice", "Split"):
        return
    source = next(iter(graph.carried(value)), None)
    if source is None:
        return  # Zeros alone, wherever they are cut.
    pairs = list(zip(here.shape(source), there.shape(source), strict=True))
    if node.op_type == "Split":
        attribute = node.attributes.get("axis")
        near, far = pairs[attribute.as_int() if attribute is not None else 0]
        if near != far:
            yield 0, False
        return
    # Bounds that are computed from sizes are looked at where they are computed.
    starts, ends, axes = (
        here.constant(given).numpy() if given is not None and not graph.is_from_sizes(given) else None
        for given in (*node.inputs[1:4], None)[:3]
    )
    if axes is None and len(node.inputs) > 3 and node.inputs[3] is not None:
        yield 0, False
        return
    for place in range(len(pairs) if axes is None else axes.size):
        near, far = pairs[place if axes is None else int(axes.flat[place])]
        if near == far:
            continue
        for bounds in (starts, ends):
            if bounds is None or place >= bounds.size:
                continue
            bound = abs(int(bounds.flat[place]))
            if _NEAR < bound < _ENDLESS:
                yield bound, (near, far) == (size.example, other)
