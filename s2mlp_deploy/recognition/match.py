"""Is an index map a grouped shift? Decided by equality with the index map of the shift that it would have to be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from s2mlp_deploy.errors import ShiftError
from s2mlp_deploy.recognition.graph import UNWRITTEN, ZERO
from s2mlp_deploy.shift.op import shift
from s2mlp_deploy.shift.spec import BORDERS, Border, ShiftGroup, ShiftSpec

_MOST_RIM = 0.9
"""A larger share of a channel is no rim: steps of half an axis along three axes leave seven eighths."""


@dataclass(frozen=True)
class NoShift:
    """Why an index map is no grouped shift.

    Attributes:
        reason: In words.
    """

    reason: str


@dataclass(frozen=True)
class _Steps:
    """How far each element moved.

    Attributes:
        inside: Whether it comes from the base, and is no constant zero.
        steps: Along every axis, int32 of the tensor's shape.
        moving: Axes along which any element moves.
    """

    inside: Tensor
    steps: tuple[Tensor, ...]
    moving: tuple[int, ...]

    def by_channel(self, axis: int, channel_axis: int) -> tuple[Tensor, Tensor]:
        """Steps along an axis and whether they count, each [channels, elements of a channel]."""
        return (
            self.steps[axis].movedim(channel_axis, 0).flatten(1),
            self.inside.movedim(channel_axis, 0).flatten(1),
        )


def match_shifts(moved: Tensor, base: Tensor, channel_axis: int | None = None) -> tuple[ShiftSpec, ...]:
    """Finds the shifts that turn ``base`` into ``moved``.

    Args:
        moved: Index map after the movement.
        base: Index map before it, each element once and no constant; the same shape, and not equal to ``moved``.
        channel_axis: Where the channels are; None where any layout has them.

    Returns:
        Every specification whose index map equals ``moved`` exactly (they differ in the border where this size cannot
        tell borders apart), the papers' border first; none where it is no shift (see :func:`why_no_shift`).
    """
    same = moved == base
    whole = [axis for axis in range(base.dim()) if not _moves_in_part(same, axis)]
    if not whole:
        return ()
    found = _steps(moved, base)
    if isinstance(found, NoShift) or not found.moving:
        return ()
    axes = [axis for axis in _channel_axes(found.moving, base.dim()) if axis in whole and channel_axis in (None, axis)]
    for axis in _by_likelihood(found, axes):
        matches: list[ShiftSpec] = []
        for offsets in _candidates(found, axis):
            groups = tuple(
                ShiftGroup(len(list(run)), tuple(key)) for key, run in itertools.groupby(map(tuple, offsets.tolist()))
            )
            specs = [_spec(groups, found.moving, axis, border, base.shape) for border in BORDERS]
            for spec in specs if _agrees_inside(specs, moved, base) else ():
                new = spec is not None and spec not in matches and _is_plausible(spec, base.shape)
                if spec is not None and new and torch.equal(shift(base, spec), moved):
                    matches.append(spec)
        if matches:
            return tuple(matches)
    return ()


def _moves_in_part(same: Tensor, axis: int) -> bool:
    """Whether some slice along an axis keeps nearly all of its elements and not all, so that it holds no channels.

    A channel that moves keeps no more than its rim. A cheap way to say no: of a chain of writes into single rows, each
    tensor is compared with all before it.
    """
    kept = same.sum([other for other in range(same.dim()) if other != axis])
    each = same.numel() // same.shape[axis]
    return bool(((kept > _MOST_RIM * each) & (kept < each)).any())


def why_no_shift(moved: Tensor, base: Tensor) -> str:
    """Why no shift turns ``base`` into ``moved``, in words; the arguments are those of :func:`match_shifts`."""
    found = _steps(moved, base)
    if isinstance(found, NoShift):
        return found.reason
    if not found.moving:
        # Only zeros appear: elements were masked, or shifted out entirely.
        return "elements are replaced by zeros but none moves"
    if all(bool((2 * found.steps[axis].abs() == base.shape[axis]).all()) for axis in found.moving):
        return f"halves change places along {found.moving}, by a step that is the same to either side"
    channel_axes = _channel_axes(found.moving, base.dim())
    if not channel_axes:
        return f"elements move along {found.moving}: no axis is left that could hold channels"
    if len(found.moving) == 1 and bool(found.inside.all()):
        slices = found.steps[found.moving[0]].movedim(found.moving[0], 0).flatten(1)
        if bool((slices == slices[:, :1]).all()):
            return (
                f"whole slices along axis {found.moving[0]} move, and not by one step: a permutation of channels, "
                "a flip or a mirrored border, for example"
            )
    least: tuple[float, str] = (2.0, "")
    for channel_axis in channel_axes:
        for axis in found.moving:
            steps, valid = found.by_channel(axis, channel_axis)
            odd = valid & (steps != _mode(steps, valid)[:, None])
            share = float(odd.sum()) / max(int(valid.sum()), 1)
            if 0 < share < least[0]:
                least = (
                    share,
                    f"with channels on axis {channel_axis}, {share:.0%} of the elements move along axis {axis} "
                    "by another step than their channel's",
                )
    return least[1] or "the steps agree within channels, but the border elements follow no known rule"


def _steps(moved: Tensor, base: Tensor) -> _Steps | NoShift:
    position = positions_in(moved, base)
    if isinstance(position, NoShift):
        return position
    inside = position >= 0
    steps = []
    for axis, size in enumerate(base.shape):
        stride = math.prod(base.shape[axis + 1 :])
        here = torch.arange(size, dtype=position.dtype).reshape([-1 if axis == k else 1 for k in range(base.dim())])
        there = torch.div(position, stride, rounding_mode="trunc") % size if stride > 1 else position % size
        steps.append((here - there).where(inside, 0))
    moving = tuple(axis for axis, step in enumerate(steps) if bool(step.any()))
    return _Steps(inside, tuple(steps), moving)


def positions_in(moved: Tensor, base: Tensor) -> Tensor | NoShift:
    """For each element of ``moved`` the flat position in ``base`` it came from, −1 for a constant zero: int32."""
    low, high = (int(limit) for limit in base.aminmax())
    least, most = (int(limit) for limit in moved.aminmax())
    if least <= UNWRITTEN:
        return NoShift("it reads memory that was allocated but never written")
    if low <= ZERO:
        return NoShift("its source holds constant zeros")
    if most > high or most == ZERO:
        return NoShift("its elements come from more than one tensor" if most else "it holds nothing but zeros")
    table = torch.full((high - low + 2,), -1, dtype=torch.int32)
    # The first entry is for constant zeros.
    table[base.flatten() - (low - 1)] = torch.arange(base.numel(), dtype=torch.int32)
    position = table[(moved - (low - 1)).clamp(min=0)]
    if bool(((position < 0) & (moved != ZERO)).any()):
        return NoShift("its elements come from more than one tensor")
    return position


def _agrees_inside(specs: Sequence[ShiftSpec | None], moved: Tensor, base: Tensor) -> bool:
    """Whether the elements that a shift brings from inside are right: that is the same for every border."""
    zero = next((spec for spec in specs if spec and spec.border == "zero"), None)
    if zero is None:
        return False
    expected = shift(base, zero)
    return not bool(((expected != moved) & (expected != ZERO)).any())


def _spec(
    groups: tuple[ShiftGroup, ...], axes: tuple[int, ...], channel_axis: int, border: str, shape: Sequence[int]
) -> ShiftSpec | None:
    if border == "circular":  # Half of the way round is told as a step forward.
        sizes = [shape[axis] for axis in axes]
        groups = tuple(
            ShiftGroup(g.channels, tuple(-s if -2 * s == n else s for s, n in zip(g.offsets, sizes, strict=True)))
            for g in groups
        )
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


def _channel_axes(moving: tuple[int, ...], rank: int) -> list[int]:
    """Axes that hold channels in some layout: the second, the last, the third of clips, the first without a batch.

    Rows that move by different steps (a shear) make rows look like channels; no layout has its channels there.
    """
    usual = [1, rank - 1] if min(moving) > 1 else [rank - 1, 1]
    if rank >= 5:
        usual.append(2)
    if rank <= 3:
        usual.append(0)
    return [axis for axis in dict.fromkeys(usual) if axis not in moving and 0 <= axis < rank]


def _is_plausible(spec: ShiftSpec, shape: Sequence[int]) -> bool:
    """Whether a circular step says the smaller of the two ways round.

    Around n elements +k is k - n. Steps of n/2 alone are no shift that anybody wrote: halves change places. Beside
    smaller steps of other groups they are one of a series. At the other borders a step of any size has one meaning.
    """
    if spec.border != "circular":
        return True
    shares = [
        2 * abs(step) / shape[axis]
        for group in spec.groups
        for axis, step in zip(spec.axes, group.offsets, strict=True)
        if step
    ]
    return max(shares) <= 1 and min(shares) < 1


def _by_likelihood(found: _Steps, axes: list[int]) -> list[int]:
    """Axes that could carry the groups, those along which the steps vary first."""

    def varies(axis: int) -> bool:
        return any(bool((step != step.narrow(axis, 0, 1)).any()) for step in (found.steps[k] for k in found.moving))

    return sorted(axes, key=lambda axis: not varies(axis))


def _candidates(found: _Steps, channel_axis: int) -> list[Tensor]:
    """Steps per channel [channels, axes] that the elements inside suggest.

    The commonest step of a channel is its offset unless the axis is so short that the border is as large as the
    interior; then the commonest one that is not 0.
    """
    commonest, nonzero = [], []
    for axis in found.moving:
        steps, valid = found.by_channel(axis, channel_axis)
        commonest.append(_mode(steps, valid))
        nonzero.append(_mode(steps, valid & (steps != 0)))
    first, second = torch.stack(commonest, 1), torch.stack(nonzero, 1)
    return [first] if torch.equal(first, second) else [first, second]


def _mode(values: Tensor, valid: Tensor) -> Tensor:
    """The commonest valid value of each row; 0 where there is none."""
    low = int(values.min())
    width = int(values.max()) - low + 1
    row = torch.arange(len(values), dtype=values.dtype)[:, None] * width
    counts = torch.bincount((values - low + row)[valid], minlength=len(values) * width).reshape(-1, width)
    return torch.where(counts.amax(1) > 0, counts.argmax(1) + low, 0)
