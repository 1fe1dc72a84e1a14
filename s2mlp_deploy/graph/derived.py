"""Constants that are parts of others, under names that say so: ``expand.weight_t.part0of3``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PART = re.compile(r"(?P<whole>.+)\.part(?P<index>\d+)of(?P<count>\d+)")


def part_name(whole: str, index: int, count: int) -> str:
    """The name of one of the equal parts that a constant is cut into along its output channels."""
    return f"{whole}.part{index}of{count}"


def part_of(name: str) -> tuple[str, int, int] | None:
    """What a name says it is a part of, which one and of how many; None where it says nothing.

    A suffix behind it, such as ``.quantized``, is not part of the name.
    """
    found = _PART.match(name)
    return None if found is None else (found["whole"], int(found["index"]), int(found["count"]))


def parts(array: NDArray[Any], count: int) -> list[NDArray[Any]]:
    """The parts: columns of weights of two axes, as MatMul reads them; else along the first axis (Conv, biases).

    Raises:
        ValueError: They would not be equal.
    """
    axis = 1 if array.ndim == 2 else 0
    return [np.ascontiguousarray(part) for part in np.split(array, count, axis=axis)]


def original(name: str, originals: Mapping[str, NDArray[Any]]) -> NDArray[Any] | None:
    """What a constant has to be, by its name: an original, or a part of one; None where there is none."""
    if name in originals:
        return originals[name]
    found = _PART.fullmatch(name)
    if found is None or found["whole"] not in originals:
        return None
    whole, index, count = originals[found["whole"]], int(found["index"]), int(found["count"])
    channels = whole.shape[1 if whole.ndim == 2 else 0] if whole.ndim else 0
    return parts(whole, count)[index] if index < count <= channels and channels % count == 0 else None
