"""The distribution of absolute differences over all batches, in memory that does not grow with them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.evidence.layers import Errors
from s2mlp_deploy.metrics import TensorComparison, TensorMetrics

_PER_OCTAVE = 16
_LOWEST, _HIGHEST = -80, 80
"""Powers of two between which bins lie; smaller differences are in the first, larger ones in the last."""
_CHUNK = 1 << 17
_BINS = (_HIGHEST - _LOWEST) * _PER_OCTAVE


class ErrorSketch:
    """Counts absolute differences in bins of equal ratio, 2^(1/16): a quantile is right within 4.5 %.

    Values that are NaN or infinite on either side are left out; those that do not differ are counted as 0.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)
        self._zeros = 0
        self._sum = 0.0

    def update(self, reference: NDArray[Any], candidate: NDArray[Any]) -> None:
        """Adds a batch; both arrays have one shape."""
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            # In the type of the arrays: logarithms of float32 are several times faster, and a bin is 4.5 % wide.
            differences = np.abs(reference - candidate).ravel()
            total = float(differences.sum(dtype=np.float64))
            if not math.isfinite(total):
                differences = differences[np.isfinite(differences)]
                total = float(differences.sum(dtype=np.float64))
            self._sum += total
            zeros = differences.size - int(np.count_nonzero(differences))
            self._zeros += zeros
            numbers = (np.log2(differences) - _LOWEST) * _PER_OCTAVE
        counts = np.bincount(np.clip(numbers, 0, _BINS - 1).astype(np.int32), minlength=_BINS)
        counts[0] -= zeros  # Their logarithm is no number of a bin, and was clipped to the first.
        self._counts += counts

    def result(self) -> Errors:
        """The figures so far."""
        total = self._zeros + int(self._counts.sum())
        if not total:
            return Errors(None, None, None, None)
        mean = self._sum / total
        decades: dict[int, int] = {}
        for number in np.flatnonzero(self._counts):
            decade = math.floor(math.log10(_upper(int(number)) * 2 ** (-0.5 / _PER_OCTAVE)))
            decades[decade] = decades.get(decade, 0) + int(self._counts[number])
        median, p90, p99 = (self._quantile(share, total) for share in (0.5, 0.9, 0.99))
        return Errors(mean if math.isfinite(mean) else None, median, p90, p99, tuple(decades.items()))

    def _quantile(self, share: float, total: int) -> float:
        """The upper end of the bin in which so large a share of the elements ends."""
        wanted = math.ceil(share * total)
        if wanted <= self._zeros:
            return 0.0
        return _upper(int(np.searchsorted(np.cumsum(self._counts), wanted - self._zeros)))


def _upper(number: int) -> float:
    return float(2.0 ** (_LOWEST + (number + 1) / _PER_OCTAVE))


class LayerFigures:
    """All figures of one layer, over all batches."""

    def __init__(self) -> None:
        self._tensors, self._errors = TensorComparison(), ErrorSketch()

    def update(self, reference: NDArray[Any], candidate: NDArray[Any]) -> None:
        """Adds a batch.

        Raises:
            InputError: The shapes differ.
        """
        floats = np.issubdtype(reference.dtype, np.floating)
        for first, second in in_chunks(reference, candidate):
            self._tensors.update(first, second)
            if floats:
                self._errors.update(first, second)

    def result(self) -> tuple[TensorMetrics, Errors]:
        """The figures so far."""
        return self._tensors.result(), self._errors.result()


def in_chunks(first: NDArray[Any], second: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Two arrays in parts that fit a processor's cache: sums of them are float64, which takes memory otherwise.

    Arrays of different shapes come as they are, to be refused by who compares them.
    """
    if first.shape != second.shape or first.size <= _CHUNK:
        yield first, second
        return
    flat, other = first.reshape(-1), second.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        yield flat[start : start + _CHUNK], other[start : start + _CHUNK]


def float_array(array: NDArray[Any]) -> NDArray[Any]:
    """An array whose differences can be taken: float16 as float32."""
    return array.astype(np.float32) if array.dtype == np.float16 else array
