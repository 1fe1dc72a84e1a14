"""Graphs that ONNX Runtime optimized ahead of time for one kind of machine.

The optimizer writes layouts that fit the processor (blocked convolutions, for one), so such a file belongs to machines
with the same traits: it carries them in its metadata, and the engine refuses it elsewhere. onnx is not needed: metadata
entries stand at the top level of the protobuf message, where they can be read, and added by appending.
"""

from __future__ import annotations

import mmap
import platform
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from s2mlp_deploy.errors import ArtifactError, BuildError, MissingDependencyError, OutputError
from s2mlp_deploy.files import replacing, sha256_of

if TYPE_CHECKING:
    from collections.abc import Mapping

TRAITS_KEY = "s2mlp_deploy.optimized_for"
"""The ONNX metadata entry that names the traits of the machine."""

# Instruction sets that ONNX Runtime's kernels choose by; the rest of a processor's flags changes nothing.
_RELEVANT = re.compile(r"avx|amx|fma$|f16c|sse4|asimd|neon|sve|sme\d?$|i8mm|bf16|fphp")
_METADATA_FIELD = 14  # ModelProto.metadata_props in onnx.proto.
_LENGTH_DELIMITED = 2
_FIXED_SIZES = {1: 8, 5: 4}


@dataclass(frozen=True)
class Traits:
    """What a machine must have in common with the one that optimized.

    Attributes:
        architecture: ``x86_64``.
        instructions: Instruction sets, sorted.
        onnxruntime: Version; another one may lack the operators that the file uses.
    """

    architecture: str
    instructions: tuple[str, ...]
    onnxruntime: str


@dataclass(frozen=True)
class OptimizedRecord:
    """What optimizing made.

    Attributes:
        onnx: The file that was read.
        onnx_sha256: Its hash.
        optimized: The file that was written.
        optimized_sha256: Its hash.
        bytes: Its size.
        traits: Of this machine.
        seconds: Wall time.
    """

    onnx: str
    onnx_sha256: str
    optimized: str
    optimized_sha256: str
    bytes: int
    traits: Traits
    seconds: float


def traits_here(onnxruntime_version: str) -> Traits:
    """The traits of this machine."""
    return Traits(platform.machine(), _instructions(), onnxruntime_version)


def _instructions() -> tuple[str, ...]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        # No list of instruction sets: the processor's name stands for them.
        return (platform.processor(),)
    match = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    return tuple(sorted(flag for flag in set(match[1].split()) if _RELEVANT.match(flag))) if match else ()


def check_traits(model: Path | bytes, onnxruntime_version: str) -> bool:
    """Refuses a file that was optimized for another machine.

    Returns:
        Whether the file was optimized ahead of time at all.

    Raises:
        ArtifactError: Says which trait differs.
    """
    text = read_metadata(model).get(TRAITS_KEY)
    if text is None:
        return False
    where = str(model) if isinstance(model, Path) else "the given bytes"
    fix = "optimize the original file here: `s2mlp-deploy build FILE.onnx --engine onnxruntime --optimize-for cpu`"
    try:
        built = msgspec.json.decode(text, type=Traits)
    except msgspec.DecodeError as error:
        raise ArtifactError(f"the traits of an optimized file are damaged: {error}", where=where, fix=fix) from error
    here = traits_here(onnxruntime_version)
    if built == here:
        return True
    lines = []
    if built.architecture != here.architecture:
        lines.append(f"architecture: made for {built.architecture}, here is {here.architecture}")
    missing, more = (
        sorted({*a} - {*b})
        for a, b in ((built.instructions, here.instructions), (here.instructions, built.instructions))
    )
    if missing or more:
        lines.append(
            f"instruction sets: made for {', '.join(missing) or 'fewer'}, here is {', '.join(more) or 'fewer'}"
        )
    if built.onnxruntime != here.onnxruntime:
        lines.append(f"ONNX Runtime: made with {built.onnxruntime}, here is {here.onnxruntime}")
    raise ArtifactError("the file was optimized for another machine\n    " + "\n    ".join(lines), where=where, fix=fix)


