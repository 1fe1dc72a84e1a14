"""The names of dynamic axes, in one place for capture, export and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_OTHERS = MappingProxyType({"batch": 0})
_BY_RANK = {
    4: MappingProxyType({"batch": 0, "height": 2, "width": 3}),
    5: MappingProxyType({"batch": 0, "depth": 2, "height": 3, "width": 4}),
}

DYNAMIC_AXES = ("batch", "depth", "height", "width")
"""The names of axes that may be made dynamic, of whatever input."""


def named_axes(rank: int) -> Mapping[str, int]:
    """The axes of an input that may be made dynamic.

    Args:
        rank: How many axes it has: 4 are [N, C, H, W], 5 are [N, C, D, H, W]; of others only the batch has a name.

    Returns:
        Their positions by name.
    """
    return _BY_RANK.get(rank, _OTHERS) if rank else {}


def axis_name(axis: int, rank: int) -> str:
    """What an axis of an input is called where its size is free; ``axis1`` where it has no name.

    Args:
        axis: Its position.
        rank: How many axes the input has.
    """
    return next((name for name, position in named_axes(rank).items() if position == axis), f"axis{axis}")
