"""Inputs of seeded noise, for when there is no data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.artifact import TensorInfo

if TYPE_CHECKING:
    from s2mlp_deploy.sources.source import Source


SAMPLES = 16
"""Samples of noise where nobody says how many."""


@dataclass(frozen=True)
class Inputs:
    """Batches of feeds and labels, what they are in words, and how many images there will be."""

    batches: Iterator[tuple[dict[str, NDArray[Any]], NDArray[np.int64] | None]]
    described: str
    total: int


def noise(source: Source, inputs: tuple[TensorInfo, ...], count: int, batch: int, seed: int) -> Inputs:
    """Gaussian noise of the inputs' shapes; inputs that are no floats keep the example's values."""
    import torch
    from torch.utils import _pytree as pytree

    examples = [value for value in pytree.tree_leaves(source.example_inputs) if isinstance(value, torch.Tensor)]
    # A plain name is a free size; "8*batch" is not, so the example's size stays.
    free = all(info.shape and isinstance(info.shape[0], str) and info.shape[0].isidentifier() for info in inputs)
    size = min(batch, count) if free else len(examples[0])
    steps = -(-count // size)
    generator = np.random.default_rng(seed)

    def feeds() -> dict[str, NDArray[Any]]:
        arrays = {}
        for info, example in zip(inputs, examples, strict=True):
            shape = (size, *example.shape[1:]) if free else tuple(example.shape)
            if example.is_floating_point():
                arrays[info.name] = generator.standard_normal(shape, dtype=np.float32).astype(info.dtype)
            else:
                arrays[info.name] = np.resize(example.numpy(), shape)
        return arrays

    total = steps * size
    return Inputs(
        ((feeds(), None) for _ in range(steps)), f"{total} samples of seeded Gaussian noise (seed {seed})", total
    )
