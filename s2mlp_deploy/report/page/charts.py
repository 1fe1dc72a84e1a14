"""The geometry of the plots of a quantization: what every layer costs, and where ranges cut a histogram.

Own code, not a plotting library: the page must be one small file without scripts, the same bytes each time, with a text
alternative for every bar; a library would also be the largest thing that reports need.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Literal

from s2mlp_deploy.evidence.calibration import ActivationRange
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.text import join_names

# Both drawings in their own units; the page shows them at three fifths of that or larger. 150 layers fit the width.
_SQNR_WIDTH, _SQNR_LEFT, _SQNR_TOP, _SQNR_HEIGHT, _THINNEST = 560.0, 44.0, 18.0, 130.0, 3.4
_MOST_WORST = 5
_LOUDEST, _QUIETEST = -100.0, 200.0
"""Ends of the axis in dB; 200 is what is written for a layer without any error."""

_WIDTH, _MARGIN, _HEIGHT = 320.0, 8.0, 84.0

NUMBER_TYPES = {"uint8": ("uint8", 4), "int8": ("int8", 3), "float8e4m3fn": ("fp8", 5)}
"""What a number type's range is called, and the number of its colour."""


@dataclass(frozen=True)
class Bar:
    """A layer.

    Attributes:
        x: Left side.
        y: Upper side.
        width: Of the bar.
        height: Of the bar.
        rank: 1 for the worst layer, 2 for the next; 0 where it is none of those that are named.
        kept: Whether it stays in higher precision.
        title: Name and value.
    """

    x: float
    y: float
    width: float
    height: float
    rank: int
    kept: bool
    title: str


@dataclass(frozen=True)
class SqnrPlot:
    """A bar for each layer, in graph order.

    Attributes:
        title: Its text alternative in one sentence.
        description: The worst layers in words.
        width: Of the drawing.
        height: Of the drawing.
        wide: Whether it has more layers than fit: then it keeps its size, and the page scrolls it.
        left: Where the axis stands.
        ticks: Height and label of each line.
        bars: The layers.
        worst: Name, value and whether it is kept, of the layers that are numbered.
        unmeasured: How many layers have no finite value and so no bar.
    """

    title: str
    description: str
    width: float
    height: float
    wide: bool
    left: float
    ticks: tuple[tuple[float, str], ...]
    bars: tuple[Bar, ...]
    worst: tuple[tuple[str, str, bool], ...]
    unmeasured: int


