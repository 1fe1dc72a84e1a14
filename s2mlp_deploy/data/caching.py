"""Batches that are made once where they fit into memory: scoring five files goes through the same data five times."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Batch = tuple[dict[str, NDArray[Any]], NDArray[np.int64] | None]

LIMIT = 2**28
"""Bytes of inputs that are kept: 256 MiB, or 445 images of 3x224x224 in float32."""


class Batches(Protocol):
    """Data that can be gone through again and again, with the same batches each time."""

    def __iter__(self) -> Iterator[Batch]: ...


class ResumableBatches(Batches, Protocol):
    """Batches that can be gone through from any one of them on."""

    def from_batch(self, index: int) -> Iterator[Batch]:
        """The batches from this index on."""
        ...


class CachedBatches:
    """Data whose first batches are kept, up to :data:`LIMIT` bytes of inputs.

    An iteration makes only the batches behind those that are kept: nothing that is kept is read or decoded again.

    Args:
        data: What makes the batches.
    """

    def __init__(self, data: ResumableBatches) -> None:
        self._data = data
        self._kept: list[Batch] = []
        self._bytes = 0
        self._full = False
        self._whole = False

    def __iter__(self) -> Iterator[Batch]:
        known = len(self._kept)
        # Another iteration may add to the list meanwhile; those batches come from the data here.
        yield from self._kept[:known]
        if self._whole:
            return
        for position, batch in enumerate(self._data.from_batch(known), known):
            if position == len(self._kept) and not self._full:
                size = sum(array.nbytes for array in batch[0].values())
                self._full = self._bytes + size > LIMIT
                if not self._full:
                    self._kept.append(batch)
                    self._bytes += size
            yield batch
        self._whole = not self._full

    def first(self, samples: int) -> Iterator[dict[str, NDArray[Any]]]:
        """See :func:`first_inputs`."""
        return first_inputs(self, samples)


def first_inputs(batches: Batches, samples: int) -> Iterator[dict[str, NDArray[Any]]]:
    """The inputs of the first batches, until so many samples were seen."""
    seen = 0
    for feeds, _ in batches:
        yield feeds
        seen += len(next(iter(feeds.values())))
        if seen >= samples:
            return
