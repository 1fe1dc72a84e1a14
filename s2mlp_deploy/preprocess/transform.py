"""From pixels to the model's input: resize, crop, normalise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from s2mlp_deploy.errors import ImageError
from s2mlp_deploy.preprocess.decode import open_image, to_rgb
from s2mlp_deploy.preprocess.description import MAX_PIXELS, Preprocessing, mean_colour

Source: TypeAlias = Path | bytes | Image.Image
FloatArray: TypeAlias = npt.NDArray[np.float32]

MAX_SIDE = 65_535
"""Longest side of an image that a graph with preprocessing is given, JPEG's own limit.

Such a graph holds a table of the model's size times the image's side: 120 MB at this limit. A PNG of ten thousand
bytes can be ten million pixels wide and one high.
"""

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


def to_array(image: Image.Image, preprocessing: Preprocessing, *, where: str | None = None) -> FloatArray:
    """Resize, crop and normalise one image.

    One departure from timm: for a target that is not square timm's "center" resizes bilinearly whatever the
    interpolation; here the declared interpolation holds.

    Args:
        image: An image of any mode (8-bit RGB from ``open_image``).
        preprocessing: What to do.
        where: What error messages call the image.

    Returns:
        float32, shape (channels, height, width), channels in the order of ``preprocessing.color``.

    Raises:
        ImageError: The image does not have the size and interpolation is "none", or its sides are so
            unequal that the resized image would not fit into memory.
    """
    image = to_rgb(image, where)
    if preprocessing.color == "L":
        image = image.convert("L")
    if preprocessing.interpolation != "none":
        image = _fit(image, preprocessing, where)
    elif (image.height, image.width) != preprocessing.size:
        height, width = preprocessing.size
        raise ImageError(
            f"The image is {image.height}x{image.width} (height x width), the model takes {height}x{width}",
            where=where,
            fix="resize the image, or give the preprocessing an interpolation such as bicubic",
        )
    pixels = np.asarray(image).reshape(*preprocessing.size, preprocessing.channels)
    if preprocessing.color == "BGR":
        pixels = pixels[:, :, ::-1]
    # Division by 255, not multiplication by 1/255: with it every float32 equals what torch computes.
    array = pixels.astype(np.float32) / np.float32(1 / preprocessing.scale)
    array -= np.asarray(preprocessing.mean, np.float32)
    array /= np.asarray(preprocessing.std, np.float32)
    return np.ascontiguousarray(array.transpose(2, 0, 1))


def preprocess(sources: Sequence[Source], preprocessing: Preprocessing) -> FloatArray:
    """Turn images into one batch.

    Args:
        sources: Files, the bytes of files, or Pillow images.
        preprocessing: What to do with each.

    Returns:
        float32, shape (len(sources), channels, height, width).

    Raises:
        ImageError: One of the images cannot be used; the message says which.
    """
    batch = np.empty((len(sources), preprocessing.channels, *preprocessing.size), np.float32)
    for index, source in enumerate(sources):
        where = str(source) if isinstance(source, Path) else f"image {index}"
        image = source if isinstance(source, Image.Image) else open_image(source, where=where)
        batch[index] = to_array(image, preprocessing, where=where)
    return batch


def raw_pixels(source: Source, copies: int = 1, *, where: str | None = None) -> npt.NDArray[np.uint8]:
    """What a graph with preprocessing takes: one decoded image, uint8 [copies, height, width, 3].

    Args:
        source: A file, the bytes of one, or a decoded image of any mode.
        copies: How often it is repeated, for graphs whose batch is fixed.
        where: What error messages call the image.

    Raises:
        ImageError: It is no image, or too long.
    """
    image = to_rgb(source, where) if isinstance(source, Image.Image) else open_image(source, where=where)
    if max(image.size) > MAX_SIDE:
        raise ImageError(
            f"the image is {image.height}x{image.width}, and a graph with preprocessing takes sides up to {MAX_SIDE}",
            where=where or (str(source) if isinstance(source, Path) else None),
            fix="crop the image",
        )
    return np.repeat(np.asarray(image)[None], copies, axis=0)


def _fit(image: Image.Image, preprocessing: Preprocessing, where: str | None) -> Image.Image:
    """Resize, then crop or pad to the target, with the roundings of timm and torchvision."""
    target = preprocessing.size
    scaled = (math.floor(target[0] / preprocessing.crop_pct), math.floor(target[1] / preprocessing.crop_pct))
    sides = (image.height, image.width)
    if preprocessing.crop_mode == "squash":
        height, width = scaled
    elif preprocessing.crop_mode == "center" and scaled[0] == scaled[1]:
        # torchvision's Resize with one number: the longer side is truncated ...
        height, width = (scaled[0] * side // min(sides) for side in sides)
    else:
        # ... and timm's ResizeKeepRatio rounds, halves to even.
        ratios = (sides[0] / scaled[0], sides[1] / scaled[1])
        ratio = max(ratios) if preprocessing.crop_mode == "border" else min(ratios)
        height, width = (max(1, round(side / ratio)) for side in sides)
    if height * width > MAX_PIXELS:
        raise ImageError(
            f"The image's sides are too unequal: {sides[0]}x{sides[1]} would become {height}x{width}",
            where=where,
            fix="crop the image, or use the crop mode squash or border",
        )
    image = image.resize((width, height), _RESAMPLING[preprocessing.interpolation])
    top, left = (max(0, round((side - wanted) / 2)) for side, wanted in zip((height, width), target, strict=True))
    image = image.crop((left, top, min(width, left + target[1]), min(height, top + target[0])))
    if (image.height, image.width) == target:
        return image
    fill = mean_colour(preprocessing)[:: -1 if preprocessing.color == "BGR" else 1]  # The image is RGB still.
    padded = Image.new(image.mode, (target[1], target[0]), fill[0] if image.mode == "L" else fill)
    padded.paste(image, ((target[1] - image.width) // 2, (target[0] - image.height) // 2))
    return padded
