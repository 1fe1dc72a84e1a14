"""Running the user's code without keeping what it does to the process.

Importing a file needs its folder on ``sys.path``, and training scripts set up logging, threads and default types as
they are imported. All of it is one process's state: it is put back, and one thread at a time changes it.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

USER_CODE = threading.RLock()
"""Held while the process's state is another than usual: ``sys.path``, seeds, what may be unpickled."""


@contextmanager
def isolated(folder: Path, seed: int) -> Iterator[None]:
    """Runs a block of the user's code, then puts back what it changed of the process.

    What is put back: ``sys.path``, the root logger's handlers and level, whether loggers are disabled, and torch's
    random state, number of threads and default type. Modules that were imported stay imported.

    Args:
        folder: Can be imported from within the block, before anything else.
        seed: Of torch's random numbers in the block.
    """
    root = logging.getLogger()
    with USER_CODE, torch.random.fork_rng(devices=[]):
        path, handlers, level = list(sys.path), list(root.handlers), root.level
        disabled, threshold = _disabled_loggers(), root.manager.disable
        threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
        sys.path.insert(0, str(folder))
        torch.manual_seed(seed)
        try:
            yield
        finally:
            # In place: others may hold these lists.
            sys.path[:] = path
            root.handlers[:] = handlers
            root.setLevel(level)
            root.manager.disable = threshold
            # logging.config disables every logger that it does not name.
            for logger in _loggers():
                logger.disabled = logger.name in disabled
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)


def _loggers() -> list[logging.Logger]:
    known = logging.getLogger().manager.loggerDict.values()
    return [logger for logger in known if isinstance(logger, logging.Logger)]


def _disabled_loggers() -> frozenset[str]:
    return frozenset(logger.name for logger in _loggers() if logger.disabled)
