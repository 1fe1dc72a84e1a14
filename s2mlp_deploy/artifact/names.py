"""The names of an artifact's files and of what they hold."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

from s2mlp_deploy.errors import InputError

MANIFEST = "manifest.json"
EVIDENCE = "evidence"
REPORT = "report.html"
CALIBRATION_CACHE = "calibration.npz"
"""Statistics of the float32 graph over the calibration data; no part of what an engine needs."""
ENGINE_LAYERS = ".layers.json"
"""What an engine's name is followed by in that of the inspector's account of its layers."""
RUNTIME_CACHE = ".runtime-cache"
"""The same for the kernels that TensorRT-RTX has compiled for an engine on its GPU."""
OF_SHIFTS = "shift."
"""What the names of constants begin with that only the form of a shift needs: sizes, places, kernels."""
METADATA_KEY = "s2mlp_deploy"
"""The ONNX metadata entry that holds the manifest's timeless part."""


def model_file(precision: str) -> str:
    """The ONNX file of a precision: ``model.fp32.onnx``."""
    return f"model.{precision}.onnx"


def tuned_file(precision: str) -> str:
    """The ONNX file of a precision that `tune` has found faster than :func:`model_file` on some machine."""
    return f"model.{precision}-tuned.onnx"


def data_file(onnx: str) -> str:
    """Where the weights of a graph lie that is too large for one file: ``model.fp32.onnx.data``."""
    return f"{onnx}.data"


NETWORK = "(network)"
"""Stands for the network's own forward, outside of any module."""


def module_of(name: str) -> str:
    """The module's path in a node's name: ``stages.0.mlp.fc1`` of ``stages.0.mlp.fc1/MatMul``.

    Exporters that write ``/stages.0/mlp/fc1/MatMul`` are understood too; where they repeat a container's name, as in
    ``/layer1/layer1.0/conv/Conv``, it counts once. A name without a slash says nothing: empty.
    """
    if not name.startswith("/"):
        path, slash, _ = name.partition("/")
        return path if slash else ""
    parts: list[str] = []
    for part in name.split("/")[1:-1]:
        if parts and part.startswith(f"{parts[-1]}."):
            parts.pop()
        parts.append(part)
    # What a pass adds at one of the network's own nodes is named after that: /ReduceMean/MatMul.
    return NETWORK if not parts or (len(parts) == 1 and _OF_OPERATOR.fullmatch(parts[0])) else ".".join(parts)


def common_path(paths: Iterable[str]) -> str:
    """The module that holds all of several: ``a.b`` of ``a.b.c`` and ``a.b.d``; empty where there is none."""
    levels = zip(*(path.split(".") for path in paths), strict=False)
    return ".".join(level[0] for level in itertools.takewhile(lambda level: len(set(level)) == 1, levels))


_OF_OPERATOR = re.compile(r"[A-Z][A-Za-z]*(_\d+)?(\.out\d*)?")
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
