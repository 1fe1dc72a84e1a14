"""Numbers as people read them, the same on the page and in the terminal.

ASCII only, because the terminal may be a pipe of any encoding. Every function takes whatever a saved file held:
``None`` is a figure that nobody measured and becomes ``-``; NaN and infinities are named in words.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

MISSING = "-"
NOT_FINITE = "not finite"
EQUAL = "equal"
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def number(value: object) -> float | None:
    """A number, or None where the value is none. Text such as ``"NaN"`` counts: some JSON writers spell it so."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


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
    return f"{math.trunc(value * 1e7) / 1e7:.7f}"


def decibels(value: float | None) -> str:
    """A PSNR; plus infinity stands for tensors that are equal."""
    if value == math.inf:
        return EQUAL
    if value is None:
        return MISSING
    return f"{value:.1f} dB" if math.isfinite(value) else NOT_FINITE


def plain_number(value: object) -> str:
    """A limit as it was written: all of its digits."""
    amount = number(value)
    return MISSING if amount is None else f"{amount:.15g}"


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


def size(value: object) -> str:
    """Bytes with a decimal unit, as file managers and registries count."""
    amount = number(value)
    if amount is None or not math.isfinite(amount):
        return MISSING
    unit = 0
    # 999,950 would round to 1000.0 kB.
    while abs(amount) >= 999.95 and unit < len(_UNITS) - 1:
        amount /= 1000
        unit += 1
    return f"{amount:.0f} {_UNITS[0]}" if unit == 0 else f"{amount:.1f} {_UNITS[unit]}"


def integer(value: object) -> str:
    """A count with thousands separators."""
    amount = number(value)
    return MISSING if amount is None or not math.isfinite(amount) else f"{round(amount):,}"


def count(amount: int, noun: str, plural: str | None = None) -> str:
    """``1 file``, ``1,024 files``."""
    return f"{amount:,} {noun if amount == 1 else plural or noun + 's'}"


def seconds(value: object) -> str:
    """A duration."""
    amount = number(value)
    if amount is None or not math.isfinite(amount):
        return MISSING
    if amount < 60:
        return f"{amount:.2f} s"
    return f"{int(amount // 60)} min {int(amount % 60):02d} s"


def shape(sizes: object, cross: str = "x") -> str:
    """Sizes along the axes; with the default cross the idiom that the shape options take."""
    if not isinstance(sizes, Sequence) or isinstance(sizes, str):
        return MISSING
    return cross.join(str(item) for item in sizes) or "scalar"


def short_hash(value: object) -> str:
    """The first twelve digits of a hash."""
    return value[:12] if isinstance(value, str) and value else MISSING


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


def words(items: Sequence[Any], last: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    texts = [str(item) for item in items]
    return f" {last} ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def effect(distances: Mapping[str, Any] | None) -> str:
    """How far eager is from the functional meaning, by number of threads; empty where nothing was measured."""
    return ", ".join(
        f"{figure(number(value))} with {threads} thread{'' if threads == '1' else 's'}"
        for threads, value in (distances or {}).items()
    )
