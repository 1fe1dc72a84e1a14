"""From a sample to what a model takes: one array for each of its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.data.samples import Sample
from s2mlp_deploy.errors import DataError, ImageError, PreprocessingError
from s2mlp_deploy.preprocess import Preprocessing, Source, open_image, raw_pixels, to_array

_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class ModelInputs:
    """A model's inputs, and how a sample becomes them.

    An image (also an array uint8 [height, width] or [height, width, channels] where the input is a float image) is
    preprocessed. Of a graph that does that itself (its input is uint8 [batch, height, width, 3]) it is only decoded.
    Other arrays are the inputs themselves, without the batch axis.

    Attributes:
        tensors: Names, types and shapes.
        preprocessing: How an image becomes the input, if that is known.
    """

    tensors: tuple[TensorInfo, ...]
    preprocessing: Preprocessing | None

    @property
    def takes_pixels(self) -> bool:
        """Whether the graph does its own preprocessing."""
        first = self.tensors[0]
        return len(self.tensors) == 1 and first.dtype == "uint8" and len(first.shape) == 4 and first.shape[-1] == 3

    @property
    def ranks(self) -> dict[str, int]:
        """Axes of each input, the batch among them."""
        return {tensor.name: len(tensor.shape) for tensor in self.tensors}

    def is_image(self, sample: Sample) -> bool:
        """Whether a sample is an image and not the inputs themselves."""
        return _is_image(self._content(sample), self.tensors[0], len(self.tensors))

    def load(self, sample: Sample) -> dict[str, NDArray[Any]]:
        """Make the inputs of one sample.

        Returns:
            By name, without the batch axis, in the input's type.

        Raises:
            ImageError: The image cannot be used.
            DataError: Arrays do not fit the inputs.
            PreprocessingError: An image can not be an input of this model, or no preprocessing is configured.
        """
        content, where = self._content(sample), str(sample.path)
        if isinstance(content, ImageError):
            raise content
        if not _is_image(content, self.tensors[0], len(self.tensors)):
            return self._arrays(content, where)
        if len(self.tensors) != 1:
            raise PreprocessingError(
                f"the model has {len(self.tensors)} inputs, and images can only be one",
                where=where,
                fix=f"give arrays named {', '.join(self.ranks)} (.npz)",
            )
        assert not isinstance(content, Mapping)
        source = _image(content, where) if isinstance(content, np.ndarray) else content
        name = self.tensors[0].name
        if self.takes_pixels:
            return {name: raw_pixels(source, where=where)[0]}
        if self.preprocessing is None:
            raise PreprocessingError(
                "no preprocessing is configured for this model",
                fix="--preprocess FILE.json with size, mean and std",
            )
        image = source if isinstance(source, Image.Image) else open_image(source, where=where)
        array = to_array(image, self.preprocessing, where=where)
        _check_shape(array, self.tensors[0], where)
        return {name: array.astype(self.tensors[0].dtype, copy=False)}

    def _content(self, sample: Sample) -> Source | NDArray[Any] | Mapping[str, NDArray[Any]] | ImageError:
        """The sample, a lone array without the name it happened to have."""
        source = sample.source
        if isinstance(source, Mapping) and len(source) == 1 and len(self.tensors) == 1:
            return next(iter(source.values()))
        return source

    def _arrays(self, content: object, where: str) -> dict[str, NDArray[Any]]:
        if isinstance(content, np.ndarray):
            content = {self.tensors[0].name: content} if len(self.tensors) == 1 else {"": content}
        assert isinstance(content, Mapping)
        if missing := [tensor.name for tensor in self.tensors if tensor.name not in content]:
            found = ", ".join(name or "one without a name" for name in content)
            raise DataError(
                f"There is no array for the input {', '.join(missing)}",
                where=where,
                fix=f"name the arrays {', '.join(self.ranks)} (found: {found})",
            )
        return {tensor.name: _fit(content[tensor.name], tensor, where) for tensor in self.tensors}


def _is_image(content: object, tensor: TensorInfo, inputs: int) -> bool:
    if isinstance(content, np.ndarray):
        image = len(tensor.shape) == 4 and inputs == 1 and (tensor.dtype.startswith("float") or tensor.shape[-1] == 3)
        return image and content.dtype == np.uint8 and content.ndim in (2, 3)
    return isinstance(content, Path | bytes | Image.Image)


def _image(array: NDArray[np.uint8], where: str) -> Image.Image:
    """A decoded image, from uint8 [height, width] or [height, width, channels].

    Raises:
        DataError: The last axis is not that of colours.
    """
    if array.ndim == 3 and array.shape[-1] not in _CHANNELS:
        first = array.shape[0] in _CHANNELS
        raise DataError(
            f"A uint8 array {array.shape} has {array.shape[-1]} channels",
            where=where,
            fix="put the channels last: array.transpose(0, 2, 3, 1)"
            if first
            else "give 1, 3 or 4 channels as the last axis, or ready inputs as float32",
        )
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array)


def _fit(array: NDArray[Any], tensor: TensorInfo, where: str) -> NDArray[Any]:
    """Check an array and bring it to the input's type.

    Raises:
        DataError: Type, shape or a value cannot be this input's.
    """
    wanted = np.dtype(tensor.dtype)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(
            f"The array of the input {tensor.name!r} has NaN or infinite values",
            where=where,
            fix="leave such samples out",
        )
    # Whole numbers in a float input are most likely pixels that were not normalised.
    if (array.dtype.kind == "f") != (wanted.kind == "f") or (array.dtype.kind == "b") != (wanted.kind == "b"):
        raise DataError(
            f"The array of the input {tensor.name!r} is {array.dtype}, the model takes {tensor.dtype}",
            where=where,
            fix=f"store it as {tensor.dtype}",
        )
    _check_shape(array, tensor, where)
    return array.astype(wanted, copy=False)


def _check_shape(array: NDArray[Any], tensor: TensorInfo, where: str) -> None:
    wanted = tensor.shape[1:]
    fits = array.ndim == len(wanted) and all(
        isinstance(side, str) or side == found for side, found in zip(wanted, array.shape, strict=True)
    )
    if not fits:
        raise DataError(
            f"A sample of the input {tensor.name!r} has the shape {_shape(array.shape)}, "
            f"the model takes {_shape(wanted)}",
            where=where,
            fix="give arrays, or a preprocessing, of the model's size",
        )


def _shape(sides: Sequence[int | str]) -> str:
    return f"[{', '.join(map(str, sides))}]"
