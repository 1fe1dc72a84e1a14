"""The builder's timing cache in a file that several builds share: none of them loses what another one measured."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from s2mlp_deploy.errors import ArtifactError, S2MLPDeployError
from s2mlp_deploy.files import read_file, write_file
from s2mlp_deploy.locks import locked

_LOG = logging.getLogger(__name__)


def load_into(config: Any, path: Path) -> None:
    """Gives the builder what the file holds; an empty cache where there is no file.

    Args:
        config: The library's ``IBuilderConfig``.
        path: The file.

    Raises:
        ArtifactError: It cannot be read, or is of another version or GPU.
    """
    timing_cache = config.create_timing_cache(_read(path))
    if timing_cache is None or not config.set_timing_cache(timing_cache, False):
        raise ArtifactError(
            "the timing cache is of another version or GPU, or damaged",
            where=str(path),
            fix="name another file; a new one is made where none is",
        )


def save_from(config: Any, path: Path) -> str | None:
    """Adds what a build has measured to the file, as it is now: others may have written it meanwhile.

    A file that cannot be written costs what was measured and no engine: that is told.

    Args:
        config: The library's ``IBuilderConfig``, after the build.
        path: The file.

    Returns:
        Hash of what the file holds then; None where it could not be written.
    """
    timing_cache = config.get_timing_cache()
    try:
        with locked(path.with_name(f".{path.name}.lock")):
            # What both have measured stays as it is here; a file that has become another version's is replaced.
            there = config.create_timing_cache(_read(path))
            if there is not None and not timing_cache.combine(there, False):
                _LOG.warning(
                    "the timing cache %s became one of another version or GPU meanwhile, and is replaced", path
                )
            written = bytes(timing_cache.serialize())
            write_file(path, written)
    except S2MLPDeployError as error:
        _LOG.warning("what was measured is not kept: %s (%s)", error.problem, error.where)
        return None
    return hashlib.sha256(written).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return read_file(path, "kernels")
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise ArtifactError(
            f"the timing cache cannot be read: {error.strerror or error}", where=str(path), fix="name another file"
        ) from error