def optimize(onnx_file: Path, output: Path | None) -> OptimizedRecord:
    """Writes the graph as ONNX Runtime's CPU provider would run it here.

    Args:
        onnx_file: The graph.
        output: Where to write; default ``<stem>.onnxruntime.cpu.onnx`` beside it.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        ArtifactError: There is no such file, or it was optimized already.
        BuildError: ONNX Runtime cannot load it.
        OutputError: The file cannot be written.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependencyError("onnxruntime", extra="cpu", purpose="optimizing ONNX files") from None
    if not onnx_file.is_file():
        raise ArtifactError("no such ONNX file", where=str(onnx_file), fix="export one with `s2mlp-deploy export`")
    output = output or onnx_file.with_name(f"{onnx_file.stem}.onnxruntime.cpu.onnx")
    if output.exists() and (output.is_dir() or output.samefile(onnx_file)):
        raise OutputError(
            "the optimized graph would replace " + ("a directory" if output.is_dir() else "the graph it is made from"),
            where=str(output),
            fix="name another file with --output",
        )
    if TRAITS_KEY in read_metadata(onnx_file):
        raise ArtifactError("the file was optimized already", where=str(onnx_file), fix="name the original file")
    start = time.monotonic()
    traits = traits_here(onnxruntime.__version__)
    with replacing(output) as temporary:
        _run_optimizer(onnxruntime, onnx_file, temporary)
        with temporary.open("ab") as stream:
            stream.write(_entry(TRAITS_KEY, msgspec.json.encode(traits).decode()))
    return OptimizedRecord(
        onnx=onnx_file.name,
        onnx_sha256=sha256_of(onnx_file),
        optimized=output.name,
        optimized_sha256=sha256_of(output),
        bytes=output.stat().st_size,
        traits=traits,
        seconds=round(time.monotonic() - start, 3),
    )


def _run_optimizer(onnxruntime: Any, onnx_file: Path, output: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(output)
    # Level 4: the file is meant for this kind of machine alone, which is what ONNX Runtime would warn of.
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(str(onnx_file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a dozen types of its own, with no common base but this.
        raise BuildError(
            f"ONNX Runtime cannot optimize the model: {next(iter(str(error).splitlines()), type(error).__name__)}",
            where=str(onnx_file),
            fix="check that the file is an ONNX model, and that the disk has room",
        ) from error


def read_metadata(model: Path | bytes) -> Mapping[str, str]:
    """The metadata entries of an ONNX file, without reading its graph. What is no protobuf has none."""
    if isinstance(model, bytes):
        return dict(_entries(memoryview(model)))
    try:
        with model.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            view = memoryview(mapped)
            try:
                return dict(_entries(view))
            finally:
                view.release()
    except (OSError, ValueError):
        # Missing, a folder, or empty: whoever loads the graph will say so.
        return {}


def _entries(data: memoryview) -> Iterator[tuple[str, str]]:
    """Fields of the message in turn (https://protobuf.dev/programming-guides/encoding): tag, then length and bytes."""
    for field, value in _fields(data):
        if field == _METADATA_FIELD:
            parts = {number: bytes(part).decode(errors="replace") for number, part in _fields(value)}
            yield parts.get(1, ""), parts.get(2, "")


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _LENGTH_DELIMITED:
            size, at = _varint(data, at)
            if at + size > len(data):
                return
            yield tag >> 3, data[at : at + size]
            at += size
        elif kind == 0:
            _, at = _varint(data, at)
        elif kind in _FIXED_SIZES:
            at += _FIXED_SIZES[kind]
        else:
            return


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return 0, len(data)


def _entry(key: str, value: str) -> bytes:
    """One entry of metadata_props; messages that are joined are merged, so it may stand at the end of a file."""
    inner = b"".join(
        bytes([number << 3 | 2]) + _size(part) + part for number, part in ((1, key.encode()), (2, value.encode()))
    )
    return bytes([_METADATA_FIELD << 3 | 2]) + _size(inner) + inner


def _size(part: bytes) -> bytes:
    number, out = len(part), bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
