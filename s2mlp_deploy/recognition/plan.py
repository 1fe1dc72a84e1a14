"""A movement of data in a few plain steps: what a fixed index map is written as.

A plan is a tree of steps over the tensors that it reads. It runs on index maps, which is how it is proven, and each
kind of graph writes its steps as operators of its own (:class:`Writer`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from s2mlp_deploy.recognition import cost as costs
from s2mlp_deploy.recognition.cost import Cost

END = (1 << 63) - 1
"""A bound of a slice: to the end."""

T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """A tensor that the movement reads.

    Attributes:
        index: Among those that the plan is given.
    """

    index: int


@dataclass(frozen=True)
class Slice:
    """Windows along axes.

    Attributes:
        of: What is cut.
        windows: (axis, start, stop, step), with the meaning of ONNX's Slice; each axis once.
    """

    of: Plan
    windows: tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True)
class Lookup:
    """Elements along an axis by a table.

    Attributes:
        of: What is read.
        axis: Along which.
        table: The place of each element.
    """

    of: Plan
    axis: int
    table: tuple[int, ...]


@dataclass(frozen=True)
class Reshape:
    """The same elements in another shape.

    Attributes:
        of: What is reshaped.
        shape: None for a size that is free; as many as ``of`` has, in its order.
        free: Axes of ``of`` whose sizes are free.
    """

    of: Plan
    shape: tuple[int | None, ...]
    free: tuple[int, ...] = ()


@dataclass(frozen=True)
class Permute:
    """Axes in another order."""

    of: Plan
    order: tuple[int, ...]


@dataclass(frozen=True)
class Pad:
    """Zeros around.

    Attributes:
        of: What stands within.
        amounts: (before, after) of each axis.
    """

    of: Plan
    amounts: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Join:
    """Parts side by side along an axis."""

    parts: tuple[Plan, ...]
    axis: int


Plan: TypeAlias = Source | Slice | Lookup | Reshape | Permute | Pad | Join


class Writer(Protocol[T]):
    """Writes steps as operators of some graph; each returns the tensor that its operator makes."""

    def slice(self, x: T, windows: Sequence[tuple[int, int, int, int]]) -> T:
        """See :class:`Slice`."""
        ...

    def lookup(self, x: T, axis: int, table: Sequence[int]) -> T:
        """See :class:`Lookup`."""
        ...

    def reshape(self, x: T, shape: Sequence[int | None], free: Sequence[int]) -> T:
        """See :class:`Reshape`."""
        ...

    def permute(self, x: T, order: Sequence[int]) -> T:
        """See :class:`Permute`."""
        ...

    def pad(self, x: T, amounts: Sequence[tuple[int, int]]) -> T:
        """See :class:`Pad`."""
        ...

    def join(self, parts: Sequence[T], axis: int) -> T:
        """See :class:`Join`."""
        ...


def write(plan: Plan, sources: Sequence[T], writer: Writer[T], seen: Callable[[Plan, T], None] | None = None) -> T:
    """Writes a plan.

    Args:
        plan: The plan.
        sources: The tensors that it reads.
        writer: Of the graph.
        seen: Told of each step and what it became.
    """

    def of(part: Plan) -> T:
        return write(part, sources, writer, seen)

    if isinstance(plan, Source):
        made = sources[plan.index]
    elif isinstance(plan, Slice):
        made = writer.slice(of(plan.of), plan.windows)
    elif isinstance(plan, Lookup):
        made = writer.lookup(of(plan.of), plan.axis, plan.table)
    elif isinstance(plan, Reshape):
        made = writer.reshape(of(plan.of), plan.shape, plan.free)
    elif isinstance(plan, Permute):
        made = writer.permute(of(plan.of), plan.order)
    elif isinstance(plan, Pad):
        made = writer.pad(of(plan.of), plan.amounts)
    else:
        made = writer.join([of(part) for part in plan.parts], plan.axis)
    if seen is not None:
        seen(plan, made)
    return made


class _Torch:
    """Steps on tensors: index maps, or tensors without elements that have shapes alone."""

    def slice(self, x: Tensor, windows: Sequence[tuple[int, int, int, int]]) -> Tensor:
        for axis, start, stop, step in windows:
            if step > 0:
                x = x[(slice(None),) * axis + (slice(start, stop, step),)]
            else:
                size = x.shape[axis]
                first = min(start, size - 1) if start >= 0 else start + size
                last = max(stop + size if stop < 0 else stop, -1)
                places = range(first, last, step)
                x = x.index_select(axis, torch.tensor(list(places), dtype=torch.int64, device=x.device))
        return x

    def lookup(self, x: Tensor, axis: int, table: Sequence[int]) -> Tensor:
        return x.index_select(axis, torch.tensor(table, dtype=torch.int64, device=x.device))

    def reshape(self, x: Tensor, shape: Sequence[int | None], free: Sequence[int]) -> Tensor:
        sizes = iter([x.shape[axis] for axis in free])
        return x.reshape([next(sizes) if size is None else size for size in shape])

    def permute(self, x: Tensor, order: Sequence[int]) -> Tensor:
        return x.permute(*order)

    def pad(self, x: Tensor, amounts: Sequence[tuple[int, int]]) -> Tensor:
        return torch.constant_pad_nd(x, [amount for pair in reversed(amounts) for amount in pair], 0)

    def join(self, parts: Sequence[Tensor], axis: int) -> Tensor:
        return torch.cat(list(parts), axis)


def run(plan: Plan, sources: Sequence[Tensor]) -> Tensor:
    """The plan on index maps.

    Raises:
        RuntimeError: Their sizes do not fit.
        IndexError: An index lies outside.
    """
    return write(plan, sources, _Torch())


def shapes(plan: Plan, sources: Sequence[Sequence[int]]) -> dict[int, tuple[int, ...]]:
    """The shape that each step has, by the step's ``id``, for sources of these sizes."""
    found: dict[int, tuple[int, ...]] = {}
    tensors = [torch.empty(tuple(shape), dtype=torch.int32, device="meta") for shape in sources]
    write(plan, tensors, _Torch(), lambda step, made: found.__setitem__(id(step), tuple(made.shape)))
    return found


