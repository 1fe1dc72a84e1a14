"""How near the outputs of other precisions are to float32's: what needs no labels, and no scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.data.caching import Batches
from s2mlp_deploy.engines.base import Arrays, Engine
from s2mlp_deploy.evidence.parity import OutputParity
from s2mlp_deploy.metrics import RankComparison, TensorComparison

_REMEMBERED = 2**27
"""Bytes of the reference's outputs that are remembered: 128 MiB. What is beyond is computed again."""


class Run(NamedTuple):
    """What an engine gave on all batches.

    Attributes:
        figures: Each output beside the reference's.
        outputs: Those that were asked for, of all samples.
        labels: Of all samples, -1 where one has none.
    """

    figures: tuple[OutputParity, ...]
    outputs: dict[str, NDArray[Any]]
    labels: NDArray[np.int64]


class Beside:
    """Engines beside a reference on the same batches; its outputs are remembered while they fit.

    Args:
        reference: What is right.
        data: What all run on.
        on_samples: Told of each run how many samples are done.
    """

    def __init__(self, reference: Engine, data: Batches, on_samples: Callable[[int], None] | None = None) -> None:
        self._reference = reference
        self._data = data
        self._on_samples = on_samples
        self._known: list[Arrays] = []
        self._bytes = 0

    def reference(self, kept: Sequence[str]) -> Run:
        """The reference's own outputs, without figures.

        Args:
            kept: Names of the outputs that are wanted.
        """
        return self._run(None, kept)

    def run(self, engine: Engine, kept: Sequence[str] = ()) -> Run:
        """Runs an engine and compares each of its outputs with the reference's of the same name.

        Args:
            engine: Has the reference's outputs; its inputs may have other names and types, in the same order.
            kept: Names of the outputs that are wanted.
        """
        return self._run(engine, kept)

    def _run(self, engine: Engine | None, kept: Sequence[str]) -> Run:
        names = [info.name for info in self._reference.outputs]
        tensors = {name: TensorComparison() for name in names}
        ranks: dict[str, RankComparison] = {}
        pieces: dict[str, list[NDArray[Any]]] = {name: [] for name in kept}
        labels, done = [], 0
        for feeds, known, expected in self._expected():
            actual = expected if engine is None else run_on(engine, feeds)
            for name in names:
                if name in pieces:
                    pieces[name].append(actual[name])
                # Outputs of another shape have no distance.
                if engine is None or expected[name].shape != actual[name].shape:
                    continue
                tensors[name].update(expected[name], actual[name])
                if expected[name].ndim == 2 and expected[name].shape[1] > 1:
                    ranks.setdefault(name, RankComparison()).update(expected[name], actual[name], known)
            labels.append(np.full(len(next(iter(feeds.values()))), -1, np.int64) if known is None else known)
            done += len(labels[-1])
            if self._on_samples is not None:
                self._on_samples(done)
        figures = ((name, tensors[name].result(), ranks.get(name)) for name in names)
        return Run(
            tuple(OutputParity(n, m, None if r is None else r.result()) for n, m, r in figures if m.elements),
            {name: np.concatenate(arrays) for name, arrays in pieces.items()},
            np.concatenate(labels),
        )

    def _expected(self) -> Iterator[tuple[Mapping[str, NDArray[Any]], NDArray[np.int64] | None, Arrays]]:
        for position, (feeds, labels) in enumerate(self._data):
            if position < len(self._known):
                yield feeds, labels, self._known[position]
                continue
            outputs = run_on(self._reference, feeds)
            size = sum(array.nbytes for array in outputs.values())
            if position == len(self._known) and self._bytes + size <= _REMEMBERED:
                self._known.append(outputs)
            self._bytes += size
            yield feeds, labels, outputs


def run_on(engine: Engine, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
    """Runs an engine whose inputs may have other names and types than the data's, in the same order."""
    renamed = dict(zip((info.name for info in engine.inputs), feeds.values(), strict=True))
    return engine.run({i.name: renamed[i.name].astype(i.dtype, copy=False) for i in engine.inputs})
