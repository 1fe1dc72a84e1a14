"""Comparing from the pixels on: for files that preprocess their images themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.engines.base import Arrays, Engine
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.preprocess import Preprocessing, preprocess

_IMAGE = "image"


@dataclass(frozen=True)
class OnPixels:
    """An engine that takes preprocessed images, given decoded ones: what a graph that preprocesses is compared with.

    Attributes:
        engine: What computes.
        preprocessing: What makes its one input.
    """

    engine: Engine
    preprocessing: Preprocessing

    @property
    def name(self) -> str:
        """What it is called in reports."""
        return f"{self.engine.name} after Python's preprocessing"

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """One input: images of any size."""
        return (TensorInfo(_IMAGE, "uint8", ("batch", "height", "width", 3)),)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Those of the engine."""
        return self.engine.outputs

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Preprocesses the images, uint8 [N, H, W, 3], and runs the engine."""
        images = preprocess([Image.fromarray(pixels) for pixels in feeds[_IMAGE]], self.preprocessing)
        first = self.engine.inputs[0]
        return self.engine.run({first.name: images.astype(first.dtype, copy=False)})


def image_input(inputs: Sequence[TensorInfo]) -> TensorInfo:
    """The input that files which preprocess are fed with.

    Args:
        inputs: Their own, one for each file.

    Raises:
        InputError: Their batches are fixed at different sizes.
    """
    fixed = {info.shape[0] for info in inputs if isinstance(info.shape[0], int)}
    if len(fixed) > 1:
        raise InputError(
            f"the files' batches are fixed at {' and '.join(map(str, sorted(fixed)))}", fix="compare one at a time"
        )
    return TensorInfo(_IMAGE, "uint8", (fixed.pop() if fixed else "batch", "height", "width", 3))


def preprocessed_input(preprocessing: Preprocessing) -> TensorInfo:
    """The input that Python's preprocessing makes: float32 [batch, channels, height, width]."""
    return TensorInfo("input", "float32", ("batch", preprocessing.channels, *preprocessing.size))


def seeded_images(preprocessing: Preprocessing, count: int, seed: int) -> list[NDArray[np.uint8]]:
    """Images of noise, for when there are none: another size than the model's wherever the preprocessing resizes.

    Args:
        preprocessing: Of the model.
        count: How many.
        seed: The same seed gives the same images.

    Returns:
        uint8, each [height, width, 3].
    """
    height, width = preprocessing.size
    if preprocessing.interpolation != "none":
        height, width = height + height // 4, width + width // 2
    generator = np.random.default_rng(seed)
    return list(generator.integers(0, 256, (count, height, width, 3), np.uint8))
