"""Images of one colour each, as files, lists and Parquet: what a batch is made of."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from image_artifact import CLASSES, picture
from PIL import Image


def colour_of(index: int) -> str:
    """The class of the image of that number."""
    return CLASSES[index % len(CLASSES)]


def photograph(index: int) -> bytes:
    """The bytes of a PNG."""
    stream = io.BytesIO()
    Image.fromarray(picture(colour_of(index))).save(stream, "PNG")
    return stream.getvalue()


def write_photographs(folder: Path, count: int, broken: Sequence[int] = ()) -> Path:
    """Writes ``000.png`` and so on, some of which are no images."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        (folder / f"{index:03}.png").write_bytes(b"no image" if index in broken else photograph(index))
    return folder
