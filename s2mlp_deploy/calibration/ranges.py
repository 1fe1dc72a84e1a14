"""From a histogram to the range that is quantized: MinMax, Percentile, Entropy and MSE.

The methods are those of ``onnxruntime.quantization`` (MinMax, Percentile, Entropy) and of PyTorch's HistogramObserver
(MSE). They are written here because one pass over the data then serves all of them and every number type, in memory
that does not grow with the data: ONNX Runtime's calibraters run one method a pass and keep every activation of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.calibration.histogram import BINS, Histogram
from s2mlp_deploy.errors import InputError

PERCENTILE = 99.999
"""The share of values, in percent, that the percentile method keeps: ONNX Runtime's default."""

LARGEST_E4M3 = 448.0
"""Of float8e4m3fn, which has no infinities (ONNX: "Float stored in 8 bits")."""

_LEAST_KEPT = 0.99
"""Share of values that the entropy method does not clip in any case."""
_STEPS = 96
"""Ranges that MSE tries, from all of the observed one down to a twentieth of it."""


class NumberType(Enum):
    """What a range is quantized to: its levels decide which range is best.

    Attributes:
        UINT8: 256 even steps from the range's low to its high end, with a zero-point.
        INT8: 255 even steps around 0, from -127 to 127.
        FLOAT8E4M3FN: The numbers of E4M3, scaled so that the end of the range becomes 448; symmetric.
    """

    UINT8 = "uint8"
    INT8 = "int8"
    FLOAT8E4M3FN = "float8e4m3fn"

    @property
    def symmetric(self) -> bool:
        """Whether its range is the same on both sides of 0."""
        return self is not NumberType.UINT8


def _e4m3() -> NDArray[np.float64]:
    """The 127 numbers of E4M3 from 0 to 448: below 2**-6 even steps, above it eight to each power of two."""
    eighths = np.arange(8) / 8
    normal = (2.0 ** np.arange(-6, 9))[:, None] * (1 + eighths)
    # The last code of all, 480, stands for NaN.
    return np.concatenate([2.0**-6 * eighths, normal.ravel()[:-1]])


_E4M3 = _e4m3()
_E4M3_BORDERS = (_E4M3[1:] + _E4M3[:-1]) / 2


@dataclass(frozen=True)
class Range:
    """The values that quantization keeps apart; others are clipped to it. Always holds 0.

    Attributes:
        low: At most 0.
        high: At least 0.
    """

    low: float
    high: float

    @property
    def magnitude(self) -> float:
        """The larger end."""
        return max(-self.low, self.high)


def choose_range(histogram: Histogram, method: str, number_type: NumberType) -> Range:
    """The range to quantize.

    Args:
        histogram: Of the tensor, over the calibration data.
        method: A name of :data:`METHODS`.
        number_type: What the range is quantized to. For a symmetric one ``low == -high``.

    Raises:
        InputError: There is no such method.
    """
    check_method(method)
    if histogram.total == 0 or histogram.limit == 0.0:
        return Range(0.0, 0.0)
    return METHODS[method](histogram, number_type)


def check_method(method: str) -> None:
    """Refuses a method that does not exist.

    Raises:
        InputError: It lists those that do.
    """
    if method not in METHODS:
        raise InputError(f"there is no calibration method {method!r}", fix=f"choose from {', '.join(METHODS)}")


def _minmax(histogram: Histogram, number_type: NumberType) -> Range:
    observed = _observed(histogram)
    return Range(-observed.magnitude, observed.magnitude) if number_type.symmetric else observed


def _percentile(histogram: Histogram, number_type: NumberType) -> Range:
    """Cuts what is beyond the percentile: of magnitudes, or half of it at either end."""
    outside = 1 - PERCENTILE / 100
    if number_type.symmetric:
        kept = np.cumsum(histogram.magnitudes()) / histogram.total
        magnitude = float(np.searchsorted(kept, 1 - outside) + 1) * histogram.width
        return _clip(histogram, magnitude, symmetric=True)
    below = np.cumsum(histogram.counts) / histogram.total
    low = (int(np.searchsorted(below, outside / 2)) - BINS / 2) * histogram.width
    high = (int(np.searchsorted(below, 1 - outside / 2)) + 1 - BINS / 2) * histogram.width
    observed = _observed(histogram)
    return Range(min(max(low, observed.low), 0.0), max(min(high, observed.high), 0.0))


