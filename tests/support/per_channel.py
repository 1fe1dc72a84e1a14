"""Shifts of one channel a group: many groups, few or many distinct steps."""

from __future__ import annotations

from collections.abc import Callable

from s2mlp_deploy.shift.spec import Border, ShiftGroup, ShiftSpec

Shape = tuple[int, ...]

STEPS: dict[str, Callable[[int], tuple[int, ...]]] = {
    "cycle-of-rows": lambda c: (c % 7 - 3, 0),
    "cycle-of-columns": lambda c: (0, c % 5 - 2),
    "own-step": lambda c: (0, c),
    "own-diagonal": lambda c: (c, -c),
    "neighbours": lambda c: ((0, 1), (0, -1), (1, 0), (-1, 0), (0, 0))[c % 5],
    "two-apart": lambda c: ((2, 0), (0, -2), (0, 0))[c % 3],
}
"""Rows and columns by the number of the channel."""

PLACES: dict[str, tuple[int, int, int]] = {"NCHW": (1, 2, 3), "NHWC": (3, 1, 2), "NHCW": (2, 1, 3), "NWCH": (2, 3, 1)}
"""Axes of channels, rows and columns."""


def per_channel(
    steps: str, place: str, border: Border, channels: int = 11, size: tuple[int, int] = (5, 4), batch: int = 2
) -> tuple[Shape, ShiftSpec]:
    """A shape and a shift of it with a group for every channel."""
    channel, rows, columns = PLACES[place]
    shape = [batch] * 4
    shape[channel], shape[rows], shape[columns] = channels, *size
    groups = tuple(ShiftGroup(1, STEPS[steps](c)) for c in range(channels))
    return tuple(shape), ShiftSpec(groups, (rows, columns), channel, border)
