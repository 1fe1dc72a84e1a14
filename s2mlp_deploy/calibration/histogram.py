"""Histograms that grow with what they see: one pass over the data, whatever its range, in bounded memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.errors import DataError

BINS = 2048
"""Bins over the whole range. The range may double past the largest value, so at least 512 lie between 0 and it."""


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
        # Truncation is floor here: nothing is below -limit. A float32 product may round up to the last bin's end.
        index = ((flat + np.float32(self.limit)) * np.float32(BINS / (2 * self.limit))).astype(np.int32)
        np.minimum(index, BINS - 1, out=index)
        self.counts += np.bincount(index, minlength=BINS)

    def magnitudes(self) -> NDArray[np.int64]:
        """Counts of absolute values, in ``BINS / 2`` bins of the same width from 0 on."""
        half = BINS // 2
        return self.counts[half:] + self.counts[:half][::-1]

    def _cover(self, magnitude: float) -> None:
        """Makes the limit at least the magnitude."""
        if magnitude <= self.limit or magnitude == 0.0:
            return
        target = float(2.0 ** np.ceil(np.log2(magnitude)))
        if self.limit == 0.0:
            self.limit = target
            return
        while self.limit < target:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            quarter = BINS // 4
            self.counts = np.concatenate([np.zeros(quarter, np.int64), pairs, np.zeros(quarter, np.int64)])
            self.limit *= 2
