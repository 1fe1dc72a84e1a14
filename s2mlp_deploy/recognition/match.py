"""Is a map of cells a grouped shift? Decided by equality with the map of the shift that it would have to be."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from s2mlp_deploy.errors import ShiftError
from s2mlp_deploy.shift.op import shift
from s2mlp_deploy.shift.spec import BORDERS, Border, ShiftGroup, ShiftSpec


@dataclass(frozen=True)
class NoShift:
    """Why a map is no grouped shift.

    Attributes:
        reason: In words.
    """

    reason: str


def match_shifts(moved: Tensor, base: Tensor) -> tuple[ShiftSpec, ...] | NoShift:
    """Finds the shifts that turn ``base`` into ``moved``.

    Args:
        moved: Cell numbers after the movement; 0 is a constant zero.
        base: Cell numbers before it, each once; the same shape, and not equal to ``moved``.

    Returns:
        Every specification whose map equals ``moved`` exactly (they differ in the border where this size cannot tell
        borders apart), the papers' border first; or why there is none.
    """
    source = _positions_in(moved, base)
    if isinstance(source, NoShift):
        return source
    inside = source >= 0
    deltas = [
        torch.arange(size).reshape([-1 if axis == k else 1 for k in range(base.dim())]) - coordinate
        for axis, (size, coordinate) in enumerate(zip(base.shape, _unravel(source, base.shape), strict=True))
    ]
    moving = tuple(axis for axis, delta in enumerate(deltas) if bool((delta[inside] != 0).any()))
    if not moving:
        # Only zeros appear: cells were masked, or shifted out entirely.
        return NoShift("cells are replaced by zeros but none moves")
    channel_axes = _channel_axes(moving, base.dim())
    if not channel_axes:
        return NoShift(f"cells move along {moving}: no axis is left that could hold channels")
    matches: list[ShiftSpec] = []
    for channel_axis in _by_likelihood(channel_axes, deltas, moving, inside):
        for offsets in _candidates(deltas, inside, moving, channel_axis):
            groups = tuple(
                ShiftGroup(len(list(run)), tuple(key)) for key, run in itertools.groupby(map(tuple, offsets.tolist()))
            )
            for border in BORDERS:
                spec = _spec(groups, moving, channel_axis, border)
                if (
                    spec is not None
                    and spec not in matches
                    and _is_plausible(spec, base.shape)
                    and torch.equal(shift(base, spec), moved)
                ):
                    matches.append(spec)
        if matches:
            return tuple(matches)
    return NoShift(_why_not(deltas, inside, moving, channel_axes))


def _spec(groups: tuple[ShiftGroup, ...], axes: tuple[int, ...], channel_axis: int, border: str) -> ShiftSpec | None:
    used = [index for index in range(len(axes)) if any(group.offsets[index] for group in groups)]
    if not used:
        return None
    narrow = tuple(ShiftGroup(g.channels, tuple(g.offsets[index] for index in used)) for g in groups)
    try:
        return ShiftSpec(narrow, tuple(axes[index] for index in used), channel_axis, _border(border))
    except ShiftError:
        return None


def _border(name: str) -> Border:
    return name  # type: ignore[return-value]  # a member of BORDERS


def _positions_in(moved: Tensor, base: Tensor) -> Tensor | NoShift:
    """For each cell of ``moved`` the flat position in ``base`` it came from, −1 for a constant zero."""
    if bool(torch.isnan(moved).any()):
        return NoShift("it reads memory that was allocated but never written")
    numbers, flat = moved.to(torch.int64), base.to(torch.int64).flatten()
    low, high = int(flat.min()), int(flat.max())
    if low < 1:
        return NoShift("its source holds constant zeros")
    table = torch.full((high - low + 1,), -1, dtype=torch.int64)
    table[flat - low] = torch.arange(flat.numel())
    outside = (numbers != 0) & ((numbers < low) | (numbers > high))
    position = table[(numbers - low).clamp(0, high - low)]
    if bool(outside.any()) or bool(((position < 0) & (numbers != 0)).any()):
        return NoShift("its cells come from more than one tensor")
    return torch.where(numbers == 0, -1, position)


def _unravel(position: Tensor, shape: torch.Size) -> list[Tensor]:
    coordinates = []
    for size in reversed(shape):
        coordinates.append(position % size)
        position = position.div(size, rounding_mode="floor")
    return coordinates[::-1]


def _channel_axes(moving: tuple[int, ...], rank: int) -> list[int]:
    """Axes that hold channels in some layout: the second, the last, the third of clips, the first without a batch.

    Rows that move by different steps (a shear) make rows look like channels; no layout has its channels there.
    """
    usual = [1, rank - 1] if min(moving) > 1 else [rank - 1, 1]
    if rank == 5:
        usual.append(2)
    if rank <= 3:
        usual.append(0)
    return [axis for axis in dict.fromkeys(usual) if axis not in moving and 0 <= axis < rank]


def _is_plausible(spec: ShiftSpec, shape: Sequence[int]) -> bool:
    """Whether a circular step says the smaller of the two ways round.

    Around n cells +k is k - n. A step of n/2 is told neither way: halves that change places are no shift that anybody
    wrote. At the other borders a step of any size has one meaning.
    """
    return spec.border != "circular" or all(
        2 * abs(step) < shape[axis]
        for group in spec.groups
        for axis, step in zip(spec.axes, group.offsets, strict=True)
    )


def _by_likelihood(axes: list[int], deltas: list[Tensor], moving: tuple[int, ...], inside: Tensor) -> list[int]:
    """Axes that could carry the groups, those along which the steps vary first."""

    def varies(axis: int) -> bool:
        steps = [torch.where(inside, deltas[k], 0).movedim(axis, 0).flatten(1) for k in moving]
        return any(bool((step != step[:1]).any()) for step in steps)

    return sorted(axes, key=lambda axis: not varies(axis))


def _candidates(deltas: list[Tensor], inside: Tensor, moving: tuple[int, ...], channel_axis: int) -> list[Tensor]:
    """Steps per channel [channels, axes] that the interior cells suggest.

    The commonest step of a channel is its offset unless the axis is so short that the border is as large as the
    interior; then the commonest one that is not 0.
    """
    commonest, nonzero = [], []
    for axis in moving:
        values = deltas[axis].expand(inside.shape).movedim(channel_axis, 0).flatten(1)
        valid = inside.movedim(channel_axis, 0).flatten(1)
        commonest.append(_mode(values, valid))
        nonzero.append(_mode(values, valid & (values != 0)))
    first, second = torch.stack(commonest, 1), torch.stack(nonzero, 1)
    return [first] if torch.equal(first, second) else [first, second]


def _mode(values: Tensor, valid: Tensor) -> Tensor:
    """The commonest valid value of each row; 0 where there is none."""
    low = int(values.min())
    shifted = torch.where(valid, values - low + 1, 0)
    counts = torch.zeros(len(values), int(shifted.max()) + 1, dtype=torch.int64)
    counts.scatter_add_(1, shifted, torch.ones_like(shifted))
    counts[:, 0] = 0
    best = counts.argmax(1)
    return torch.where(counts.amax(1) > 0, best + low - 1, 0)


def _why_not(deltas: list[Tensor], inside: Tensor, moving: tuple[int, ...], channel_axes: list[int]) -> str:
    """The nearest thing to an explanation: where the steps are not the same for a whole channel."""
    if len(moving) == 1 and bool(inside.all()):
        slices = deltas[moving[0]].expand(inside.shape).movedim(moving[0], 0).flatten(1)
        if bool((slices == slices[:, :1]).all()):
            return (
                f"whole slices along axis {moving[0]} change places, and not by one step: a permutation of channels, "
                "for example, or a flip"
            )
    least: tuple[float, str] = (2.0, "")
    for channel_axis in channel_axes:
        for axis in moving:
            values = deltas[axis].expand(inside.shape).movedim(channel_axis, 0).flatten(1)
            valid = inside.movedim(channel_axis, 0).flatten(1)
            odd = valid & (values != _mode(values, valid)[:, None])
            share = float(odd.sum()) / max(int(valid.sum()), 1)
            if 0 < share < least[0]:
                least = (
                    share,
                    f"with channels on axis {channel_axis}, {share:.0%} of the cells move along axis {axis} "
                    "by another step than their channel's",
                )
    return least[1] or "the steps agree within channels, but the border cells follow no known rule"
