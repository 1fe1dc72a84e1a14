"""Files that a runtime made for one kind of machine keep what they were made from and for in a JSON file beside them."""

from __future__ import annotations

from pathlib import Path


def sidecar_of(file: Path) -> Path:
    """``<file>.json`` beside the file."""
    return file.with_name(f"{file.name}.json")
