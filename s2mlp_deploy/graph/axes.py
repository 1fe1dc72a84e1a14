"""The names of dynamic axes, in one place for capture, export and the command line."""

from __future__ import annotations

DYNAMIC_AXES = {"batch": 0, "height": 2, "width": 3}
"""The axes of NCHW inputs that may be made dynamic, by name."""


def axis_name(axis: int, default: str) -> str:
    """What an axis of an input is called where its size is free."""
    return next((name for name, position in DYNAMIC_AXES.items() if position == axis), default)
