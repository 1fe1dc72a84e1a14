"""From a histogram to the range that is quantized: MinMax, Percentile, Entropy and MSE.

The methods are those of ``onnxruntime.quantization`` (MinMax, Percentile, Entropy) and of PyTorch's HistogramObserver
(MSE). They are written here because one pass over the data then serves all of them, in memory that does not grow with
the data: ONNX Runtime's calibraters run one method a pass and keep every activation of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.calibration.histogram import BINS, Histogram
from s2mlp_deploy.errors import InputError

PERCENTILE = 99.999
"""The share of values, in percent, that the percentile method keeps: ONNX Runtime's default."""

DEFAULT_METHOD = "percentile"
"""On CIFAR-10 symmetric int8 agrees with float32 on 98.5 % of the images by MinMax and on 99.0 % so; uint8 is 99.2 % by
either (``benchmarks/accuracy.md``). One value in 100,000 is what outliers of a few pictures are worth."""

_LEVELS = 128
"""Magnitudes that symmetric int8 tells apart, the zero among them."""
_LEAST_KEPT = 0.99
"""Share of values that the entropy method does not clip in any case."""
_STEPS = 96
"""Ranges that MSE tries, from all of the observed one down to a twentieth of it."""


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


def choose_range(histogram: Histogram, method: str, *, symmetric: bool) -> Range:
    """The range to quantize.

    Args:
        histogram: Of the tensor, over the calibration data.
        method: A name of :data:`METHODS`.
        symmetric: Whether the range is for int8 with zero-point 0 (then ``low == -high``), or for uint8.

    Raises:
        InputError: There is no such method.
    """
    check_method(method)
    if histogram.total == 0 or histogram.limit == 0.0:
        return Range(0.0, 0.0)
    return METHODS[method](histogram, symmetric)


def check_method(method: str) -> None:
    """Refuses a method that does not exist.

    Raises:
        InputError: It lists those that do.
    """
    if method not in METHODS:
        raise InputError(f"there is no calibration method {method!r}", fix=f"choose from {', '.join(METHODS)}")


def _minmax(histogram: Histogram, symmetric: bool) -> Range:
    observed = _observed(histogram)
    return Range(-observed.magnitude, observed.magnitude) if symmetric else observed


def _percentile(histogram: Histogram, symmetric: bool) -> Range:
    """Cuts what is beyond the percentile: of magnitudes, or half of it at either end."""
    outside = 1 - PERCENTILE / 100
    if symmetric:
        kept = np.cumsum(histogram.magnitudes()) / histogram.total
        magnitude = float(np.searchsorted(kept, 1 - outside) + 1) * histogram.width
        return _clip(histogram, magnitude, symmetric=True)
    below = np.cumsum(histogram.counts) / histogram.total
    low = (int(np.searchsorted(below, outside / 2)) - BINS / 2) * histogram.width
    high = (int(np.searchsorted(below, 1 - outside / 2)) + 1 - BINS / 2) * histogram.width
    observed = _observed(histogram)
    return Range(min(max(low, observed.low), 0.0), max(min(high, observed.high), 0.0))


def _entropy(histogram: Histogram, symmetric: bool) -> Range:
    """The threshold whose 128 levels lose least information (Kullback-Leibler), as TensorRT's calibrator had it."""
    counts = histogram.magnitudes().astype(np.float64)
    filled = int(np.flatnonzero(counts)[-1]) + 1
    best, threshold = np.inf, filled
    # Where the bins around 0 are empty, a threshold below almost all values loses no information by this measure: all
    # of them share the last bin.
    enough = int(np.searchsorted(np.cumsum(counts), _LEAST_KEPT * counts.sum())) + 1
    for bins in range(max(min(_LEVELS, filled), enough), filled + 1):
        divergence = _divergence(counts, bins)
        if divergence < best:
            best, threshold = divergence, bins
    return _clip(histogram, threshold * histogram.width, symmetric=symmetric)


def _divergence(counts: NDArray[np.float64], bins: int) -> float:
    """Of the clipped distribution from itself in 128 levels; empty bins stay empty, as in the published method."""
    reference = counts[:bins].copy()
    reference[-1] += counts[bins:].sum()
    inside = counts[:bins]
    # Which of the 128 levels a bin falls into; a level's count is spread evenly over its bins that hold anything.
    level = np.arange(bins) * _LEVELS // bins
    occupied = inside > 0
    sums = np.bincount(level, weights=inside, minlength=_LEVELS)
    sizes = np.bincount(level, weights=occupied, minlength=_LEVELS)
    spread = np.where(occupied, sums[level] / np.maximum(sizes[level], 1), 0.0)
    p, q = reference / reference.sum(), spread / max(spread.sum(), 1.0)
    seen = p > 0
    # Where clipping put mass into a bin that holds none, the divergence is infinite in theory; a floor keeps order.
    return float(np.sum(p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-12))))


def _mse(histogram: Histogram, symmetric: bool) -> Range:
    """The observed range, shrunk by the factor that makes the expected squared error least."""
    observed = _minmax(histogram, symmetric)
    filled = np.flatnonzero(histogram.counts)
    values, counts = histogram.centres[filled], histogram.counts[filled]
    levels = 254 if symmetric else 255

    def error(factor: float) -> float:
        low, high = observed.low * factor, observed.high * factor
        step = (high - low) / levels
        rounded = np.clip(np.rint((values - low) / step), 0, levels) * step + low
        return float(np.sum(counts * (values - rounded) ** 2))

    factor = min(np.linspace(1.0, 0.05, _STEPS), key=error)
    return Range(observed.low * float(factor), observed.high * float(factor))


def _observed(histogram: Histogram) -> Range:
    return Range(min(histogram.minimum, 0.0), max(histogram.maximum, 0.0))


def _clip(histogram: Histogram, magnitude: float, *, symmetric: bool) -> Range:
    observed = _observed(histogram)
    magnitude = min(magnitude, observed.magnitude)
    if symmetric:
        return Range(-magnitude, magnitude)
    return Range(max(observed.low, -magnitude), min(observed.high, magnitude))


METHODS: Mapping[str, Callable[[Histogram, bool], Range]] = {
    "minmax": _minmax,
    "entropy": _entropy,
    "percentile": _percentile,
    "mse": _mse,
}
"""How a range is chosen, by name."""
