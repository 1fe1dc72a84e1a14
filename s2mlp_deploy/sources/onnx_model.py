"""A graph of an ONNX file in the place of a module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

EXAMPLE_BATCH = 2
"""One is told apart from more by exporters and engines."""


@dataclass(frozen=True)
class OnnxModel:
    """What an ONNX file holds.

    Attributes:
        path: The file.
        sha256: Of the file.
        model: Its graph, whose inputs have names for all of their free sizes. Not to be changed.
        sizes: The free sizes of the inputs by name, each with its value in the example.
        notes: What was made of the file, for the manifest.
    """

    path: Path
    sha256: str
    model: ir.Model
    sizes: Mapping[str, int]
    notes: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[ir.Value, ...]:
        """Of the graph."""
        return tuple(self.model.graph.inputs)

    def feeds(self, sizes: Mapping[str, int]) -> dict[str, NDArray[Any]]:
        """Inputs by name: Gaussian noise where they are floats, zeros where they may be indices or flags.

        Args:
            sizes: The free sizes; the example's for those that are not named.
        """
        generator = np.random.default_rng(0)
        values = {**self.sizes, **sizes}
        made: dict[str, NDArray[Any]] = {}
        for value in self.inputs:
            assert value.shape is not None
            assert value.dtype is not None
            shape = [size if isinstance(size, int) else values[str(size.value)] for size in value.shape]
            dtype = value.dtype.numpy()
            drawn = value.dtype.is_floating_point()
            array = generator.standard_normal(shape, dtype=np.float32) if drawn else np.zeros(shape)
            made[str(value.name)] = array.astype(dtype)
        return made
