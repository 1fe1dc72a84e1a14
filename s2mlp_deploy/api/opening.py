"""Opening what was exported or built: the file's kind decides which engine runs it."""

from __future__ import annotations

from pathlib import Path

from s2mlp_deploy.artifact import check_onnx
from s2mlp_deploy.choices import GRAPH_ENGINE
from s2mlp_deploy.engines.base import FileEngine
from s2mlp_deploy.engines.profiles import check_shapes
from s2mlp_deploy.engines.record import read_engine
from s2mlp_deploy.engines.registry import open_built_file, open_graph_file

ENGINE_SUFFIXES = (".engine", ".plan")


def is_engine(path: str | Path) -> bool:
    """Whether a path names an engine file, by its suffix."""
    return Path(path).suffix in ENGINE_SUFFIXES


def open_file(path: Path, *, engine: str = GRAPH_ENGINE, batch: int) -> FileEngine:
    """Opens an ONNX file with an engine and an engine file with the library that built it.

    Args:
        path: The file.
        engine: What runs ONNX files: ``onnxruntime[:PROVIDER]`` or ``openvino[:DEVICE]``.
        batch: Images a run will have: an engine that was not built for so many is refused now.

    Raises:
        S2MLPDeployError: The file cannot run here; says why.
    """
    if not is_engine(path):
        check_onnx(path)
        return open_graph_file(path, engine)
    record = read_engine(path)
    if record.profiles and len(record.inputs) == 1:
        (info,) = record.inputs
        rest = record.profiles[0][info.name].opt[1:]
        check_shapes(record.profiles, {info.name: (batch, *rest)})
    return open_built_file(path, record.flavour)
