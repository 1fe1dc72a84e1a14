"""Does a candidate engine compute what the reference computes?

Both run on the same batches; what is kept are sums, so memory does not grow with the number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.engines.base import Arrays, Engine
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.evidence.parity import OutputParity
from s2mlp_deploy.metrics import RankComparison, TensorComparison
from s2mlp_deploy.parity.matching import match_names

Feeds = Mapping[str, NDArray[Any]]


def compare(
    reference: Engine,
    candidates: Mapping[str, Engine],
    batches: Iterable[tuple[Feeds, NDArray[np.int64] | None]],
    *,
    on_batch: Callable[[int], None] | None = None,
) -> tuple[int, dict[str, tuple[OutputParity, ...]]]:
    """Runs the reference once and every candidate on each batch.

    Inputs and outputs of a candidate are those of the reference with the same names; where a file from elsewhere names
    some otherwise, these are matched by their position.

    Args:
        reference: What is right.
        candidates: What is compared, by name.
        batches: Inputs by the reference's names, and labels where known.
        on_batch: Called with the number of images after each batch.

    Returns:
        The number of images, and for each candidate the figures of its outputs, under the reference's names.

    Raises:
        InputError: There are no inputs; a candidate has another number of inputs or outputs than the reference; an
            output is missing or has another shape.
    """
    names = [info.name for info in reference.outputs]
    matched = {key: _Matched(key, engine, reference) for key, engine in candidates.items()}
    tensors = {key: {name: TensorComparison() for name in names} for key in candidates}
    ranks = {key: {name: RankComparison() for name in names} for key in candidates}
    scores: set[str] = set()
    images = 0
    for feeds, labels in batches:
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
    return images, {
        key: tuple(
            OutputParity(name, tensors[key][name].result(), ranks[key][name].result() if name in scores else None)
            for name in names
        )
        for key in candidates
    }


class _Matched:
    """A candidate that is fed and read by the reference's names."""

    def __init__(self, key: str, engine: Engine, reference: Engine) -> None:
        self._key = key
        self._engine = engine
        sides = (key, "the reference")
        self._inputs, self._outputs = (
            match_names([i.name for i in own], [i.name for i in other], what=what, sides=sides)
            for what, own, other in (
                ("input", engine.inputs, reference.inputs),
                ("output", engine.outputs, reference.outputs),
            )
        )

    def run(self, feeds: Feeds) -> Arrays:
        """Floats are given in the engine's own type."""
        given = {}
        for info in self._engine.inputs:
            array = feeds[self._inputs[info.name]]
            rounds = array.dtype == np.float32 and info.dtype == "float16"
            given[info.name] = array.astype(np.float16) if rounds else array
        results = self._engine.run(given)
        if missing := [name for name in self._outputs if name not in results]:
            raise InputError(
                f"{self._key} has no output {', '.join(missing)}", fix=f"its outputs: {', '.join(results)}"
            )
        return {self._outputs[name]: array for name, array in results.items() if name in self._outputs}
