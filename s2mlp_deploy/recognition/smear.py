"""A smear: what is left of a shift that was copied onto itself in place, element after element.

``x[:, 1:] = x[:, :-1]`` reads what it wrote a moment before where the copy runs from front to back: the first row is
then everywhere. A tracer that replays such a copy writes that into the graph, and the graph means it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from s2mlp_deploy.shift.op import shift
from s2mlp_deploy.shift.spec import ShiftGroup, ShiftSpec

_FEWEST = 3
"""Of two elements the first one everywhere is a shift too."""
_MOST_KEPT = 0.9
"""A tensor that holds more of its elements still was not smeared."""


@dataclass(frozen=True)
class Smear:
    """A smear and the shift that was meant.

    Attributes:
        spec: The shift, with the papers' border.
        smeared: By group, whether it was smeared; others moved as they should.
    """

    spec: ShiftSpec
    smeared: tuple[bool, ...]

    def of(self, x: Tensor) -> Tensor:
        """The smear of a tensor.

        Raises:
            ShiftError: The tensor has other channels.
        """
        parts, start = [], 0
        meant = shift(x, self.spec)
        for group, smeared in zip(self.spec.groups, self.smeared, strict=True):
            part = (x if smeared else meant).narrow(self.spec.channel_axis, start, group.channels)
            if smeared:
                (axis,) = (a for a, step in zip(self.spec.axes, group.offsets, strict=True) if step)
                forward = sum(group.offsets) > 0
                edge = part.narrow(axis, 0 if forward else part.shape[axis] - 1, 1)
                part = edge.expand_as(part)
            parts.append(part)
            start += group.channels
        return torch.cat(parts, self.spec.channel_axis)


def match_smear(moved: Tensor, base: Tensor) -> Smear | None:
    """The smear that turns ``base`` into ``moved``; None where it is none.

    One group that holds its first row everywhere may be meant so (a token that is repeated). It is taken for a smear
    where other groups move beside it, by a step or smeared along another way.

    Args:
        moved: Index map after the movement.
        base: Index map before it, each element once; the same shape.
    """
    if moved.shape != base.shape or moved.dim() < 3 or int(moved.min()) < 1:
        return None
    held = torch.zeros(int(moved.max()) + 1, dtype=torch.bool)
    held[moved.flatten()] = True
    if int(held.sum()) > _MOST_KEPT * moved.numel():
        return None
    for channel_axis in (moved.dim() - 1, 1):
        axes = [a for a in range(1, moved.dim()) if a != channel_axis and moved.shape[a] >= _FEWEST]
        rows = []
        for after, before in zip(moved.unbind(channel_axis), base.unbind(channel_axis), strict=True):
            kind = _kind(after, before, axes, channel_axis)
            if kind is None:
                break
            rows.append(kind)
        if len(rows) < moved.shape[channel_axis]:
            continue
        runs = [(key, len(list(run))) for key, run in groupby(rows)]
        moving = [key for key, _ in runs if key[1]]
        smeared = tuple(key[2] for key, _ in runs)
        if not any(smeared) or len({key[:2] for key in moving}) < 2:
            continue
        used = sorted({axis for axis, _, _ in moving})
        groups = tuple(ShiftGroup(n, tuple(key[1] if axis == key[0] else 0 for axis in used)) for key, n in runs)
        found = Smear(ShiftSpec(groups, tuple(used), channel_axis, "keep"), smeared)
        if torch.equal(found.of(base), moved):
            return found
    return None


def _kind(moved: Tensor, base: Tensor, axes: list[int], channel_axis: int) -> tuple[int, int, bool] | None:
    """(axis, step, whether smeared) of a channel; an axis of −1 and no step where it stays."""
    if torch.equal(moved, base):
        return -1, 0, False
    for whole in axes:
        axis = whole - (whole > channel_axis)
        size = base.shape[axis]
        for step in (1, -1):
            edge, inner = (0, 1) if step > 0 else (size - 1, 0)
            kept = base.narrow(axis, edge, 1)
            away = base.narrow(axis, 1 - inner, size - 1)
            parts = [kept, away] if step > 0 else [away, kept]
            if torch.equal(moved, torch.cat(parts, axis)):
                return whole, step, False
            if torch.equal(moved, kept.expand_as(base)):
                return whole, step, True
    return None
