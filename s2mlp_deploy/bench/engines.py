"""Engines as a benchmark opens them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from s2mlp_deploy.choices import GRAPH_ENGINE
from s2mlp_deploy.engines.packages import version_of
from s2mlp_deploy.engines.registry import OF_GRAPHS, check_here, kind_of, open_built_file, open_graph_file
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.evidence.tune import EngineSettings

_CPU = ("", "cpu", "cpuexecutionprovider")


def can_profile(path: Path, engine: str) -> bool:
    """Whether an engine times the nodes of a file: of a graph, on a CPU. On a GPU it would time how they are queued."""
    kind, _, part = engine.partition(":")
    return path.suffix == ".onnx" and kind in OF_GRAPHS and part.lower() in _CPU


def check_opens(path: Path, engine: str, settings: EngineSettings) -> None:
    """Refuses what :func:`open_engine` would refuse, as far as that is known without loading a file.

    Raises:
        TargetError: There is no such part of a machine here.
        MissingDependencyError: The engine that has it is not installed.
        InputError: Subnormal numbers are to count as 0 in an engine file.
    """
    if ":" in engine:  # Asking brings the runtime into this process; whether it is installed its own one says.
        check_here(engine)
    if path.suffix != ".onnx" and settings.flush_denormals:
        raise InputError(
            "how an engine file takes subnormal numbers was decided when it was built",
            where=str(path),
            fix="leave --flush-denormals out, or name ONNX files alone",
        )


def open_engine(
    path: Path, engine: str, *, settings: EngineSettings, throughput: bool = False, profile_to: Path | None = None
) -> tuple[Any, str]:
    """Opens a file.

    Args:
        path: An ONNX file for an engine that runs graphs, else an engine file.
        engine: A name that :func:`~s2mlp_deploy.engines.registry.check_engine` takes.
        settings: How; OpenVINO has neither spinning nor levels of optimization. Subnormal numbers may count as 0 in
            the calling thread.
        throughput: Whether many runs at once count, not the time of one.
        profile_to: Folder for the times of every node, of an engine that :func:`can_profile`.

    Returns:
        The engine, with ``limits`` and ``metadata``, and what it is called with its version.

    Raises:
        S2MLPDeployError: The file cannot run here; says why.
    """
    kind = kind_of(engine)
    if path.suffix != ".onnx":
        check_opens(path, engine, settings)
        # Kernels that are compiled beside the first runs would be measured with them.
        options: dict[str, Any] = {"kernels": "eager"} if kind == "tensorrt-rtx" else {}
        if kind == "openvino":
            options = {"throughput": throughput}
        built = open_built_file(path, kind, threads=settings.threads, **options)
        return built, built.name
    own: dict[str, Any] = {"throughput": throughput}
    if kind == GRAPH_ENGINE:
        own = {"spin": settings.spin, "optimize": settings.optimize}
    if settings.flush_denormals:
        own |= {"flush_denormals": True, "own_thread": False}
    opened = open_graph_file(path, engine, threads=settings.threads, profile_to=profile_to, **own)
    version = version_of(kind) or version_of(f"{kind}-gpu")
    return opened, opened.name.replace(kind, f"{kind} {version}", 1)


def is_timed_on_gpu(engine: Any) -> bool:
    """Whether an engine queues its work on a stream, which events can be put into."""
    return hasattr(engine, "stream")
