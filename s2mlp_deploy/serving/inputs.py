"""What a model takes: whether that is an image, and whether arrays are its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.artifact import MANIFEST, Manifest, TensorInfo
from s2mlp_deploy.errors import ArtifactError, InputError
from s2mlp_deploy.text import join_names


def takes_image(inputs: Sequence[TensorInfo]) -> bool:
    """Whether a model takes one image, and nothing else."""
    return len(inputs) == 1 and all(
        len(info.shape) == 4 and (info.dtype.startswith("float") or (info.dtype, info.shape[3]) == ("uint8", 3))
        for info in inputs
    )


def check_takes_images(manifest: Manifest, inputs: Sequence[TensorInfo], where: Path) -> None:
    """Refuses images for a model that does not take one, or whose artifact does not say how one becomes its input.

    Args:
        manifest: Of the artifact.
        inputs: Of the model.
        where: For the message.

    Raises:
        ArtifactError: Says what it takes.
    """
    if not takes_image(inputs):
        taken = ", ".join(f"{info.name} {info.dtype} {'x'.join(map(str, info.shape))}" for info in inputs)
        problem = f"has {len(inputs)} inputs" if len(inputs) != 1 else "takes no image"
        raise ArtifactError(
            f"the model {problem}, and images are predicted by models that take one image: {taken}",
            where=str(where),
            fix="give it arrays from Python: Predictor(DIR)({name: array, ...}); `parity` compares it on arrays: "
            "--data FILE.npz",
        )
    if manifest.preprocessing is None:
        raise ArtifactError(
            "the artifact does not say how an image becomes its input",
            where=str(where.parent / MANIFEST),
            fix="export again with --preprocess FILE.json",
        )


def check_feeds(inputs: Sequence[TensorInfo], feeds: Mapping[str, NDArray[Any]]) -> None:
    """Refuses arrays that are not a model's inputs: by name, type, number of axes and fixed sizes.

    Args:
        inputs: Of the model.
        feeds: An array for each by name, with the batch axis.

    Raises:
        InputError: Says what the model takes.
    """
    taken = ", ".join(f"{info.name} {info.dtype} {list(info.shape)}" for info in inputs)
    fix = f"the model takes {taken}"
    names = [info.name for info in inputs]
    if missing := [name for name in names if name not in feeds]:
        raise InputError(f"there is no array for the input {join_names(missing)}", fix=fix)
    if more := [name for name in feeds if name not in names]:
        raise InputError(f"the model has no input {join_names(map(repr, more))}", fix=fix)
    for info in inputs:
        array = feeds[info.name]
        if not isinstance(array, np.ndarray) or str(array.dtype) != info.dtype:
            found = str(array.dtype) if isinstance(array, np.ndarray) else type(array).__name__
            raise InputError(f"the input {info.name} is {found}", fix=fix)
        fits = array.ndim == len(info.shape) and all(
            isinstance(size, str) or size == given for size, given in zip(info.shape, array.shape, strict=True)
        )
        if not fits:
            raise InputError(f"the input {info.name} has the shape {list(array.shape)}", fix=fix)
