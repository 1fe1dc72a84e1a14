"""Opening what was exported or built: the file's kind decides which engine runs it."""

from __future__ import annotations

from pathlib import Path

from s2mlp_deploy.artifact import check_onnx
from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
from s2mlp_deploy.engines.profiles import check_shapes
from s2mlp_deploy.engines.tensorrt.record import read_engine
from s2mlp_deploy.engines.tensorrt.runtime import TensorRTEngine

ENGINE_SUFFIXES = (".engine", ".plan")


def is_engine(path: str | Path) -> bool:
    """Whether a path names an engine file, by its suffix."""
    return Path(path).suffix in ENGINE_SUFFIXES


def open_file(path: Path, *, provider: str, batch: int) -> OnnxRuntimeEngine | TensorRTEngine:
    """Opens an ONNX file with ONNX Runtime and an engine file with the library that built it.

    Args:
        path: The file.
        provider: ONNX Runtime's execution provider.
        batch: Images a run will have: an engine that was not built for so many is refused now.

    Raises:
        S2MLPDeployError: The file cannot run here; says why.
    """
    if not is_engine(path):
        check_onnx(path)
        return OnnxRuntimeEngine(path, provider=provider)
    record = read_engine(path)
    if record.profiles and len(record.inputs) == 1:
        (info,) = record.inputs
        rest = record.profiles[0][info.name].opt[1:]
        check_shapes(record.profiles, {info.name: (batch, *rest)})
    return TensorRTEngine(path)
