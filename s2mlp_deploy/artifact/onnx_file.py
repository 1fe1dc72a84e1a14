"""What an ONNX file is made of, seen without loading it: external weights, functions, how many parts it has.

Own code: a protobuf library first makes whatever the bytes claim, and ten megabytes of empty messages are a gigabyte of
objects. This looks at the structure only, in the mapped file, and stops at a limit; weights are stepped over.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from s2mlp_deploy.artifact.verify import verify_weights
from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.files import inside, is_regular

MAX_FILE = 2**31 - 1
"""Bytes of the largest protobuf message."""

MAX_PARTS = 1_000_000
"""Fields of nodes, attributes and tensors. a network of 20,000 nodes has less than half of it."""

MAX_NODES = 1_000_000
"""Nodes of a graph when all its functions are put in place."""

MAX_WEIGHT_FILES = 20_000
"""Files of external weights. Some exporters write one for each tensor."""

_MAX_DEPTH = 64
"""Graphs in attributes of nodes of graphs. protobuf itself reads a hundred messages in one another."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES = 10

# Field numbers of onnx.proto: which fields of a message are messages that are looked into.
_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _ENTRY, _FUNCTION, _SPARSE, _TRAINING, _FLAT = range(10)
_NESTED: dict[int, dict[int, int]] = {
    _MODEL: {7: _GRAPH, 8: _FLAT, 14: _FLAT, 20: _TRAINING, 25: _FUNCTION},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _TENSOR: {13: _ENTRY},
    _FUNCTION: {7: _NODE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _TRAINING: {1: _GRAPH, 2: _GRAPH},
}
_NODE_TYPE, _NODE_DOMAIN, _NODE_OVERLOAD = 4, 7, 8
_FUNCTION_NAME, _FUNCTION_DOMAIN, _FUNCTION_OVERLOAD = 1, 10, 13
_ENTRY_KEY, _ENTRY_VALUE = 1, 2

_Name = tuple[bytes, bytes, bytes]
"""Of a function, or of what a node calls: domain, name, overload."""


@dataclass
class _Scan:
    """What was found so far."""

    data: memoryview
    parts: int = 0
    graphs: int = 0
    locations: set[bytes] = field(default_factory=set)
    calls: dict[_Name, Counter[_Name]] = field(default_factory=dict)
    top: Counter[_Name] = field(default_factory=Counter)


def check_onnx(path: Path) -> tuple[str, ...]:
    """Refuses an ONNX file that is not safe to load: before a library reads it.

    What it says must be readable within bounds, its functions must come to an end, and the weights beside it must lie
    in its folder and be, where an artifact's manifest lists them, the ones it lists.

    Returns:
        The names of the files that hold its weights, relative to its folder; none where it holds them itself.

    Raises:
        ArtifactError: It is not there, no ONNX file, or one of these does not hold.
    """
    if not path.exists():
        raise ArtifactError(
            "no such ONNX file",
            where=str(path),
            fix="check the path; `s2mlp-deploy export --help` shows how one is made",
        )
    if not is_regular(path.resolve()):
        raise _no_onnx(path, "it is no regular file")
    if path.stat().st_size > MAX_FILE:
        raise _no_onnx(path, f"it has {path.stat().st_size:,} bytes, and protobuf ends at {MAX_FILE:,}")
    try:
        with path.open("rb") as stream:
            scan = _scanned(stream.fileno(), path)
    except OSError as error:
        raise _no_onnx(path, error.strerror or str(error)) from error
    _check_functions(scan, path)
    if len(scan.locations) > MAX_WEIGHT_FILES:
        raise _no_onnx(path, f"its weights lie in more than {MAX_WEIGHT_FILES:,} files")
    names = tuple(sorted(location.decode(errors="surrogateescape") for location in scan.locations))
    for name in names:
        data = inside(path.parent, name)
        if data is None:
            raise ArtifactError(
                f"the weights beside the graph lie outside of its folder: {name}",
                where=str(path),
                fix="save the model again, with its weights beside it",
            )
        if not is_regular(data):
            raise ArtifactError(
                f"the weights beside the graph are missing: {name}", where=str(data), fix="copy both files together"
            )
    verify_weights(path, names)
    return names


def _scanned(handle: int, path: Path) -> _Scan:
    try:
        mapped = mmap.mmap(handle, 0, access=mmap.ACCESS_READ)
    except ValueError:  # An empty file.
        raise _no_onnx(path, "it is empty") from None
    with mapped, memoryview(mapped) as data:
        scan = _Scan(data)
        try:
            _scan(scan, _MODEL, 0, len(data), scan.top, 0)
        except (IndexError, ValueError) as error:
            raise _no_onnx(path, str(error)) from None
        scan.data = memoryview(b"")
    if not scan.graphs:
        raise ArtifactError("there is no ONNX graph in the file", where=str(path), fix="name an ONNX file")
    return scan


def _no_onnx(path: Path, problem: str) -> ArtifactError:
    return ArtifactError(f"not an ONNX file: {problem}", where=str(path), fix="name an ONNX file")


def _scan(scan: _Scan, kind: int, start: int, end: int, calls: Counter[_Name], depth: int) -> dict[int, bytes]:
    """Goes through a message.

    Args:
        scan: What is found is added to it.
        kind: Of the message.
        start: Its first byte.
        end: The byte behind it.
        calls: What the nodes of the enclosing function, or of the main graph, call.
        depth: Of graphs in graphs.

    Returns:
        The short texts of the message, by field.

    Raises:
        ValueError: The bytes are no such message, or a limit is passed.
    """
    if kind == _GRAPH:
        scan.graphs += 1
        depth += 1
        if depth > _MAX_DEPTH:
            raise ValueError(f"graphs are nested more than {_MAX_DEPTH} deep")
    nested = _NESTED.get(kind, {})
    texts: dict[int, bytes] = {}
    own: Counter[_Name] = Counter() if kind == _FUNCTION else calls
    for number, first, last in _fields(scan, start, end):
        inner = nested.get(number)
        if inner is not None and inner != _FLAT:
            found = _scan(scan, inner, first, last, own, depth)
            if inner == _ENTRY and found.get(_ENTRY_KEY) == b"location":
                scan.locations.add(found.get(_ENTRY_VALUE, b""))
            elif inner == _NODE:
                own[_name(found, _NODE_DOMAIN, _NODE_TYPE, _NODE_OVERLOAD)] += 1
        elif kind in (_NODE, _FUNCTION, _ENTRY):
            texts[number] = bytes(scan.data[first : min(last, first + 4096)])
    if kind == _FUNCTION:
        scan.calls[_name(texts, _FUNCTION_DOMAIN, _FUNCTION_NAME, _FUNCTION_OVERLOAD)] = own
    return texts


def _name(texts: dict[int, bytes], domain: int, name: int, overload: int) -> _Name:
    return texts.get(domain, b""), texts.get(name, b""), texts.get(overload, b"")


def _fields(scan: _Scan, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The length-delimited fields of a message: number, first byte, the byte behind the last. Others are counted."""
    data = scan.data
    while position < end:
        scan.parts += 1
        if scan.parts > MAX_PARTS:
            raise ValueError(f"it has more than {MAX_PARTS:,} parts")
        tag, position = read_varint(data, position)
        kind = tag & 7
        if kind == _BYTES:
            length, position = read_varint(data, position)
            if position + length > end:
                raise ValueError("a part of it is longer than the file")
            yield tag >> 3, position, position + length
            position += length
        elif kind == _VARINT:
            _, position = read_varint(data, position)
        elif kind in (_FIXED32, _FIXED64):
            position += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError("it is no protobuf message")
    if position != end:
        raise ValueError("a part of it is longer than the file")


def read_varint(data: memoryview, position: int) -> tuple[int, int]:
    """A number of variable length, and the position behind it.

    Raises:
        ValueError: It is longer than a number can be.
        IndexError: It ends behind the data.
    """
    value = data[position]
    position += 1
    if value < 0x80:
        return value, position
    value &= 0x7F
    for count in range(1, _VARINT_BYTES):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return value, position
    raise ValueError("it is no protobuf message")


def _check_functions(scan: _Scan, path: Path) -> None:
    """Refuses functions that call themselves, or that become a million nodes when they are put in place."""
    sizes: dict[_Name, int] = {}
    for first in scan.calls:
        # Without recursion of our own: a chain of functions may be long.
        walk = [] if first in sizes else [(first, iter(scan.calls[first]))]
        active = {first}
        while walk:
            current, rest = walk[-1]
            call = next((name for name in rest if name in scan.calls and name not in sizes), None)
            if call is None:
                sizes[current] = _nodes(scan.calls[current], sizes)
                active.discard(current)
                walk.pop()
            elif call in active:
                raise _no_onnx(path, f"its function {call[1].decode(errors='replace')} calls itself")
            else:
                active.add(call)
                walk.append((call, iter(scan.calls[call])))
    if _nodes(scan.top, sizes) > MAX_NODES:
        raise _no_onnx(path, f"it has more than {MAX_NODES:,} nodes when its functions are put in place")


def _nodes(calls: Counter[_Name], sizes: dict[_Name, int]) -> int:
    """How many nodes the calls become; all large numbers count alike."""
    return min(sum(sizes.get(name, 1) * count for name, count in calls.items()), MAX_NODES + 1)
