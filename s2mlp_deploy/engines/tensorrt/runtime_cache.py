"""The kernels that TensorRT-RTX compiles on the user's GPU, kept beside the engine for the next process."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from s2mlp_deploy.engines.sidecar import runtime_cache_of
from s2mlp_deploy.errors import OutputError
from s2mlp_deploy.files import read_file, write_file

_LOG = logging.getLogger(__name__)


class RuntimeCache:
    """The cache of one engine. It is of one GPU, driver and version: the library checks that, and starts anew.

    Args:
        runtime_config: The library's ``IRuntimeConfig``, of which contexts are made afterwards.
        engine: The engine's file.
    """

    def __init__(self, runtime_config: Any, engine: Path) -> None:
        self._path = runtime_cache_of(engine)
        runtime_cache = self._cache = runtime_config.create_runtime_cache()
        self._found = b""
        try:
            self._found = read_file(self._path, "kernels")
        except FileNotFoundError:
            pass
        except OSError as error:
            _LOG.warning("the compiled kernels of %s cannot be read: %s", engine.name, error.strerror or error)
        if self._found and not runtime_cache.deserialize(self._found):
            _LOG.info("the compiled kernels in %s are of another GPU, driver or version", self._path)
            self._found = b""
        runtime_config.set_runtime_cache(runtime_cache)

    def save(self) -> None:
        """Writes what was compiled, if that is more than was there. Where nothing can be written, that is told."""
        runtime_cache, self._cache = self._cache, None
        if runtime_cache is None:
            return
        written = bytes(runtime_cache.serialize() or b"")
        if not written or written == self._found:
            return
        try:
            write_file(self._path, written)
        except OutputError as error:
            _LOG.warning("compiled kernels are not kept, and are compiled again next time: %s", error.problem)
