"""Opening what was exported or built: the file's kind decides which engine runs it."""

from __future__ import annotations

from pathlib import Path

from s2mlp_deploy.artifact import check_onnx
from s2mlp_deploy.choices import GRAPH_ENGINE
from s2mlp_deploy.engines.base import FileEngine
from s2mlp_deploy.engines.profiles import check_shapes
from s2mlp_deploy.engines.record import read_engine, read_sidecar
from s2mlp_deploy.engines.registry import open_built_file, open_graph_file
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.text import join_names

ENGINE_SUFFIXES = (".engine", ".plan")


def is_engine(path: str | Path) -> bool:
    """Whether a path names an engine file, by its suffix."""
    return Path(path).suffix in ENGINE_SUFFIXES


def check_built_by(path: str | Path, engine: str) -> None:
    """Refuses an engine file that another engine than the one that was asked for has built; of other files nothing.

    Raises:
        ArtifactError: The engine or its sidecar is missing or damaged.
        InputError: Something else built it, or for another part of the machine.
    """
    if not is_engine(path):
        return
    record = read_sidecar(Path(path))
    kind, _, part = engine.partition(":")
    if kind == record.flavour and part.upper() in ("", *record.targets):
        return
    of = f"{record.flavour} for {join_names(record.targets)}" if kind == record.flavour else record.flavour
    raise InputError(
        f"{of} built it, and nothing else runs it: not {engine}",
        where=str(path),
        fix="leave --engine out, or name the ONNX file that it was built from",
    )


def open_file(path: Path, *, engine: str = GRAPH_ENGINE, batch: int) -> FileEngine:
    """Opens an ONNX file with an engine and an engine file with the library that built it.

    Args:
        path: The file.
        engine: What runs ONNX files: ``onnxruntime[:PROVIDER]`` or ``openvino[:DEVICE]``. Another one than the default
            must be what built an engine file.
        batch: Images a run will have: an engine that was not built for so many is refused now.

    Raises:
        S2MLPDeployError: The file cannot run here; says why.
    """
    if not is_engine(path):
        check_onnx(path)
        return open_graph_file(path, engine)
    if engine != GRAPH_ENGINE:
        check_built_by(path, engine)
    record = read_engine(path)
    if record.profiles and len(record.inputs) == 1:
        (info,) = record.inputs
        rest = record.profiles[0][info.name].opt[1:]
        check_shapes(record.profiles, {info.name: (batch, *rest)})
    return open_built_file(path, record.flavour)
