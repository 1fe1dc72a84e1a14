"""The Python API: every command is one of these functions.

Importing this package imports no torch, no onnx and no runtime; each function imports what it needs and says which
extra is missing.
"""

from s2mlp_deploy.api.comparing import parity
from s2mlp_deploy.api.engines import (
    EngineInspection,
    Health,
    build,
    doctor,
    inspect_engine,
    optimize,
    preflight,
)
from s2mlp_deploy.api.exporting import CapturedSource, capture, export, understand
from s2mlp_deploy.api.inspecting import FileInspection, SourceInspection, inspect_file, inspect_source
from s2mlp_deploy.api.predicting import predict
from s2mlp_deploy.api.progress import Progress, quiet
from s2mlp_deploy.api.sources import from_module, load, models, require_export

__all__ = [
    "CapturedSource",
    "EngineInspection",
    "FileInspection",
    "Health",
    "Progress",
    "SourceInspection",
    "build",
    "capture",
    "doctor",
    "export",
    "from_module",
    "inspect_engine",
    "inspect_file",
    "inspect_source",
    "load",
    "models",
    "optimize",
    "parity",
    "predict",
    "preflight",
    "quiet",
    "require_export",
    "understand",
]
