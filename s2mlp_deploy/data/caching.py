"""Batches that are made once where they fit into memory: scoring five files goes through the same data five times."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Batch = tuple[dict[str, NDArray[Any]], NDArray[np.int64] | None]

LIMIT = 2**28
"""Bytes of inputs that are kept: 256 MiB, or 446 images of 3x224x224 in float32."""


class Batches(Protocol):
    """Data that can be gone through again and again, with the same batches each time."""

    def __iter__(self) -> Iterator[Batch]: ...


class CachedBatches:
    """Data whose first batches are kept, up to :data:`LIMIT` bytes of inputs; the rest is made anew each time.

    Args:
        data: What makes the batches.
    """

    def __init__(self, data: Batches) -> None:
        self._data = data
        self._kept: list[Batch] = []
        self._bytes = 0
        self._whole = False

    def __iter__(self) -> Iterator[Batch]:
        yield from list(self._kept)
        if self._whole:
            return
        known, full = len(self._kept), False
        for position, batch in enumerate(self._data):
            if position >= known:
                size = sum(array.nbytes for array in batch[0].values())
                full = full or self._bytes + size > LIMIT
                if not full and position == len(self._kept):
                    self._kept.append(batch)
                    self._bytes += size
                yield batch
        self._whole = not full and self._kept != [] and self._bytes <= LIMIT

    def first(self, samples: int) -> Iterator[dict[str, NDArray[Any]]]:
        """The inputs of the first batches, until so many samples were seen."""
        seen = 0
        for feeds, _ in self:
            yield feeds
            seen += len(next(iter(feeds.values())))
            if seen >= samples:
                return
