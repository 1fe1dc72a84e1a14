"""The engines by name. Nothing is imported until it is used; a new engine is one file and one entry.

The table holds names of functions, not modules, so that a service that only runs ONNX Runtime never loads torch.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2mlp_deploy.choices import GRAPH_ENGINE
from s2mlp_deploy.engines.base import EngineStatus, FileEngine
from s2mlp_deploy.engines.own_thread import InOwnThread, check_flushing
from s2mlp_deploy.engines.record import mismatches
from s2mlp_deploy.errors import InputError, TargetError
from s2mlp_deploy.evidence.build import BuildRecord
from s2mlp_deploy.gpu import gpus
from s2mlp_deploy.text import join_names

_MOST_THREADS = 4096
"""Of an engine: more than any machine has processors."""


@dataclass(frozen=True)
class Entry:
    """An engine. Functions are named as ``module:function``.

    Attributes:
        status: Returns an :class:`~s2mlp_deploy.engines.base.EngineStatus` and imports nothing heavy.
        opens_graph: Opens an ONNX file: takes its path, the part of the machine that is to run it (a provider, a
            device; empty for the default), and ``threads``. Empty where an engine runs only what it has built.
        opens_built: Opens a file that the engine has built: takes its path and ``threads``. Empty where it builds none.
        finds_built: Finds what the engine has built of an ONNX file for this machine: takes its path and the part of
            the machine, returns a path or None. Empty where there is no such thing.
        parts: What the engine calls the parts of a machine that it can run on.
        checks_part: Refuses a part of the machine that is not here, or an engine that is not: takes its name, empty for
            the default. Empty where there are no parts.
        one_at_a_time: Whether a file that is open may not be run by several threads at once.
    """

    status: str
    opens_graph: str = ""
    opens_built: str = ""
    finds_built: str = ""
    parts: str = ""
    checks_part: str = ""
    one_at_a_time: bool = False


ENGINES = {
    "torch": Entry("s2mlp_deploy.engines.torch:status"),
    GRAPH_ENGINE: Entry(
        "s2mlp_deploy.engines.onnxruntime:status",
        "s2mlp_deploy.engines.onnxruntime:open_graph",
        parts="PROVIDER",
        checks_part="s2mlp_deploy.engines.onnxruntime:check_provider",
    ),
    "openvino": Entry(
        "s2mlp_deploy.engines.openvino.library:status",
        "s2mlp_deploy.engines.openvino.runtime:open_graph",
        "s2mlp_deploy.engines.openvino.runtime:open_built",
        "s2mlp_deploy.engines.openvino.builder:find_compiled",
        parts="DEVICE",
        checks_part="s2mlp_deploy.engines.openvino.library:check_device",
    ),
    "tensorrt": Entry(
        "s2mlp_deploy.engines.tensorrt.library:tensorrt_status",
        opens_built="s2mlp_deploy.engines.tensorrt.runtime:open_built",
        one_at_a_time=True,
    ),
    "tensorrt-rtx": Entry(
        "s2mlp_deploy.engines.tensorrt.library:rtx_status",
        opens_built="s2mlp_deploy.engines.tensorrt.runtime:open_built",
        one_at_a_time=True,
    ),
}

OF_GRAPHS = tuple(name for name, entry in ENGINES.items() if entry.opens_graph)
"""Engines that run ONNX files."""

OF_FILES = tuple(name for name, entry in ENGINES.items() if entry.opens_graph or entry.opens_built)
"""Engines that run files, of any kind."""


def statuses() -> tuple[EngineStatus, ...]:
    """What can be used here, in the registry's order."""
    return tuple(_function(entry.status)() for entry in ENGINES.values())


def kind_of(engine: str) -> str:
    """The engine's own name in one that names a part of the machine too: ``openvino`` of ``openvino:GPU``."""
    return engine.partition(":")[0]


def is_here(kind: str) -> bool:
    """Whether the packages of an engine are installed.

    Args:
        kind: Its own name, see :func:`kind_of`.
    """
    entry = ENGINES.get(kind)
    return entry is not None and bool(_function(entry.status)().available)


def fits_here(record: BuildRecord) -> bool:
    """Whether an engine that was built runs on the GPUs of this machine, by its sidecar.

    On all of them: which one is CUDA's first, which runs it, only CUDA knows.
    """
    here = gpus()
    if not here or record.flavour not in ENGINES:
        return False
    status: EngineStatus = _function(ENGINES[record.flavour].status)()
    # What builds here may lack what runs engines.
    return (
        status.available
        and not status.missing
        and not any(mismatches(record, version=status.version, capability=gpu.capability) for gpu in here)
    )