def _entropy(histogram: Histogram, number_type: NumberType) -> Range:
    """The threshold whose levels lose least information (Kullback-Leibler), as TensorRT's calibrator had it.

    TensorRT's method knows int8 alone: 128 levels of magnitude. Here the levels are those of the number type, and for
    uint8, whose ends differ, the distribution is that of the values and not of their magnitudes.
    """
    half = BINS // 2
    magnitudes = histogram.magnitudes().astype(np.float64)
    filled = int(np.flatnonzero(magnitudes)[-1]) + 1
    # Where the bins around 0 are empty, a threshold below almost all values loses no information by this measure: all
    # of them share the last bin.
    enough = int(np.searchsorted(np.cumsum(magnitudes), _LEAST_KEPT * magnitudes.sum())) + 1
    counts = histogram.counts.astype(np.float64)
    # The range holds 0, so the bins next to it belong to it.
    used = np.flatnonzero(counts)
    lowest, highest = min(int(used[0]), half), max(int(used[-1]) + 1, half)
    best, threshold = np.inf, filled
    for bins in range(max(min(128, filled), enough), filled + 1):
        if number_type is NumberType.UINT8:
            first, last = max(lowest, half - bins), min(highest, half + bins)
            divergence = _divergence(counts, first, last, _even(last - first, 256))
        elif number_type is NumberType.INT8:
            divergence = _divergence(magnitudes, 0, bins, _even(bins, 128))
        else:
            centres = (np.arange(bins) + 0.5) * (LARGEST_E4M3 / bins)
            divergence = _divergence(magnitudes, 0, bins, np.searchsorted(_E4M3_BORDERS, centres))
        if divergence < best:
            best, threshold = divergence, bins
    return _clip(histogram, threshold * histogram.width, symmetric=number_type.symmetric)


def _even(bins: int, levels: int) -> NDArray[np.int64]:
    """The level of every bin, where levels are evenly spaced."""
    return np.arange(bins) * levels // bins


def _divergence(counts: NDArray[np.float64], first: int, last: int, level: NDArray[np.int64]) -> float:
    """Of the bins from ``first`` to ``last``, what lies outside clipped to them, from themselves in levels.

    Empty bins stay empty, as in the published method.
    """
    inside = counts[first:last]
    reference = inside.copy()
    reference[0] += counts[:first].sum()
    reference[-1] += counts[last:].sum()
    # A level's count is spread evenly over its bins that hold anything.
    occupied = inside > 0
    sums, sizes = np.bincount(level, weights=inside), np.bincount(level, weights=occupied)
    spread = np.where(occupied, sums[level] / np.maximum(sizes[level], 1), 0.0)
    p, q = reference / reference.sum(), spread / max(spread.sum(), 1.0)
    seen = p > 0
    # Where clipping put mass into a bin that holds none, the divergence is infinite in theory; a floor keeps order.
    return float(np.sum(p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-12))))


def _mse(histogram: Histogram, number_type: NumberType) -> Range:
    """The observed range, shrunk by the factor that makes the expected squared error least."""
    observed = _minmax(histogram, number_type)
    filled = np.flatnonzero(histogram.counts)
    values, counts = histogram.centres[filled], histogram.counts[filled]

    def error(factor: float) -> float:
        chosen = Range(observed.low * factor, observed.high * factor)
        return float(np.sum(counts * (values - _rounded(values, chosen, number_type)) ** 2))

    factor = min(np.linspace(1.0, 0.05, _STEPS), key=error)
    return Range(observed.low * float(factor), observed.high * float(factor))


def _rounded(values: NDArray[np.float64], chosen: Range, number_type: NumberType) -> NDArray[np.float64]:
    """Values quantized with a range and back."""
    if number_type is NumberType.FLOAT8E4M3FN:
        scale = chosen.high / LARGEST_E4M3
        codes = np.searchsorted(_E4M3_BORDERS, np.abs(values) / scale)
        return np.sign(values) * _E4M3[codes] * scale
    levels = 254 if number_type is NumberType.INT8 else 255
    step = (chosen.high - chosen.low) / levels
    return np.clip(np.rint((values - chosen.low) / step), 0, levels) * step + chosen.low


def _observed(histogram: Histogram) -> Range:
    return Range(min(histogram.minimum, 0.0), max(histogram.maximum, 0.0))


def _clip(histogram: Histogram, magnitude: float, *, symmetric: bool) -> Range:
    observed = _observed(histogram)
    magnitude = min(magnitude, observed.magnitude)
    if symmetric:
        return Range(-magnitude, magnitude)
    return Range(max(observed.low, -magnitude), min(observed.high, magnitude))


METHODS: Mapping[str, Callable[[Histogram, NumberType], Range]] = {
    "minmax": _minmax,
    "entropy": _entropy,
    "percentile": _percentile,
    "mse": _mse,
}
"""How a range is chosen, by name."""
