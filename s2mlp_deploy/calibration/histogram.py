"""Histograms that grow with what they see: one pass over the data, whatever its range, in bounded memory."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.errors import DataError

BINS = 2048
"""Bins over the whole range. It ends at most one doubling above the largest value, so at least 512 lie up to it."""

_SMALLEST_LIMIT = 2.0**-100
"""What is smaller than a bin of this is 0 to every number type here, and float32 could not number its bins."""


class Histogram:
    """Counts of a tensor's values over all batches.

    The bins divide ``[-limit, limit)`` evenly and ``limit`` is a power of two. A value outside doubles the limit and
    merges neighbouring bins, so the result does not depend on the order of the batches and nothing is counted twice
    or moved between bins. (ONNX Runtime's collectors keep the values of every batch, or lay the bins of the first one.)
    """

    def __init__(self) -> None:
        self.limit = 0.0
        self.counts: NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.minimum = np.inf
        self.maximum = -np.inf

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    @property
    def width(self) -> float:
        """Of one bin."""
        return 2 * self.limit / BINS

    @property
    def centres(self) -> NDArray[np.float64]:
        """The middle of every bin."""
        return (np.arange(BINS, dtype=np.float64) - BINS / 2 + 0.5) * np.float64(self.width)

    def update(self, values: NDArray[np.floating]) -> None:
        """Adds values.

        Args:
            values: Of any shape, float16, float32 or float64.

        Raises:
            DataError: One is NaN or infinite.
        """
        if values.size == 0:
            return
        low, high = float(values.min()), float(values.max())
        if not np.isfinite([low, high]).all():
            raise DataError("values are NaN or infinite", fix="check the weights and the data")
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self._cover(max(-low, high))
        if self.limit == 0.0:
            self.counts[BINS // 2] += values.size
            return
        flat = np.asarray(values, np.float32).ravel()
        # A product with a power of two is exact, so a value is in the bin that it would be in at any other limit.
        index = np.floor(flat * np.float32(BINS / (2 * self.limit))).astype(np.int32) + BINS // 2
        self.counts += np.bincount(index, minlength=BINS)

    def copy(self) -> Histogram:
        """One that is updated on its own."""
        other = Histogram()
        other.limit, other.counts = self.limit, self.counts.copy()
        other.minimum, other.maximum = self.minimum, self.maximum
        return other

    def magnitudes(self) -> NDArray[np.int64]:
        """Counts of absolute values, in ``BINS / 2`` bins of the same width from 0 on."""
        half = BINS // 2
        return self.counts[half:] + self.counts[:half][::-1]

    def _cover(self, magnitude: float) -> None:
        """Makes the limit larger than the magnitude."""
        if magnitude < self.limit or magnitude == 0.0:
            return
        target = max(2.0 ** math.frexp(magnitude)[1], _SMALLEST_LIMIT)
        if self.limit == 0.0:
            self.limit = target
            return
        while self.limit < target:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            quarter = BINS // 4
            self.counts = np.concatenate([np.zeros(quarter, np.int64), pairs, np.zeros(quarter, np.int64)])
            self.limit *= 2