def draw_sqnr(costs: Mapping[str, float | None], kept: Set[str]) -> SqnrPlot | None:
    """Draws what quantizing costs each layer; None where nothing was measured.

    Args:
        costs: Signal-to-quantization-noise ratio in dB by layer, in graph order.
        kept: Layers in higher precision.
    """
    values = {layer: value for layer, value in costs.items() if value is not None and math.isfinite(value)}
    if not values:
        return None
    shown = {layer: min(max(value, _LOUDEST), _QUIETEST) for layer, value in values.items()}
    # A layer without error would press all others flat; its bar ends at the top like the best of them.
    low = min(0.0, 10 * math.floor(min(shown.values()) / 10))
    high = max(10.0, 10 * math.ceil(max((v for v in shown.values() if v < _QUIETEST), default=_QUIETEST) / 10))
    step = next(step for step in (10, 20, 50, 100) if (high - low) / step <= 6)

    ticks = range(step * math.ceil(low / step), math.floor(high) + 1, step)

    def y(value: float) -> float:
        return round(_SQNR_TOP + _SQNR_HEIGHT * (high - min(value, high)) / (high - low), 2)

    width = max(_SQNR_WIDTH, _SQNR_LEFT + _THINNEST * len(values))
    pitch = (width - _SQNR_LEFT) / len(values)
    order = sorted(values, key=lambda layer: values[layer])
    ranks = {layer: place for place, layer in enumerate(order[: min(_MOST_WORST, max(1, len(order) // 3))], start=1)}
    bars = tuple(
        Bar(
            x=round(_SQNR_LEFT + pitch * (index + 0.1), 2),
            y=min(y(value), y(0)),
            width=round(0.8 * pitch, 2),
            height=max(1.0, round(abs(y(value) - y(0)), 2)),
            rank=ranks.get(layer, 0),
            kept=layer in kept,
            title=f"{layer}: {_sqnr(values[layer])}{', kept in higher precision' if layer in kept else ''}",
        )
        for index, (layer, value) in enumerate(shown.items())
    )
    worst = tuple((layer, _sqnr(values[layer]), layer in kept) for layer in ranks)
    return SqnrPlot(
        title=f"Signal-to-quantization-noise ratio of {fmt.count(len(values), 'layer')}, in graph order",
        description=f"The worst: {join_names([f'{layer} {value}' for layer, value, _ in worst])}.",
        width=round(width, 2),
        height=_SQNR_TOP + _SQNR_HEIGHT + 22,
        wide=width > _SQNR_WIDTH,
        left=_SQNR_LEFT,
        ticks=tuple((y(tick), f"{tick} dB" if tick + step > high else f"{tick}") for tick in ticks),
        bars=bars,
        worst=worst,
        unmeasured=len(costs) - len(values),
    )


def _sqnr(value: float) -> str:
    return "no error" if value >= _QUIETEST else fmt.decibels(value)


@dataclass(frozen=True)
class KeptRange:
    """A range that was chosen.

    Attributes:
        scheme: What for.
        colour: Number of its colour.
        left: Where it begins in the drawing.
        right: Where it ends.
        text: The same in numbers.
        clipped: What lies outside, in words.
    """

    scheme: str
    colour: int
    left: float
    right: float
    text: str
    clipped: str


@dataclass(frozen=True)
class HistogramPlot:
    """A histogram with the ranges that were chosen for it.

    Attributes:
        name: Of the activation.
        layers: The layers that read it.
        seen: Smallest and largest value.
        description: Its text alternative.
        width: Of the drawing.
        height: Of the drawing.
        base: Where the bars stand.
        paths: Bars by what becomes of them: ``kept``, ``part`` (one range cuts them and another does not) or ``cut``.
        ranges: What is kept.
        ends: Values at the left and at the right end.
        zero: Where 0 is; None where it is outside.
    """

    name: str
    layers: tuple[str, ...]
    seen: str
    description: str
    width: float
    height: float
    base: float
    paths: tuple[tuple[str, str], ...]
    ranges: tuple[KeptRange, ...]
    ends: tuple[str, str]
    zero: float | None


def draw_histogram(activation: ActivationRange) -> HistogramPlot | None:
    """Draws an activation; None where its figures do not make a histogram."""
    start, width = activation.start, activation.width
    if start is None or width is None or not width > 0 or not any(activation.counts) or min(activation.counts) < 0:
        return None
    chosen = {
        scheme: (low, high)
        for scheme, (low, high) in activation.ranges.items()
        if low is not None and high is not None and low <= high
    }
    counts, edges = _trimmed(activation, start, width)
    left = min([edges[0], *(low for low, _ in chosen.values())])
    right = max([edges[-1], *(high for _, high in chosen.values())])
    # One finite end after the other can still be infinitely far apart.
    if not math.isfinite(right - left) or not right > left:
        return None

    def x(value: float) -> float:
        return round(_MARGIN + (_WIDTH - 2 * _MARGIN) * ((value - left) / (right - left)), 2)

    seen = f"{fmt.figure(activation.min)} to {fmt.figure(activation.max)}"
    ranges = tuple(
        KeptRange(
            *NUMBER_TYPES.get(scheme, (scheme, 7)),
            left=x(low),
            right=x(high),
            text=f"{fmt.figure(low)} to {fmt.figure(high)}",
            clipped=_clipped(counts, edges, low, high),
        )
        for scheme, (low, high) in chosen.items()
    )
    return HistogramPlot(
        name=activation.name,
        layers=activation.layers,
        seen=seen,
        description=f"Values from {seen}; "
        + "; ".join(f"{kept.scheme} keeps {kept.text}, {kept.clipped}" for kept in ranges),
        width=_WIDTH,
        height=_HEIGHT + 34,
        base=_HEIGHT + 8,
        paths=_bars(counts, [x(edge) for edge in edges], edges, tuple(chosen.values())),
        ranges=ranges,
        ends=(fmt.figure(left), fmt.figure(right)),
        zero=x(0.0) if left < 0 < right else None,
    )


Fate = Literal["kept", "part", "cut"]


def _bars(
    counts: Sequence[int], places: Sequence[float], edges: Sequence[float], ranges: Sequence[tuple[float, float]]
) -> tuple[tuple[str, str], ...]:
    """One path for each fate of a bin: a page may hold 150 of these drawings, and 64 elements each are too many."""
    highest = math.log1p(max(counts))
    paths: dict[Fate, list[str]] = {"kept": [], "part": [], "cut": []}
    for index, count in enumerate(counts):
        if not count:
            continue
        middle = (edges[index] + edges[index + 1]) / 2
        inside = [low <= middle <= high for low, high in ranges]
        fate: Fate = "kept" if all(inside) else "part" if any(inside) else "cut"
        tall = round(max(1.5, _HEIGHT * math.log1p(count) / highest), 1)
        wide = round(max(places[index + 1] - places[index], 0.3), 2)
        paths[fate].append(f"M{places[index]:g} {_HEIGHT + 8:g}v-{tall:g}h{wide:g}v{tall:g}z")
    return tuple((fate, "".join(parts)) for fate, parts in paths.items() if parts)


def _trimmed(activation: ActivationRange, start: float, width: float) -> tuple[tuple[int, ...], list[float]]:
    """The bins from the first to the last that hold anything, and their edges, of which the outer are what was seen.

    Bins are wider than the data needs: drawn whole, the outermost would seem to be cut by a range that cuts nothing.
    """
    filled = [index for index, count in enumerate(activation.counts) if count]
    first, last = filled[0], filled[-1]
    edges = [start + width * index for index in range(first, last + 2)]
    if activation.min is not None and edges[0] <= activation.min < edges[1]:
        edges[0] = activation.min
    if activation.max is not None and edges[-2] < activation.max <= edges[-1]:
        edges[-1] = activation.max
    return activation.counts[first : last + 1], edges


def _clipped(counts: Sequence[int], edges: Sequence[float], low: float, high: float) -> str:
    """How much of the values a range cuts off at most: the drawn bins are wider than those the range was chosen by."""
    # A range that ends at the edge of a bin does not cut it, whatever the last bits of the two say.
    slack = 1e-6 * (edges[-1] - edges[0])
    cut = sum(
        count for index, count in enumerate(counts) if edges[index] < low - slack or edges[index + 1] > high + slack
    )
    return f"clips at most {fmt.figure(100 * cut / sum(counts))} % of the values" if cut else "clips nothing"
