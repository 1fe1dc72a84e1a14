"""ONNX files that ONNX Runtime optimized ahead of time for one kind of machine.

The optimizer writes layouts that fit the processor (blocked convolutions, for one), so such a file belongs to machines
with the same traits. They stand in a sidecar, ``<file>.json``, and the engine refuses the file elsewhere or without it.
The file is known by its suffix, as engines are.
"""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2mlp_deploy.artifact import check_onnx
from s2mlp_deploy.engines.packages import load_onnxruntime
from s2mlp_deploy.engines.sidecar import check_replaceable, sidecar_of
from s2mlp_deploy.errors import ArtifactError, BuildError, MissingDependencyError, OutputError
from s2mlp_deploy.files import from_json, read_file, replacing, sha256_of, to_json, write_file
from s2mlp_deploy.processor import processor
from s2mlp_deploy.text import command_line, first_line_of

OPTIMIZED_SUFFIX = ".onnxruntime.cpu.onnx"
"""What the names of such files end with."""

SCHEMA_VERSION = 1

X64_PRECISION = "session.x64quantprecision"
"""The session entry that makes ONNX Runtime turn int8 weights into uint8, whose products do not saturate."""


@dataclass(frozen=True)
class Traits:
    """What a machine must have in common with the one that optimized.

    Attributes:
        architecture: ``x86_64``.
        instructions: Instruction sets, sorted; the processor's name where the system does not list them.
        onnxruntime: Version; another one may lack the operators that the file uses.
    """

    architecture: str
    instructions: tuple[str, ...]
    onnxruntime: str


@dataclass(frozen=True)
class OptimizedRecord:
    """What optimizing wrote; its sidecar.

    Attributes:
        onnx: The file that was read.
        onnx_sha256: Its hash.
        optimized: The file that was written.
        optimized_sha256: Its hash.
        bytes: Its size.
        traits: Of the machine.
        seconds: Wall time.
        schema_version: Of this description.
    """

    onnx: str
    onnx_sha256: str
    optimized: str
    optimized_sha256: str
    bytes: int
    traits: Traits
    seconds: float
    schema_version: int = SCHEMA_VERSION


def is_optimized(path: Path) -> bool:
    """Whether a path names a file that was optimized ahead of time, by its suffix."""
    return path.name.endswith(OPTIMIZED_SUFFIX)


def traits_here(onnxruntime_version: str) -> Traits:
    """The traits of this machine."""
    here = processor()
    return Traits(here.architecture, here.instructions or (here.name,), onnxruntime_version)


def check_optimized(path: Path, onnxruntime_version: str) -> OptimizedRecord:
    """Refuses an optimized file that was changed, or made for another machine.

    Args:
        path: The file.
        onnxruntime_version: Of the ONNX Runtime that would load it.

    Returns:
        Its sidecar.

    Raises:
        ArtifactError: The sidecar is missing, damaged or of another schema version, the file is not the one it
            describes, or a trait differs; says which.
    """
    fix = "optimize the original file here"
    original = path.with_name(path.name.removesuffix(OPTIMIZED_SUFFIX) + ".onnx")
    if original.is_file():
        options = ["--engine", "onnxruntime", "--optimize-for", "cpu"]
        fix += f": {command_line('build', original, *options)}"
    record = _read_sidecar(path, fix)
    if sha256_of(path) != record.optimized_sha256:
        raise ArtifactError(
            "the optimized file is not the one that its sidecar describes: it was changed", where=str(path), fix=fix
        )
    if different := _differences(record.traits, traits_here(onnxruntime_version)):
        raise ArtifactError(
            "the file was optimized for another machine\n    " + "\n    ".join(different), where=str(path), fix=fix
        )
    return record


def _read_sidecar(path: Path, fix: str) -> OptimizedRecord:
    sidecar = sidecar_of(path)
    try:
        raw = read_file(sidecar, "sidecar")
    except OSError as error:
        raise ArtifactError(
            f"the optimized file has no readable sidecar, so nothing says which machine it is for: "
            f"{error.strerror or error}",
            where=str(sidecar),
            fix=f"copy both files together, or {fix}",
        ) from error
    try:
        record: OptimizedRecord = from_json(raw, OptimizedRecord)
    except ValueError as error:
        raise ArtifactError(f"the sidecar is damaged: {error}", where=str(sidecar), fix=fix) from error
    if record.schema_version != SCHEMA_VERSION:
        raise ArtifactError(
            f"the sidecar is of schema version {record.schema_version}, this package reads {SCHEMA_VERSION}",
            where=str(sidecar),
            fix=fix,
        )
    return record


