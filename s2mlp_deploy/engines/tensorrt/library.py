"""Loading TensorRT or TensorRT-RTX with its plugins, and the one logger that each of them takes."""

from __future__ import annotations

import collections
import contextlib
import functools
import importlib
import importlib.util
import logging
from collections.abc import Iterator
from typing import Any

from s2mlp_deploy.engines.base import EngineStatus
from s2mlp_deploy.engines.packages import version_of
from s2mlp_deploy.engines.tensorrt.flavours import Flavour, flavour
from s2mlp_deploy.engines.tensorrt.progress import Interrupt
from s2mlp_deploy.errors import BuildError, MissingDependencyError, TargetError
from s2mlp_deploy.gpu import gpus

_LOG = logging.getLogger(__name__)

_MOST_ERRORS = 20
"""Messages that are kept for the user: an engine that fails at every run would fill the memory with them."""


def load(wanted: Flavour) -> Any:
    """The library's module.

    Raises:
        MissingDependencyError: It is not installed.
        BuildError: It is installed and cannot be imported: a library it needs is missing.
        KeyboardInterrupt: There was a Ctrl-C meanwhile, which inside a library's own initialisation would be lost.
    """
    try:
        with Interrupt().held():
            return importlib.import_module(wanted.module)
    except ImportError as error:
        # A package that is not there at all is named; what fails inside one that is there says something else.
        if version_of(wanted.distribution) is not None and not isinstance(error, ModuleNotFoundError):
            raise BuildError(
                f"{wanted.title} is installed and cannot be imported: {error}",
                where=wanted.module,
                fix="run it again; if it stays, reinstall the package",
            ) from error
        raise MissingDependencyError(
            wanted.distribution, extra=wanted.extra, purpose=f"{wanted.title} engines"
        ) from None


def installed(wanted: Flavour) -> Flavour:
    """The flavour in the version that is installed.

    Raises:
        MissingDependencyError: It is not installed.
        TargetError: Its version is none that this package knows.
    """
    return flavour(wanted.name, str(load(wanted).__version__))


def version_here(wanted: Flavour) -> str | None:
    """The version of the installed packages, without importing them; None where there are none."""
    names = (wanted.distribution, f"{wanted.distribution}-cu13", f"{wanted.distribution}-cu12")
    return next(filter(None, map(version_of, names)), None)


@functools.cache
def logger_of(trt: Any) -> Any:
    """The logger of a library, with which its plugins have been registered: before anything is parsed or loaded.

    A library ignores every logger after the first of a process.
    """
    severities = trt.ILogger
    levels = {
        severities.INTERNAL_ERROR: logging.ERROR,
        severities.ERROR: logging.ERROR,
        severities.WARNING: logging.WARNING,
        severities.INFO: logging.INFO,
        severities.VERBOSE: logging.DEBUG,
    }
    base: Any = trt.ILogger

    class Logger(base):  # type: ignore[misc]
        """Keeps errors for the message that the user will see; tells everything else to Python's logging."""

        def __init__(self) -> None:
            super().__init__()
            self.errors: collections.deque[str] = collections.deque(maxlen=_MOST_ERRORS)
            self.verbose = False

        def begin(self, *, verbose: bool = False) -> None:
            """Forgets what went wrong in earlier calls."""
            self.errors.clear()
            self.verbose = verbose

        def log(self, severity: Any, message: str) -> None:
            """Called by the library, from threads of its own too: it never raises."""
            level = levels.get(severity, logging.WARNING)
            if level >= logging.ERROR:
                # They become the message of an exception, where there is one; once is enough.
                self.errors.append(message)
                level = logging.INFO
            _LOG.log(logging.WARNING if self.verbose else level, "%s", message)

        def reason(self) -> str:
            """What the library said went wrong."""
            return "; ".join(dict.fromkeys(self.errors)) or "it gave no reason"

        def tell_rest(self) -> None:
            """Warns of errors that stopped nothing."""
            if self.errors and not self.verbose:
                _LOG.warning("%s", self.reason())

    logger = Logger()
    if not trt.init_libnvinfer_plugins(logger, ""):
        _LOG.warning("the plugins of the library could not be registered: %s", logger.reason())
    return logger


@contextlib.contextmanager
def starting(title: str, logger: Any) -> Iterator[None]:
    """While a library makes its builder or its runtime, which it may not: its bindings raise a TypeError then.

    That is what becomes of a driver older than the library's CUDA, say (NVIDIA/TensorRT #2913).

    Args:
        title: Of the library.
        logger: Where it says why.

    Raises:
        BuildError: It made none.
    """
    try:
        yield
    except TypeError as error:
        raise BuildError(
            f"{title} cannot start: {logger.reason()}",
            fix="`s2mlp-deploy doctor` shows the driver and its CUDA version: the library's must not be a later major",
        ) from error


def tensorrt_status() -> EngineStatus:
    """Whether TensorRT is installed; does not import it."""
    name = "tensorrt"
    version = version_here(flavour(name))
    # The packages of that name only fetch the libraries: what counts is whether there is something to import.
    if version is None or importlib.util.find_spec("tensorrt") is None:
        return EngineStatus(
            name,
            False,
            missing="tensorrt, 10.x or 11.x; `build --dry-run --engine tensorrt` works without it",
            install_hint="pip install 's2mlp-deploy[tensorrt]'",
        )
    try:
        flavour(name, ".".join(version.split(".")[:2]))
    except TargetError as error:
        return EngineStatus(name, False, version, missing=error.problem, install_hint=error.fix or "")
    found = gpus()
    names = dict.fromkeys(f"{gpu.name} ({gpu.capability})" for gpu in found)
    if not found:
        return EngineStatus(name, False, version, missing="an NVIDIA GPU: it builds only on one")
    return EngineStatus(name, True, version, f"builds for and runs on {', '.join(names)}", *_bindings_missing())


def rtx_status() -> EngineStatus:
    """Whether TensorRT-RTX is installed; does not import it."""
    name, version = "tensorrt-rtx", version_of("tensorrt-rtx")
    if version is None:
        return EngineStatus(name, False, missing="tensorrt-rtx", install_hint="pip install 's2mlp-deploy[rtx]'")
    try:
        known = flavour(name, ".".join(version.split(".")[:2]))
    except TargetError as error:
        return EngineStatus(name, False, version, missing=error.problem, install_hint=error.fix or "")
    detail = f"builds for {', '.join(known.targets)}"
    if not gpus():
        return EngineStatus(name, True, version, f"{detail}; runs engines only where an NVIDIA GPU is")
    return EngineStatus(name, True, version, detail, *_bindings_missing())


def _bindings_missing() -> tuple[str, str]:
    """What an engine needs to run on the GPU that is here and has not, and the command that installs it."""
    if version_of("cuda-bindings") is not None:
        return "", ""
    return "cuda-bindings, which runs engines", "pip install 's2mlp-deploy[cuda]'"
