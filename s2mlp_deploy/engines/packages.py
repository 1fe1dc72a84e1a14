"""Looking at installed packages without importing them."""

from __future__ import annotations

from importlib import metadata


def version_of(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
