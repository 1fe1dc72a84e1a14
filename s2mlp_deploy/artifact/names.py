"""The names of an artifact's files and of what they hold."""

from __future__ import annotations

import re

from s2mlp_deploy.errors import InputError

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


_OTHERS = re.compile(r"[^A-Za-z0-9._-]+")
_SERVED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def check_served_name(name: str) -> str:
    """A name to serve an artifact under: what a URL and a model repository take as one part of a path.

    Raises:
        InputError: It has other characters, or is too long.
    """
    if not _SERVED.fullmatch(name):
        raise InputError(
            f"{name!r} is no name to serve under",
            where="--name",
            fix="use letters, digits, '.', '_' and '-', at most 128, a letter or digit first: "
            f"--name {_OTHERS.sub('-', name).strip('-._')[:128] or 'model'}",
        )
    return name
