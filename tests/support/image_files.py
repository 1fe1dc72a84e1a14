"""Small images for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def put(root: Path, *names: str) -> None:
    """Write an image for each name; its red value is its number, so that an array tells which it was."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(path, "PNG")
