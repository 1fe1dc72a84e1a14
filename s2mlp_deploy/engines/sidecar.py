"""What an engine or an optimized graph was made from and for stands in a JSON file beside it."""

from __future__ import annotations

from pathlib import Path


def sidecar_of(file: Path) -> Path:
    """``<file>.json`` beside the file."""
    return file.with_name(f"{file.name}.json")
