"""A fixed index map in plain steps: windows, axes in another order, parts side by side, zeros around, or one table.

Nothing here is a proof: what is found is run on the index maps (:mod:`.movements`), at the example's sizes and at
others.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from s2mlp_deploy.recognition.factors import Component, factored, nested
from s2mlp_deploy.recognition.graph import ZERO
from s2mlp_deploy.recognition.plan import (
    END,
    Join,
    Lookup,
    Pad,
    Permute,
    Plan,
    Slice,
    Source,
    by_rows,
    cost,
    reshaped,
    run,
)

_MOST_PARTS = 8
"""More parts side by side are written as a table."""
_MOST_INTERLEAVED = 8
"""Elements of so many parts may take turns along an axis."""
_DEPTH = 4
"""How often parts are divided again: once for each of the axes that hold windows or take turns."""
_LARGEST_TABLE = 1 << 18
"""Entries of a table: 2 MiB in the file."""
_MOST_LOOKED_AT = 1 << 23
"""So many elements are looked at for parts side by side, a second or less; then only a table is left."""


@dataclass(frozen=True)
class Entry:
    """A tensor that a movement reads.

    Attributes:
        numbers: Its elements, numbered in order.
        free: Axes whose sizes are free.
    """

    numbers: Tensor
    free: frozenset[int] = frozenset()


def find_plan(moved: Tensor, entries: Sequence[Entry], free: frozenset[int] = frozenset()) -> Plan | None:
    """The cheapest steps that were found for an index map; None where there are none.

    Args:
        moved: The index map.
        entries: The tensors that its elements come from.
        free: Its axes whose sizes are free.
    """
    if not moved.numel() or any(moved.shape[axis] < 2 for axis in free):
        return None
    plan = _Finder(entries).plan(moved, free, _DEPTH)
    sizes = [tuple(entry.numbers.shape) for entry in entries]
    return None if plan is None else min(plan, by_rows(plan, sizes), key=lambda p: cost(p, sizes).microseconds)


class _Finder:
    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries
        self._shapes = [tuple(entry.numbers.shape) for entry in entries]
        self._firsts = torch.tensor([int(entry.numbers.flatten()[0]) for entry in entries], dtype=torch.int64)
        self._ordered, self._rank = self._firsts.sort()
        self._looked_at = 0

    def plan(self, moved: Tensor, free: frozenset[int], depth: int) -> Plan | None:
        low, high = (int(limit) for limit in moved.aminmax())
        if low < ZERO or high == ZERO:
            return None  # Memory that was never written, or nothing but zeros.
        found: list[Plan | None] = []
        amounts = _zero_borders(moved) if low == ZERO else ()
        if any(map(any, amounts)):
            inner = self.plan(_without(moved, amounts), free, depth)
            found.append(None if inner is None else Pad(inner, tuple(amounts)))
        else:
            view = self._view(moved, free) if low > ZERO else None
            if view is not None and cost(view, self._shapes).nodes <= 1:
                return view  # As plain as can be.
            found += [view, self._looked_up(moved, free)]
            found.append(self._joined(moved, free, depth) if depth else None)
        found.append(self._interleaved(moved, free, depth) if depth else None)
        plans = [plan for plan in found if plan is not None]
        return min(plans, key=lambda plan: cost(plan, self._shapes).microseconds, default=None)

    def _owners(self, moved: Tensor) -> Tensor:
        """For each element the entry that it comes from, −1 for a zero."""
        place = torch.bucketize(moved.long().contiguous(), self._ordered, right=True) - 1
        return torch.where(moved == ZERO, -1, self._rank[place.clamp(min=0)])

    # One source, whose axes are cut, divided and put in another order.

    def _view(self, moved: Tensor, free: frozenset[int]) -> Plan | None:
        owners = self._owners(moved)
        owner = int(owners.flatten()[0])
        if bool((owners != owner).any()):
            return None
        entry, shape = self._entries[owner], self._shapes[owner]
        position = moved.long() - self._firsts[owner]
        start = int(position.flatten()[0])
        along = [position.movedim(axis, 0).reshape(size, -1)[:, 0] - start for axis, size in enumerate(moved.shape)]
        total = torch.tensor(start)
        for axis, offsets in enumerate(along):
            total = total + offsets.reshape([-1 if axis == k else 1 for k in range(moved.dim())])
        if not torch.equal(total.expand_as(position), position):
            return None
        parts = factored([offsets.tolist() for offsets in along], shape)
        if parts is None:
            return None
        for axis, components in enumerate(parts):
            targets = {component.target for component in components}
            if (axis in entry.free or targets & free) and not (
                axis in entry.free and len(components) == 1 and targets <= free and components[0].step
            ):
                return None
        plan = self._cut(owner, start, parts, moved, free)
        if plan is None:
            return None
        try:
            same = torch.equal(run(plan, [entry.numbers for entry in self._entries]), moved)
        except (RuntimeError, IndexError):
            return None
        return plan if same else None

    def _cut(
        self, owner: int, start: int, parts: list[list[Component]], moved: Tensor, free: frozenset[int]
    ) -> Plan | None:
        shape, entry = self._shapes[owner], self._entries[owner]
        windows: list[tuple[int, int, int, int]] = []
        tables: list[tuple[int, tuple[int, ...]]] = []
        flipped: list[int] = []
        refined: list[Component] = []
        cut: list[int | None] = []
        for axis, components in enumerate(parts):
            here = start // math.prod(shape[axis + 1 :]) % shape[axis]
            ordered = sorted(components, key=lambda component: -abs(component.step or 0))
            stretch = nested(ordered)
            if stretch is None:
                offsets = itertools.product(*(component.offsets for component in components))
                table = tuple(here + sum(each) for each in offsets)
                if min(table) < 0 or max(table) >= shape[axis]:
                    return None
                tables.append((axis, table))
                refined += components
                cut.append(len(table))
                continue
            step, count = stretch
            low = here + sum(min(component.offsets) for component in ordered)
            backwards = [component for component in ordered if (component.step or 0) < 0]
            alone = len(ordered) == 1
            if alone and backwards:
                last = low - step
                windows.append(_window(axis, here, last, -step, shape[axis], axis in entry.free))
            elif count != shape[axis]:
                windows.append(_window(axis, low, low + (count - 1) * step + 1, step, shape[axis], axis in entry.free))
            if not alone:
                flipped += [len(refined) + index for index, c in enumerate(ordered) if c in backwards]
            refined += ordered
            cut.append(None if axis in entry.free else count)
        plan: Plan = Source(owner)
        if windows:
            plan = Slice(plan, tuple(windows))
        for axis, table in tables:
            plan = Lookup(plan, axis, table)
        order = sorted(range(len(refined)), key=lambda index: (refined[index].target, refined[index].place))
        wanted = tuple(None if axis in free else size for axis, size in enumerate(moved.shape))
        if order == sorted(order) and not flipped:
            return reshaped(plan, cut, wanted)
        sizes = [None if component.target in free else component.size for component in refined]
        inner = reshaped(plan, cut, sizes)
        if inner is None:
            return None
        if flipped:
            inner = Slice(inner, tuple((axis, -1, -END, -1) for axis in flipped))
        if order != sorted(order):
            inner = Permute(inner, tuple(order))
        return reshaped(inner, [sizes[index] for index in order], wanted)

    # Parts of one tensor or several, side by side.

    def _joined(self, moved: Tensor, free: frozenset[int], depth: int) -> Plan | None:
        best: tuple[int, list[tuple[int, int]]] | None = None
        for axis in range(moved.dim()):
            found = self._runs(moved, axis)
            if 1 < len(found) <= _MOST_PARTS and (best is None or len(found) < len(best[1])):
                best = axis, found
        if best is None:
            return None
        axis, found = best
        parts = []
        for start, length in found:
            part = self.plan(moved.narrow(axis, start, length), free - {axis}, depth - 1)
            if part is None:
                return None
            parts.append(part)
        return Join(tuple(parts), axis)

    def _runs(self, moved: Tensor, axis: int) -> list[tuple[int, int]]:
        """Stretches (start, length) along an axis in which elements go on as they began.

        Zeros belong to what is before them.
        """
        self._looked_at += moved.numel()
        if self._looked_at > _MOST_LOOKED_AT:
            return [(index, 1) for index in range(moved.shape[axis])]
        rows = moved.movedim(axis, 0).flatten(1).long()
        owners = self._owners(rows)
        zero = rows == ZERO
        step = rows[1:] - rows[:-1]
        alike = (owners[1:] == owners[:-1]).all(1)
        most = torch.where(zero[1:], torch.iinfo(torch.int64).min, step).amax(1)
        least = torch.where(zero[1:], torch.iinfo(torch.int64).max, step).amin(1)
        empty = zero.all(1).tolist()
        goes_on, steps = (alike & ((most == least) | zero[1:].all(1))).tolist(), most.tolist()
        found: list[tuple[int, int]] = [(0, 1)]
        for index in range(1, len(rows)):
            start, length = found[-1]
            same = goes_on[index - 1] and (length == 1 or steps[index - 1] == steps[index - 2])
            if empty[index] or (same and not empty[index - 1]):
                found[-1] = start, length + 1
            else:
                found.append((index, 1))
        return found

    def _interleaved(self, moved: Tensor, free: frozenset[int], depth: int) -> Plan | None:
        for axis, size in enumerate(moved.shape):
            if size < 4 or len(self._runs(moved, axis)) == 1:
                continue
            for turns in range(2, min(_MOST_INTERLEAVED, size // 2) + 1):
                classes = [moved.movedim(axis, 0)[turn::turns].movedim(0, axis) for turn in range(turns)]
                if size % turns or any(len(self._runs(part, axis)) > 1 for part in classes):
                    continue
                apart = moved.reshape(*moved.shape[:axis], size // turns, turns, *moved.shape[axis + 1 :])
                shifted = frozenset(other + (other > axis) for other in free)
                plan = self.plan(apart, shifted, depth - 1)
                if plan is None:
                    continue
                sizes = [None if other in shifted else n for other, n in enumerate(apart.shape)]
                wanted = [None if other in free else n for other, n in enumerate(moved.shape)]
                return reshaped(plan, sizes, wanted)
        return None

    # Any map at all: a table of the place of each element, or of each block of them.

    def _looked_up(self, moved: Tensor, free: frozenset[int]) -> Plan | None:
        owners = self._owners(moved)
        used = sorted(set(owners.flatten().tolist()) - {-1})
        leading = 0
        for axis, size in enumerate(moved.shape):
            if any(len(self._shapes[o]) <= axis or self._shapes[o][axis] != size for o in used):
                break
            leading = axis + 1
        for prefix in range(min(leading, moved.dim() - 1), -1, -1):
            found = self._table(moved, owners, used, prefix)
            if found is None:
                continue
            outer = frozenset(range(prefix))
            if not free <= outer or any(self._entries[o].free != free for o in used):
                return None
            return self._by_table(moved, used, prefix, found, free)
        return None

    def _table(self, moved: Tensor, owners: Tensor, used: Sequence[int], prefix: int) -> tuple[Tensor, Tensor] | None:
        """(entry, place within a row of it) of each element of a row, where all rows are alike."""
        rows = math.prod(moved.shape[:prefix])
        flat, owner = moved.reshape(rows, -1).long(), owners.reshape(rows, -1)
        if flat.shape[1] > _LARGEST_TABLE or not bool((owner == owner[:1]).all()):
            return None
        place = torch.zeros_like(flat)
        for index in used:
            inner = self._entries[index].numbers.numel() // rows
            local = flat - self._firsts[index] - torch.arange(rows)[:, None] * inner
            own = owner == index
            if not bool(((local >= 0) & (local < inner))[own].all()):
                return None
            place = torch.where(own, local, place)
        return (owner[0], place[0]) if bool((place == place[:1]).all()) else None

    def _by_table(
        self, moved: Tensor, used: Sequence[int], prefix: int, table: tuple[Tensor, Tensor], free: frozenset[int]
    ) -> Plan | None:
        owner, place = table
        rows = math.prod(moved.shape[:prefix])
        inner = {index: self._entries[index].numbers.numel() // rows for index in used}
        block = next(
            size
            for size in (math.prod(moved.shape[axis:]) for axis in range(prefix + 1, moved.dim() + 1))
            if _in_blocks(owner, place, size) and all(count % size == 0 for count in inner.values())
        )
        outer = [None if axis in free else size for axis, size in enumerate(moved.shape[:prefix])]
        tail = [block] if block > 1 else []
        parts: list[Plan] = []
        starts, start = {}, 0
        for index in used:
            sizes = [None if axis in free else size for axis, size in enumerate(self._shapes[index])]
            part = reshaped(Source(index), sizes, [*outer, inner[index] // block, *tail])
            if part is None:
                return None
            parts.append(part)
            starts[index] = start
            start += inner[index] // block
        firsts, places = owner[::block], place[::block]
        if bool((firsts == -1).any()):
            amounts = ((0, 0),) * prefix + ((0, 1),) + ((0, 0),) * len(tail)
            parts[-1] = Pad(parts[-1], amounts)
        whole = Join(tuple(parts), prefix) if len(parts) > 1 else parts[0]
        looked_up = torch.full_like(places, start)  # The zeros behind all the others.
        for index in used:
            looked_up = torch.where(firsts == index, starts[index] + places // block, looked_up)
        entries = tuple(looked_up.tolist())
        wanted = [None if axis in free else size for axis, size in enumerate(moved.shape)]
        return reshaped(Lookup(whole, prefix, entries), [*outer, len(entries), *tail], wanted)


def _in_blocks(owner: Tensor, place: Tensor, size: int) -> bool:
    """Whether elements come in whole blocks of so many."""
    owners, places = owner.reshape(-1, size), place.reshape(-1, size)
    alike = bool((owners == owners[:, :1]).all())
    running = torch.where(owners == -1, 0, places - places[:, :1] - torch.arange(size))
    return alike and not bool(running.any()) and not bool((places[:, 0] % size).any())


def _zero_borders(moved: Tensor) -> tuple[tuple[int, int], ...]:
    """How many slices at the start and end of each axis hold nothing but zeros."""
    found = []
    for axis in range(moved.dim()):
        held = moved.movedim(axis, 0).flatten(1).any(1).nonzero().flatten()
        found.append((int(held[0]), moved.shape[axis] - 1 - int(held[-1])))
    return tuple(found)


def _without(moved: Tensor, amounts: Sequence[tuple[int, int]]) -> Tensor:
    for axis, (before, after) in enumerate(amounts):
        moved = moved.narrow(axis, before, moved.shape[axis] - before - after)
    return moved


def _window(axis: int, start: int, stop: int, step: int, size: int, free: bool) -> tuple[int, int, int, int]:
    """A window as it is meant where the size is free: counted from the nearer end."""
    if step < 0:
        # From the end, which needs no size to be turned round.
        return axis, start - size, -END if stop < 0 else stop - size, step
    if free:
        last = END if stop + step > size else stop - size if 2 * stop > size else stop
        return axis, start - size if 2 * start > size else start, last, step
    return axis, start, stop, step
