"""Does a candidate engine compute what the reference computes?

Both run on the same batches; what is kept are sums, so memory does not grow with the number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.engines.base import Engine
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.evidence.parity import OutputParity
from s2mlp_deploy.metrics import RankComparison, TensorComparison
from s2mlp_deploy.parity.matching import Matched

Feeds = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Comparison:
    """What was measured.

    Attributes:
        images: How many samples.
        figures: For each candidate those of its outputs, under the reference's names.
        notes: What a user should know of the inputs.
    """

    images: int
    figures: dict[str, tuple[OutputParity, ...]]
    notes: tuple[str, ...]


def compare(
    reference: Engine,
    candidates: Mapping[str, Engine],
    batches: Iterable[tuple[Feeds, NDArray[np.int64] | None]],
    *,
    on_batch: Callable[[int], None] | None = None,
) -> Comparison:
    """Runs the reference once and every candidate on each batch.

    Inputs and outputs of a candidate are those of the reference with the same names; where a file from elsewhere names
    some otherwise, these are matched by their position.

    Args:
        reference: What is right.
        candidates: What is compared, by name.
        batches: Inputs by the reference's names, and labels where known.
        on_batch: Called with the number of images after each batch.

    Raises:
        InputError: There are no inputs; a candidate has another number of inputs or outputs than the reference; an
            output is missing or has another shape.
    """
    names = [info.name for info in reference.outputs]
    matched = {key: Matched(key, engine, reference) for key, engine in candidates.items()}
    tensors = {key: {name: TensorComparison() for name in names} for key in candidates}
    ranks = {key: {name: RankComparison() for name in names} for key in candidates}
    scores: set[str] = set()
    images = 0
    variety = _Variety()
    for feeds, labels in batches:
        variety.update(feeds)
        expected = reference.run(feeds)
        size = len(next(iter(feeds.values())))
        images += size
        for key, candidate in matched.items():
            actual = candidate.run(feeds)
            for name in names:
                if expected[name].shape != actual[name].shape:
                    raise InputError(
                        f"output {name!r} has the shape {actual[name].shape}, not {expected[name].shape}",
                        where=key,
                        fix="compare with the source, checkpoint and settings that the file was exported from",
                    )
                tensors[key][name].update(expected[name], actual[name])
                if expected[name].ndim == 2 and expected[name].shape[1] > 1:
                    scores.add(name)
                    ranks[key][name].update(expected[name], actual[name], labels)
        if on_batch:
            on_batch(size)
    if images == 0:
        raise InputError("there is nothing to compare on: no inputs", fix="give data with at least one sample")
    figures = {
        key: tuple(
            OutputParity(name, tensors[key][name].result(), ranks[key][name].result() if name in scores else None)
            for name in names
        )
        for key in candidates
    }
    return Comparison(images, figures, variety.notes())


def compare_arrays(
    expected: Mapping[str, NDArray[Any]], actual: Mapping[str, NDArray[Any]]
) -> tuple[OutputParity, ...]:
    """The figures of outputs that are there already, by the names of those that are right; not judged.

    Raises:
        InputError: An output has another shape.
    """
    found = []
    for name, array in expected.items():
        comparison = TensorComparison()
        comparison.update(array, actual[name])
        found.append(OutputParity(name, comparison.result(), None))
    return tuple(found)


class _Variety:
    """Whether inputs can tell one element from another."""

    def __init__(self) -> None:
        self._first: dict[str, NDArray[Any]] = {}
        self._alike = self._constant = True
        self._samples = 0

    def update(self, feeds: Feeds) -> None:
        """Adds a batch."""
        self._samples += len(next(iter(feeds.values()), ()))
        for name, array in feeds.items():
            if not array.ndim or not len(array):
                continue
            first = self._first.setdefault(name, array[0].copy())
            # Decoded images may have any size: those of another size are other images.
            same = array.shape[1:] == first.shape
            self._alike &= same and bool(np.array_equal(array, np.broadcast_to(first, array.shape)))
            flat = array.reshape(len(array), -1)
            self._constant &= bool((flat == flat[:, :1]).all())

    def notes(self) -> tuple[str, ...]:
        """What they cannot tell, in words."""
        if self._constant:
            return (
                "every sample holds one value throughout (a black image), so that the figures tell no element apart",
            )
        if self._alike and self._samples > 1:
            return (f"all {self._samples} samples are alike, so that the figures are those of one",)
        return ()
