"""Numbers as people read them, the same on the page and in the terminal.

ASCII only, because the terminal may be a pipe of any encoding. ``None`` is a figure that does not exist and becomes
``-``; NaN and infinities are named in words.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence

MISSING = "-"
NOT_FINITE = "not finite"
EQUAL = "equal"
_OF_ITSELF = re.compile(r"\b(images|samples) of \1\b")
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def figure(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return NOT_FINITE
    return f"{value:.3g}"


def cosine(value: float | None) -> str:
    """Seven decimals, cut rather than rounded: only an exact 1 reads as 1."""
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return NOT_FINITE
    if value >= 1:
        return "1"
    if value < -1:  # Of a damaged record: too large to be cut.
        return figure(value)
    return f"{math.trunc(value * 1e7) / 1e7:.7f}"


def decibels(value: float | None) -> str:
    """A PSNR; plus infinity stands for tensors that are equal."""
    if value == math.inf:
        return EQUAL
    if value is None:
        return MISSING
    return f"{value:.1f} dB" if math.isfinite(value) else NOT_FINITE


def percent(value: float | None, digits: int = 2) -> str:
    """A share of 1 as a percentage, which reads 100 % or 0 % only where it is exactly that."""
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return NOT_FINITE
    if value in (0, 1):
        return f"{100 * value:g} %"
    step: float = 10.0**-digits
    shown = 100 * value
    if 0 < value < 1:
        shown = min(max(shown, step), 100 - step)
    return f"{shown:.{digits}f} %"


def points(value: float | None, *, signed: bool = False) -> str:
    """A score or a drop: two decimals, as percentage points are given."""
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return NOT_FINITE
    # Adding 0 makes the -0.0 that a tiny loss rounds to a plain 0.
    shown = round(value, 2) + 0.0
    return f"{shown:{'+' if signed else ''}{'.2f' if abs(shown) < 1e6 else '.3g'}}"


def size(amount: float) -> str:
    """Bytes with a decimal unit, as file managers and registries count."""
    unit = 0
    # 999,950 would round to 1000.0 kB.
    while abs(amount) >= 999.95 and unit < len(_UNITS) - 1:
        amount /= 1000
        unit += 1
    return f"{amount:.0f} {_UNITS[0]}" if unit == 0 else f"{amount:.1f} {_UNITS[unit]}"


def integer(value: int) -> str:
    """A count with thousands separators."""
    return f"{value:,}"


def count(amount: int, noun: str, plural: str | None = None) -> str:
    """``1 file``, ``1,024 files``."""
    return f"{amount:,} {noun if amount == 1 else plural or noun + 's'}"


def seconds(value: float) -> str:
    """A duration."""
    return f"{value:.2f} s" if value < 60 else f"{int(value // 60)} min {int(value % 60):02d} s"


def milliseconds(value: float | None) -> str:
    """A time of a run: three significant digits, without an exponent."""
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return NOT_FINITE
    return f"{value:.3g}" if 1e-3 <= value < 1000 else f"{value:.0f}"


def rate(value: float) -> str:
    """How many a second: whole ones with thousands separators, three significant digits below a hundred."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def shape(sizes: Sequence[int | str], cross: str = "x") -> str:
    """Sizes along the axes; with the default cross as the shape options take them."""
    return cross.join(str(item) for item in sizes) or "scalar"


def short_hash(value: str) -> str:
    """The first twelve digits of a hash."""
    return value[:12] or MISSING


def plain(value: object) -> str:
    """A configuration's value on one line."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        # 1/255 is how everybody writes the scale of 8-bit pixels, and 0.0039215... how nobody does.
        return "1/255" if value == 1 / 255 else f"{value:g}"
    if isinstance(value, Sequence) and not any(isinstance(item, Sequence | Mapping) for item in value):
        return ", ".join(plain(item) for item in value)
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(value)


def deviation(distances: Mapping[str, float | None] | None) -> str:
    """How far eager is from the functional meaning, by number of threads; empty where nothing was measured."""
    return ", ".join(
        f"{figure(value)} with {threads} thread{'' if threads == '1' else 's'}"
        for threads, value in (distances or {}).items()
    )


def data(described: str) -> str:
    """What was measured on; a folder that is called as what it holds is called a folder.

    >>> data("200 images of images"), data("200 images of photos")
    ('200 images of the folder images', '200 images of photos')
    """
    return _OF_ITSELF.sub(r"\1 of the folder \1", described)