def _differences(built: Traits, here: Traits) -> list[str]:
    lines = []
    if built.architecture != here.architecture:
        lines.append(f"architecture: optimized for {built.architecture}, here is {here.architecture}")
    missing = sorted({*built.instructions} - {*here.instructions})
    more = sorted({*here.instructions} - {*built.instructions})
    if missing or more:
        lines.append(
            f"instruction sets: optimized for {', '.join(missing) or 'fewer'}, here is {', '.join(more) or 'fewer'}"
        )
    if built.onnxruntime != here.onnxruntime:
        lines.append(f"ONNX Runtime: optimized with {built.onnxruntime}, here is {here.onnxruntime}")
    return lines


def optimize(onnx_file: Path, output: Path | None = None) -> OptimizedRecord:
    """Writes the graph as ONNX Runtime's CPU provider would run it here, and its sidecar.

    Args:
        onnx_file: The graph.
        output: Where to write, a name that ends with :data:`OPTIMIZED_SUFFIX`; default ``<stem>.onnxruntime.cpu.onnx``
            beside it.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        ArtifactError: There is no such file, or it was optimized already.
        BuildError: ONNX Runtime cannot load it.
        OutputError: The file cannot be written, or its name has another suffix.
    """
    try:
        # Optional, and heavy: a service that runs engines of TensorRT has none.
        onnxruntime = load_onnxruntime()
    except ImportError:
        raise MissingDependencyError("onnxruntime", extra="cpu", purpose="optimizing ONNX files") from None
    check_onnx(onnx_file)
    if is_optimized(onnx_file):
        raise ArtifactError("the file was optimized already", where=str(onnx_file), fix="name the original file")
    usual = onnx_file.with_name(f"{onnx_file.stem}{OPTIMIZED_SUFFIX}")
    output = output or usual
    _check_output(output, usual)
    start = time.monotonic()
    with replacing(output) as temporary:
        _run_optimizer(onnxruntime, onnx_file, temporary)
        record = OptimizedRecord(
            onnx=onnx_file.name,
            onnx_sha256=sha256_of(onnx_file),
            optimized=output.name,
            optimized_sha256=sha256_of(temporary),
            bytes=temporary.stat().st_size,
            traits=traits_here(onnxruntime.__version__),
            seconds=round(time.monotonic() - start, 3),
        )
        # It takes its place first: between the two it speaks of a file that is not there, so nothing looks whole.
        write_file(sidecar_of(output), to_json(record))
    return record


def _check_output(output: Path, usual: Path) -> None:
    if output.is_dir():
        raise OutputError(
            "the optimized graph would replace a directory", where=str(output), fix="name another file with --output"
        )
    # Without the suffix it would be taken for a file that runs anywhere.
    if not is_optimized(output):
        raise OutputError(
            f"the name of an optimized file must end with {OPTIMIZED_SUFFIX}",
            where=str(output),
            fix=shlex.join(["--output", str(output.with_name(output.name.removesuffix(".onnx") + OPTIMIZED_SUFFIX))]),
        )
    check_replaceable(output, usual)


def _run_optimizer(onnxruntime: Any, onnx_file: Path, output: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(output)
    # Level 4: the file is meant for this kind of machine alone, which is what ONNX Runtime would warn of.
    options.log_severity_level = 4
    options.add_session_config_entry(X64_PRECISION, x64_precision())
    try:
        onnxruntime.InferenceSession(str(onnx_file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a dozen types of its own, with no common base but this.
        raise BuildError(
            f"ONNX Runtime cannot optimize the model: {first_line_of(error)}",
            where=str(onnx_file),
            fix="check that the file is an ONNX model, and that the disk has room",
        ) from error


def x64_precision() -> str:
    """The value of :data:`X64_PRECISION` that keeps int8 exact on this processor without slowing VNNI down.

    Measured on an x86 processor with AVX2 and no VNNI, ONNX Runtime 1.32: a product of 64 ones, quantized to uint8 and
    int8 at full range, is 32.4 without this entry and 64 with it, for MatMul, Gemm and Conv alike. With VNNI, where
    the sums are exact, the entry would still exchange the kernels for slower ones.
    """
    return "1" if processor().int8_saturates else "0"
