"""The names of an artifact's files and of what they hold."""

from __future__ import annotations

MANIFEST = "manifest.json"
EVIDENCE = "evidence"
REPORT = "report.html"
CALIBRATION_CACHE = "calibration.npz"
"""Statistics of the float32 graph over the calibration data; no part of what an engine needs."""
METADATA_KEY = "s2mlp_deploy"
"""The ONNX metadata entry that holds the manifest's timeless part."""


def model_file(precision: str) -> str:
    """The ONNX file of a precision: ``model.fp32.onnx``."""
    return f"model.{precision}.onnx"


def data_file(onnx: str) -> str:
    """Where the weights of a graph lie that is too large for one file: ``model.fp32.onnx.data``."""
    return f"{onnx}.data"
