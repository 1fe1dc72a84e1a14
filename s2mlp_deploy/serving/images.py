"""What may be classified: files, folders of them, and images in memory, each with a name for messages."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from s2mlp_deploy.data.images import images_below
from s2mlp_deploy.data.layout import EXTENSIONS_FIX
from s2mlp_deploy.errors import DataError, InputError
from s2mlp_deploy.preprocess import Source


@dataclass(frozen=True, eq=False)
class NamedImage:
    """One image.

    Attributes:
        name: Its path; ``image 3`` for the fourth of those that are given in memory.
        source: A file, the bytes of one, a decoded image, or uint8 [height, width] or [height, width, 1, 3 or 4].
    """

    name: str
    source: Source | NDArray[np.uint8]


Image: TypeAlias = str | Path | bytes | PillowImage.Image | NDArray[np.uint8] | NamedImage
"""An image, or a folder of images. A text is a path."""

Images: TypeAlias = Image | Iterable[Image]

_ALONE = (str, os.PathLike, bytes, bytearray, memoryview, PillowImage.Image, NamedImage)


def named_images(images: Images) -> Iterator[NamedImage]:
    """One image after the other, folders by what is in them, at any depth, sorted.

    Args:
        images: One, or several.

    Raises:
        InputError: Something is given that is no image.
        DataError: There is no image in a folder, or it cannot be read.
    """
    alone = isinstance(images, _ALONE) or (isinstance(images, np.ndarray) and images.ndim != 4)
    several: Any = [images] if alone else images
    if not isinstance(several, Iterable):
        raise _no_image(images, "the images")
    count = 0
    for item in several:
        for image in _named(item, count):
            count += 1
            yield image


def _named(item: Any, index: int) -> Iterator[NamedImage]:
    name = f"image {index}"
    if isinstance(item, NamedImage):
        yield item
    elif isinstance(item, (str, os.PathLike)):
        path = Path(os.fsdecode(item))
        if not _is_folder(path):
            yield NamedImage(str(path), path)
            return
        found = images_below(path)
        if not found:
            raise DataError("there is no image in the folder", where=str(path), fix=EXTENSIONS_FIX)
        yield from (NamedImage(str(file), file) for file in found)
    elif isinstance(item, (bytes, bytearray, memoryview)):
        yield NamedImage(name, bytes(item))
    elif isinstance(item, PillowImage.Image) or _is_picture(item):
        yield NamedImage(name, item)
    else:
        raise _no_image(item, name)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # A name that is too long: told where the image is opened.
        return False


def _is_picture(item: object) -> bool:
    if not isinstance(item, np.ndarray) or item.dtype != np.uint8 or not item.size:
        return False
    return item.ndim == 2 or (item.ndim == 3 and item.shape[2] in (1, 3, 4))


def _no_image(item: object, where: str) -> InputError:
    what = f"an array of {item.dtype} {list(item.shape)}" if isinstance(item, np.ndarray) else type(item).__name__
    return InputError(
        f"this is no image: {what}",
        where=where,
        fix="give paths, folders, the bytes of files, Pillow images, or decoded ones as uint8 [height, width, 3]",
    )
