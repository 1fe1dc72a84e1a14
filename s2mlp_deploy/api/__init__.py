"""The Python API: every command is one of these functions.

Importing this package imports no torch, no onnx and no runtime; each function imports what it needs and says which
extra is missing.
"""

from s2mlp_deploy.api.comparing import parity
from s2mlp_deploy.api.engines import build, doctor
from s2mlp_deploy.api.exporting import CapturedSource, capture, export, understand
from s2mlp_deploy.api.inspecting import FileInspection, SourceInspection, inspect_file, inspect_source
from s2mlp_deploy.api.predicting import predict
from s2mlp_deploy.api.progress import Progress, quiet
from s2mlp_deploy.api.quantizing import CALIBRATION_SAMPLES, EVAL_SAMPLES, PrecisionOptions, Quantized, quantize
from s2mlp_deploy.api.sources import from_module, load, models, require_export

__all__ = [
    "CALIBRATION_SAMPLES",
    "EVAL_SAMPLES",
    "CapturedSource",
    "FileInspection",
    "PrecisionOptions",
    "Progress",
    "Quantized",
    "SourceInspection",
    "build",
    "capture",
    "doctor",
    "export",
    "from_module",
    "inspect_file",
    "inspect_source",
    "load",
    "models",
    "parity",
    "predict",
    "quantize",
    "quiet",
    "require_export",
    "understand",
]
