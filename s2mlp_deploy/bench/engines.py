"""Engines as a benchmark opens them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from s2mlp_deploy.choices import GRAPH_ENGINE
from s2mlp_deploy.engines.packages import version_of
from s2mlp_deploy.engines.registry import OF_GRAPHS, kind_of, open_built_file, open_graph_file
from s2mlp_deploy.errors import InputError

_CPU = ("", "cpu", "cpuexecutionprovider")


def can_profile(path: Path, engine: str) -> bool:
    """Whether an engine times the nodes of a file: of a graph, on a CPU. On a GPU it would time how they are queued."""
    kind, _, part = engine.partition(":")
    return path.suffix == ".onnx" and kind in OF_GRAPHS and part.lower() in _CPU


def open_engine(
    path: Path,
    engine: str,
    *,
    threads: int,
    throughput: bool = False,
    flush_denormals: bool = False,
    profile_to: Path | None = None,
) -> tuple[Any, str]:
    """Opens a file.

    Args:
        path: An ONNX file for an engine that runs graphs, else an engine file.
        engine: A name that :func:`~s2mlp_deploy.engines.registry.check_engine` takes.
        threads: Threads within an operator; 0 lets the runtime choose.
        throughput: Whether many runs at once count, not the time of one.
        flush_denormals: Whether subnormal numbers count as 0, in the calling thread.
        profile_to: Folder for the times of every node, of an engine that :func:`can_profile`.

    Returns:
        The engine, with ``limits`` and ``metadata``, and what it is called with its version.

    Raises:
        S2MLPDeployError: The file cannot run here; says why.
    """
    kind = kind_of(engine)
    if path.suffix != ".onnx":
        if flush_denormals:
            raise InputError(
                "how an engine file takes subnormal numbers was decided when it was built",
                where=str(path),
                fix="leave --flush-denormals out, or name ONNX files alone",
            )
        built = open_built_file(path, kind, threads=threads)
        return built, built.name
    # Idle threads that spin for work would take the processor from the engine whose turn it is.
    own: dict[str, Any] = {"spin": False} if kind == GRAPH_ENGINE else {"throughput": throughput}
    if flush_denormals:
        own |= {"flush_denormals": True, "own_thread": False}
    opened = open_graph_file(path, engine, threads=threads, profile_to=profile_to, **own)
    version = version_of(kind) or version_of(f"{kind}-gpu")
    return opened, opened.name.replace(kind, f"{kind} {version}", 1)


def is_timed_on_gpu(engine: Any) -> bool:
    """Whether an engine queues its work on a stream, which events can be put into."""
    return hasattr(engine, "stream")
