"""Running the user's code without keeping what it does to the process.

Importing a file needs its folder on ``sys.path``, and training scripts set up logging, threads and default types as
they are imported. All of it is one process's state: it is put back, and one thread at a time changes it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch

from s2mlp_deploy.torch_internals import exclusive

USER_CODE = threading.RLock()
"""Held while the process's state is another than usual: ``sys.path``, seeds, what may be unpickled."""


_MODULES: dict[Path, dict[str, ModuleType]] = {}
"""By folder, the modules that sources imported from it. Two sources may both have a ``helpers.py``."""

FACTORY_FILES: dict[str, ModuleType] = {}
"""By module name, the files that hold factories: the classes in them are found by it as long as the process lives."""


@contextmanager
def importing_from(folder: Path | None) -> Iterator[None]:
    """Lets the user's code import from its folder in a block, as while it was loaded; nothing happens for None.

    What is found are the folder's own modules: those that sources imported from other folders are set aside, for
    Python would take a module of the same name for the one that is wanted.

    Args:
        folder: Comes first on ``sys.path`` in the block; the path is put back afterwards.
    """
    if folder is None:
        yield
        return
    with exclusive(), USER_CODE:
        for names in _MODULES.values():
            for name, module in names.items():
                if sys.modules.get(name) is module:
                    del sys.modules[name]
        files = {
            name: module
            for name, module in FACTORY_FILES.items()
            if sys.modules.get(name) is module and not _lies_in(module, folder)
        }
        for name in files:
            del sys.modules[name]
        own = _MODULES.setdefault(folder, {})
        for name, module in own.items():
            sys.modules.setdefault(name, module)
        others = frozenset(sys.modules) - own.keys()
        path = list(sys.path)
        sys.path.insert(0, str(folder))
        try:
            yield
        finally:
            sys.path[:] = path  # In place: others may hold the list.
            own.update(_imported_from(folder, others))
            sys.modules.update(files)


def _imported_from(folder: Path, others: Collection[str]) -> dict[str, ModuleType]:
    """The modules that lie in a folder, or in packages in it, by name.

    Args:
        folder: Where.
        others: Names that were taken before: such modules and packages are not the source's, wherever they lie.
    """
    found = {}
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        # Not everything below the folder: a virtual environment may lie there, and packages of it are everybody's.
        mine = top not in others and module is not FACTORY_FILES.get(name)
        if mine and isinstance(module, ModuleType) and _lies_in(sys.modules.get(top), folder):
            found[name] = module
    return found


def _lies_in(module: ModuleType | None, folder: Path) -> bool:
    paths = getattr(module, "__path__", None)
    file = getattr(module, "__file__", None)
    places = list(paths) if paths is not None else [file] if file is not None else []
    return any(Path(place).resolve().parent == folder for place in places)


@contextmanager
def isolated(folder: Path, seed: int) -> Iterator[None]:
    """Runs a block of the user's code, then puts back what it changed of the process.

    What is put back: ``sys.path``, the current folder, the umask, the root logger's handlers and level, whether loggers
    are disabled, and torch's random state, number of threads, default type and device, gradient mode and choice of
    deterministic algorithms. Modules that were imported stay imported.

    Args:
        folder: Can be imported from within the block, before anything else; absolute, without links.
        seed: Of torch's random numbers in the block.
    """
    root = logging.getLogger()
    with importing_from(folder), torch.random.fork_rng(devices=[]), _same_place(), _same_torch():
        handlers, level = list(root.handlers), root.level
        disabled, threshold = _disabled_loggers(), root.manager.disable
        torch.manual_seed(seed)
        try:
            yield
        finally:
            # In place: others may hold the list.
            root.handlers[:] = handlers
            root.setLevel(level)
            root.manager.disable = threshold
            # logging.config disables every logger that it does not name.
            for logger in _loggers():
                logger.disabled = logger.name in disabled


@contextmanager
def _same_place() -> Iterator[None]:
    """Puts back the current folder and the umask."""
    # The umask can only be read by setting it: what another thread makes at this moment is private, not open to all.
    mask = os.umask(0o077)
    os.umask(mask)
    here = None
    with contextlib.suppress(OSError):  # The current folder may have been removed.
        here = Path.cwd()
    try:
        yield
    finally:
        os.umask(mask)
        if here is not None:
            with contextlib.suppress(OSError):
                os.chdir(here)


@contextmanager
def _same_torch() -> Iterator[None]:
    """Puts back torch's settings."""
    threads, dtype, device = torch.get_num_threads(), torch.get_default_dtype(), torch.get_default_device()
    gradients = torch.is_grad_enabled()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            # None is how torch starts: no device is set, and the CPU is taken.
            torch.set_default_device(None if device.type == "cpu" else device)
        torch.set_grad_enabled(gradients)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def _loggers() -> list[logging.Logger]:
    known = logging.getLogger().manager.loggerDict.values()
    return [logger for logger in known if isinstance(logger, logging.Logger)]


def _disabled_loggers() -> frozenset[str]:
    return frozenset(logger.name for logger in _loggers() if logger.disabled)
