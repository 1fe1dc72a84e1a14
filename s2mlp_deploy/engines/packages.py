"""Looking at installed packages without importing them, and importing the one that phones home."""

from __future__ import annotations

import os
from importlib import metadata
from typing import Any


def version_of(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def load_onnxruntime() -> Any:
    """ONNX Runtime, with its telemetry switched off.

    From version 1.32 on, importing it makes an identifier of the device and a database of events below the user's home
    (``~/.cache/Microsoft/DeveloperTools``), on Linux too; ``disable_telemetry_events()`` comes too late for that. Who
    wants it sets ``ORT_DISABLE_TELEMETRY=0``.

    Raises:
        ImportError: It is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime
