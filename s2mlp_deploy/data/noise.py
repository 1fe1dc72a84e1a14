"""Seeded noise as inputs, for when there is no data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.errors import DataError

NOISE_SAMPLES = 16
"""Samples of noise unless the user says otherwise."""


MAX_NOISE = 100_000
"""Most samples of noise: more would run for days and tell nothing."""


def noise(shape: Sequence[int], dtype: str, generator: np.random.Generator) -> NDArray[Any]:
    """An input of noise: Gaussian for floats, any pixel for uint8, and zeros for what may be an index or a flag.

    Args:
        shape: Of the array.
        dtype: NumPy's name of the element type.
        generator: Of the numbers.
    """
    if np.issubdtype(np.dtype(dtype), np.floating):
        return generator.standard_normal(shape, dtype=np.float32).astype(dtype)
    return generator.integers(256, size=shape, dtype=np.uint8) if dtype == "uint8" else np.zeros(shape, dtype)


class NoiseBatches:
    """Batches of Gaussian noise; inputs that are no floats keep the example's values.

    Args:
        inputs: Names, dtypes and shapes.
        examples: An example of each, in the same order.
        samples: At least so many; a fixed batch makes it a multiple of that.
        batch: Samples in a batch, where the batch is free.
        whole: Whether the model takes whole batches of that size only.
        seed: The same seed gives the same batches.

    Attributes:
        count: How many samples there are.
        described: What they are, in words.
    """

    def __init__(
        self,
        inputs: Sequence[TensorInfo],
        examples: Sequence[NDArray[Any]],
        *,
        samples: int,
        batch: int,
        seed: int,
        whole: bool = False,
    ) -> None:
        self._inputs = tuple(zip(inputs, examples, strict=True))
        # A plain name is a free size; of a formula with several names the example's size stays.
        self._free = all(
            info.shape and isinstance(info.shape[0], str) and info.shape[0].isidentifier() for info in inputs
        )
        self._size = (batch if whole else min(batch, samples)) if self._free else len(examples[0])
        if samples > MAX_NOISE:
            raise DataError(
                f"{samples:,} samples of noise were asked for", fix=f"--samples: at most {MAX_NOISE:,}, or give data"
            )
        self._batches = -(-samples // self._size)
        self._seed = seed
        self.count: int = self._batches * self._size
        self.described: str = f"{self.count} samples of seeded Gaussian noise (seed {seed})"

    def __iter__(self) -> Iterator[tuple[dict[str, NDArray[Any]], NDArray[np.int64] | None]]:
        """Feeds by input name, without labels."""
        generator = np.random.default_rng(self._seed)
        for _ in range(self._batches):
            yield {info.name: self._array(info, example, generator) for info, example in self._inputs}, None

    def _array(self, info: TensorInfo, example: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
        shape = (self._size, *example.shape[1:]) if self._free else example.shape
        if np.issubdtype(example.dtype, np.floating):
            return noise(shape, info.dtype, generator)
        return np.resize(example, shape)
