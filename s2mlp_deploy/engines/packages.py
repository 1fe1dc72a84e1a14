"""Looking at installed packages without importing them, and importing those that phone home."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
import warnings
from importlib import metadata
from typing import Any

from s2mlp_deploy.engines.base import EngineStatus
from s2mlp_deploy.text import first_line_of

_TELEMETRY = "openvino_telemetry"
_REDIRECTING = threading.Lock()
"""Of two threads that redirect stdout at once, one would give it back to the other, and it would stay there."""


def version_of(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def broken(name: str, version: str | None, error: BaseException) -> EngineStatus:
    """What is told of an engine whose package is there and cannot be imported: a library that it needs is missing.

    Args:
        name: Of the engine, and of its package.
        version: Of the package.
        error: What importing it raised.
    """
    return EngineStatus(
        name,
        False,
        version,
        missing=f"{name} is there and cannot be loaded: {first_line_of(error)}",
        install_hint=f"python -c 'import {name}' shows the whole error; reinstall the package",
    )


def load_onnxruntime() -> Any:
    """ONNX Runtime, with its telemetry switched off.

    From version 1.32 on, importing it makes an identifier of the device and a database of events below the user's home
    (``~/.cache/Microsoft/DeveloperTools``), on Linux too; ``disable_telemetry_events()`` comes too late for that. Who
    wants it sets ``ORT_DISABLE_TELEMETRY=0``.

    Raises:
        ImportError: It is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    if "onnxruntime" in sys.modules:
        import onnxruntime

        return onnxruntime
    with warnings.catch_warnings():
        # On the CPU nobody misses CUDA's provider, and for a GPU load_cuda_libraries tries again and tells.
        warnings.filterwarnings("ignore", "Failed to register bundled CUDA plugin EP")
        import onnxruntime
    return onnxruntime


def load_cuda_libraries(onnxruntime: Any) -> str:
    """Loads CUDA and cuDNN out of NVIDIA's packages, which torch brings and where ONNX Runtime does not look by itself.

    Without it, a process that has not imported torch falls back to the CPU on a machine without a CUDA of its own.
    Where CUDA's provider is a library of its own, a plugin in the wheel, that is registered here too.

    Args:
        onnxruntime: The module.

    Returns:
        What could not be loaded, in the words that ONNX Runtime would print beside our own output; empty where nothing.
    """
    told = io.StringIO()
    # From 1.21 on; a build without CUDA does nothing.
    if (preload := getattr(onnxruntime, "preload_dlls", None)) is not None:
        with _REDIRECTING, contextlib.redirect_stdout(told), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            preload()
        told.writelines(f"{warning.message}\n" for warning in warned)
    return " ".join(told.getvalue().split())


def load_openvino() -> Any:
    """OpenVINO, without its telemetry.

    Importing it sends an event through ``openvino-telemetry`` unless the user has declined by a file below the home
    directory; no variable switches that off. While it is imported the telemetry package is not to be found, and
    OpenVINO takes its own stub instead. Who wants it imports ``openvino`` first: what is loaded already is left alone.

    Raises:
        ImportError: It is not installed.
    """
    hidden = "openvino" not in sys.modules and _TELEMETRY not in sys.modules
    if hidden:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        if hidden:
            sys.modules.pop(_TELEMETRY, None)
    return openvino