def check_engine(engine: str, among: tuple[str, ...] = OF_FILES) -> None:
    """Refuses a name that no engine has, or of one that cannot be meant.

    Args:
        engine: ``onnxruntime``, ``onnxruntime:cuda``, ``openvino:GPU``, ``tensorrt-rtx``.
        among: Those that can be meant.

    Raises:
        TargetError: It is none of these; says what it is, and lists those that can be meant.
    """
    kind, colon, part = engine.partition(":")
    if kind in among and bool(colon) == bool(part) and (not colon or ENGINES[kind].parts):
        return
    parts = [f"{name}:{ENGINES[name].parts}" for name in among if ENGINES[name].parts]
    problem = f"there is no engine {engine!r}"
    if engine in ENGINES:
        built = ENGINES[engine].opens_built
        problem = (
            f"{engine} runs no ONNX files, only what `build` makes of them" if built else f"{engine} runs no files"
        )
    raise TargetError(
        problem,
        where="--engine",
        fix=f"choose {join_names(among, last='or')}; {join_names(parts, last='or')} for other parts of the machine "
        "than the CPU",
    )


def check_here(engine: str) -> None:
    """Refuses an engine, or a part of the machine, on which no file could be opened here; opens nothing.

    Args:
        engine: A name that :func:`check_engine` takes.

    Raises:
        TargetError: There is no such engine, or no such part of a machine here.
        MissingDependencyError: It is not installed.
    """
    check_engine(engine)
    kind, _, part = engine.partition(":")
    if check := ENGINES[kind].checks_part:
        _function(check)(part)


def check_threads(threads: int, *, least: int = 0) -> None:
    """Refuses a number of threads that no runtime takes: some end in an error of their own, some start them all.

    Args:
        threads: Within an operator; 0 lets the engine choose.
        least: 1 where that is no answer.

    Raises:
        InputError: It is none.
    """
    if not least <= threads <= _MOST_THREADS:
        raise InputError(
            f"an engine with {threads} threads",
            where="--threads",
            fix=f"give a number from 1 to {_MOST_THREADS}" + ("" if least else "; 0 lets the engine choose"),
        )


def open_graph_file(
    path: Path,
    engine: str = GRAPH_ENGINE,
    *,
    threads: int = 0,
    flush_denormals: bool = False,
    own_thread: bool = True,
    **options: Any,
) -> FileEngine:
    """Opens an ONNX file.

    Args:
        path: The file.
        engine: A name that :func:`check_engine` takes, of :data:`OF_GRAPHS`.
        threads: Within an operator, on a CPU; 0 lets the engine choose.
        flush_denormals: Whether subnormal numbers count as 0, in a thread of the engine's own.
        own_thread: False where nothing but the engine runs in the calling thread: it flushes then, for good.
        options: What only this engine takes.

    Raises:
        S2MLPDeployError: The engine is not here, or cannot run the file; says why.
    """
    check_engine(engine, OF_GRAPHS)
    check_threads(threads)
    kind, _, part = engine.partition(":")
    opener = _function(ENGINES[kind].opens_graph)
    if flush_denormals:
        options["flush_denormals"] = True
        if own_thread:
            return InOwnThread(lambda: opener(path, part, threads=threads, **options))
    opened: FileEngine = opener(path, part, threads=threads, **options)
    if flush_denormals:
        check_flushing(opened.name)
    return opened


def open_to_serve(
    path: Path, engine: str = GRAPH_ENGINE, *, threads: int = 0, flush_denormals: bool = False, **options: Any
) -> FileEngine:
    """Opens an ONNX file, or what was built of it for this machine and starts faster.

    Args:
        path: The ONNX file.
        engine: See :func:`open_graph_file`.
        threads: See there.
        flush_denormals: See there; what was built is left aside then.
        options: See there.

    Raises:
        S2MLPDeployError: See there.
    """
    check_engine(engine, OF_GRAPHS)
    kind, _, part = engine.partition(":")
    finder = "" if flush_denormals else ENGINES[kind].finds_built
    if finder and (built := _function(finder)(path, part)) is not None:
        return open_built_file(built, kind, threads=threads)
    return open_graph_file(path, engine, threads=threads, flush_denormals=flush_denormals, **options)


def open_built_file(path: Path, engine: str, *, threads: int = 0, **options: Any) -> FileEngine:
    """Opens a file that an engine has built, with that engine.

    Args:
        path: The file.
        engine: What built it, by its sidecar.
        threads: Of a CPU; 0 for as many as it was built for, or as the engine chooses.
        options: What only this engine takes.

    Raises:
        S2MLPDeployError: The engine is not here, or cannot run the file; says why.
    """
    check_threads(threads)
    if not (entry := ENGINES.get(engine)) or not entry.opens_built:
        raise TargetError(f"there is no engine {engine!r} that builds files", where=str(path), fix="build it again")
    opened: FileEngine = _function(entry.opens_built)(path, threads=threads, **options)
    return opened


def _function(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)