def steps(plan: Plan) -> Iterator[Plan]:
    """All steps, what is read before what reads it."""
    if isinstance(plan, Join):
        for part in plan.parts:
            yield from steps(part)
    elif not isinstance(plan, Source):
        yield from steps(plan.of)
    yield plan


def cost(plan: Plan, sources: Sequence[Sequence[int]]) -> Cost:
    """What its operators cost on tensors of these sizes."""
    known = shapes(plan, sources)
    total = Cost()
    for step in steps(plan):
        out = known[id(step)]
        if isinstance(step, Slice):
            total += costs.cutting(known[id(step.of)], out)
            total += Cost(runs=_apart(step, out))
        elif isinstance(step, Pad):
            total += costs.cutting(known[id(step.of)], out)
        elif isinstance(step, Lookup):
            total += costs.looking_up(out, step.axis)
        elif isinstance(step, Permute):
            total += costs.turning(out)
        elif isinstance(step, Join):
            total += costs.joining(out, step.axis, len(step.parts))
        elif isinstance(step, Reshape):
            total += costs.VIEW
    return total


def _apart(step: Slice, out: Sequence[int]) -> int:
    """Stretches of a Slice with steps: up to the last axis that is stepped along."""
    last = max((axis for axis, _, _, stride in step.windows if stride != 1), default=None)
    return 0 if last is None else math.prod(out[: last + 1])


def by_rows(plan: Plan, sizes: Sequence[Sequence[int]]) -> Plan:
    """The plan with whole rows in place of elements where it looks up along an inner axis, between Transposes.

    Args:
        plan: The plan.
        sizes: The shapes of the tensors that it reads.
    """
    known = shapes(plan, sizes)

    def of(part: Plan) -> Plan:
        if isinstance(part, Source):
            return part
        if isinstance(part, Join):
            return Join(tuple(of(each) for each in part.parts), part.axis)
        inner = of(part.of)
        if isinstance(part, Permute):
            return _permuted(inner, part.order)
        if not isinstance(part, Lookup) or not part.axis:
            return replace(part, of=inner)
        rest = [axis for axis in range(len(known[id(part)])) if axis != part.axis]
        order = [part.axis, *rest]
        back = tuple(order.index(axis) for axis in range(len(order)))
        return _permuted(Lookup(_permuted(inner, tuple(order)), 0, part.table), back)

    return of(plan)


def _permuted(plan: Plan, order: tuple[int, ...]) -> Plan:
    if isinstance(plan, Permute):
        inner = plan.order
        plan, order = plan.of, tuple(inner[axis] for axis in order)
    return plan if order == tuple(range(len(order))) else Permute(plan, order)


def reshaped(plan: Plan, sizes: Sequence[int | None], wanted: Sequence[int | None]) -> Plan | None:
    """The plan in another shape; None where more sizes are free than a Reshape can leave open.

    Args:
        plan: The plan.
        sizes: Its shape; None for a size that is free.
        wanted: The other one.
    """
    if list(sizes) == list(wanted):
        return plan
    free = tuple(axis for axis, size in enumerate(sizes) if size is None)
    there = tuple(axis for axis, size in enumerate(wanted) if size is None)
    if len(free) != len(there) or (len(free) > 1 and free != there):
        return None
    if isinstance(plan, Reshape):
        free = plan.free  # One is enough.
        plan = plan.of
    return Reshape(plan, tuple(wanted), free)


_WORDS = {Slice: "Slice", Lookup: "Gather", Reshape: "Reshape", Permute: "Transpose", Pad: "Pad", Join: "Concat"}


def in_words(plan: Plan) -> str:
    """The operators of ONNX that it becomes, each once, in order."""
    names = dict.fromkeys(_WORDS[type(step)] for step in steps(plan) if not isinstance(step, Source))
    return ", ".join(names) or "nothing"
