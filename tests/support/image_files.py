"""Small images."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def put(root: Path, *names: str) -> None:
    """Write an image for each name; its red value is its number, so that an array tells which it was."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(path, "PNG")


def by_class(root: Path, count: int = 12, classes: int = 3, content: np.ndarray | None = None) -> Path:
    """Images of 8 x 8 in a folder for each class, of noise or all of the same content."""
    random = np.random.default_rng(0)
    for index in range(count):
        path = root / str(index % classes) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (8, 8, 3), np.uint8) if content is None else content
        Image.fromarray(pixels).save(path)
    return root


def pack(folder: Path, archive: Path) -> Path:
    """Pack a folder's content with the standard library's writers."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for path in sorted(folder.rglob("*")):
                packed.write(path, path.relative_to(folder).as_posix())
    else:
        kind = {"z2": "bz2", "gz": "gz", "xz": "xz"}.get(archive.suffix.lower()[-2:], "")
        with tarfile.open(archive, f"w:{kind}") as packed:
            for path in sorted(folder.iterdir()):
                packed.add(path, path.name)
    return archive
