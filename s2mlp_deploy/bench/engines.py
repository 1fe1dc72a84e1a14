"""Engines by the names that ``bench --engine`` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
from s2mlp_deploy.engines.packages import version_of
from s2mlp_deploy.engines.tensorrt.flavours import NAMES
from s2mlp_deploy.errors import TargetError

ONNXRUNTIME = "onnxruntime"
ENGINES = (ONNXRUNTIME, *NAMES)


def check_engine(name: str) -> None:
    """Refuses a name that no engine has.

    Raises:
        TargetError: There is none; lists those that there are.
    """
    kind, colon, provider = name.partition(":")
    if kind in NAMES and not colon:
        return
    if kind != ONNXRUNTIME or bool(colon) != bool(provider):
        raise TargetError(
            f"there is no engine {name!r}",
            where="--engine",
            fix=f"choose from {', '.join(ENGINES)}; {ONNXRUNTIME}:PROVIDER for another provider than the CPU",
        )


def can_profile(engine: str) -> bool:
    """Whether an engine times its nodes: ONNX Runtime on a CPU. On a GPU it would time how they are queued."""
    kind, _, provider = engine.partition(":")
    return kind == ONNXRUNTIME and provider.lower() in ("", "cpu", "cpuexecutionprovider")


def open_engine(path: Path, engine: str, *, threads: int, profile_to: Path | None = None) -> tuple[Any, str]:
    """Opens a file.

    Args:
        path: An ONNX file for ``onnxruntime``, an engine file for the others.
        engine: A name that :func:`check_engine` takes.
        threads: Threads within an operator; 0 lets the runtime choose.
        profile_to: Folder for the times of every node, of an engine that :func:`can_profile`.

    Returns:
        The engine, with ``limits`` and ``metadata``, and what it is called with its version.

    Raises:
        S2MLPDeployError: The file cannot run here; says why.
    """
    kind, _, provider = engine.partition(":")
    if kind == ONNXRUNTIME:
        # Idle threads that spin for work would take the processor from the engine whose turn it is.
        opened = OnnxRuntimeEngine(path, provider=provider or "cpu", threads=threads, spin=False, profile_to=profile_to)
        version = version_of("onnxruntime") or version_of("onnxruntime-gpu")
        return opened, opened.name.replace(ONNXRUNTIME, f"{ONNXRUNTIME} {version}", 1)
    # It needs NVIDIA's packages, which others do not have.
    from s2mlp_deploy.engines.tensorrt.runtime import TensorRTEngine

    built = TensorRTEngine(path)
    return built, built.name


def is_timed_on_gpu(engine: Any) -> bool:
    """Whether an engine queues its work on a stream, which events can be put into."""
    return hasattr(engine, "stream")
