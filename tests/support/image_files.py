"""Small images for the tests of this folder."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

from PIL import Image


def put(root: Path, *names: str) -> None:
    """Write an image for each name; its red value is its number, so that an array tells which it was."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(path, "PNG")


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
