"""The Python API: every command is one of these functions.

Importing this package imports no torch, no onnx and no runtime; each function imports what it needs and says which
extra is missing. The converters of public checkpoints, which work on tensors, are imported at their first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from s2mlp_deploy.api.engines import (
    EngineInspection,
    Health,
    build,
    doctor,
    inspect_engine,
    optimize,
    preflight,
)
from s2mlp_deploy.api.exporting import CapturedSource, analyze, capture, export
from s2mlp_deploy.api.inspecting import FileInspection, SourceInspection, inspect_file, inspect_source
from s2mlp_deploy.api.predicting import predict
from s2mlp_deploy.api.quantizing import (
    CALIBRATION_METHOD,
    CALIBRATION_SAMPLES,
    EVAL_SAMPLES,
    PrecisionOptions,
    Quantized,
    quantize,
)
from s2mlp_deploy.api.sources import from_module, load, models, require_export
from s2mlp_deploy.progress import ProgressCallback, no_progress

if TYPE_CHECKING:
    from s2mlp_deploy.api.comparing import parity
    from s2mlp_deploy.sources.converters import convert_s2attention, convert_sequential

__all__ = [
    "CALIBRATION_METHOD",
    "CALIBRATION_SAMPLES",
    "EVAL_SAMPLES",
    "CapturedSource",
    "EngineInspection",
    "FileInspection",
    "Health",
    "PrecisionOptions",
    "ProgressCallback",
    "Quantized",
    "SourceInspection",
    "analyze",
    "build",
    "capture",
    "convert_s2attention",
    "convert_sequential",
    "doctor",
    "export",
    "from_module",
    "inspect_engine",
    "inspect_file",
    "inspect_source",
    "load",
    "models",
    "no_progress",
    "optimize",
    "parity",
    "predict",
    "preflight",
    "quantize",
    "require_export",
]

_CONVERTERS = ("convert_s2attention", "convert_sequential")


def __getattr__(name: str) -> Any:
    """What needs torch as soon as its module is imported."""
    if name == "parity":
        require_export()
        return importlib.import_module("s2mlp_deploy.api.comparing").parity
    if name in _CONVERTERS:
        return getattr(importlib.import_module("s2mlp_deploy.sources.converters"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
