"""Inputs, outputs and metadata of an ONNX file, read without onnx: for runtimes that keep no names of free sizes.

Only for files that :func:`~s2mlp_deploy.artifact.onnx_file.check_onnx` has accepted: its bounds hold here.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.artifact.manifest import TensorInfo
from s2mlp_deploy.artifact.onnx_file import read_varint
from s2mlp_deploy.errors import ArtifactError

# Field numbers of onnx.proto.
_GRAPH, _METADATA = 7, 14
_NODE, _INITIALIZER, _INPUT, _OUTPUT = 1, 5, 11, 12
_NODE_NAME, _NODE_TYPE, _NODE_ATTRIBUTE = 3, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_INT = 1, 3
_TENSOR_DTYPE, _TENSOR_NAME, _TENSOR_BYTES = 2, 8, 9
_FLOAT32 = 1
_NAME, _TYPE = 1, 2
_TENSOR_TYPE = 1
_ELEMENT, _SHAPE = 1, 2
_DIMENSION = 1
_SIZE, _PARAMETER = 1, 2
_KEY, _VALUE = 1, 2

_DTYPES = {
    **{1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool"},
    **{10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16", 17: "float8e4m3fn"},
}


@dataclass(frozen=True)
class OnnxInterface:
    """What an ONNX file says of itself.

    Attributes:
        inputs: Of the graph, without those that are weights.
        outputs: Of the graph.
        metadata: Its entries.
        antialiased: Names of the main graph's Resize nodes with ``antialias``.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    metadata: dict[str, str]
    antialiased: tuple[str, ...] = ()


def read_interface(path: Path) -> OnnxInterface:
    """Reads inputs, outputs and metadata of an ONNX file.

    Args:
        path: A file that :func:`~s2mlp_deploy.artifact.onnx_file.check_onnx` has accepted.

    Raises:
        ArtifactError: It cannot be read.
    """
    try:
        with path.open("rb") as stream:
            # Not closed here: after an error, parts of it are still seen from where it was raised.
            return _read(memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)))
    except (OSError, ValueError, IndexError) as error:
        raise ArtifactError(f"not an ONNX file: {error}", where=str(path), fix="name an ONNX file") from error


def float_weights(path: Path) -> Iterator[NDArray[np.float32]]:
    """The float32 weights that an ONNX file holds itself, flat; those of files beside it are passed over.

    Args:
        path: A file that :func:`~s2mlp_deploy.artifact.onnx_file.check_onnx` has accepted.

    Raises:
        ArtifactError: It cannot be read.
    """
    try:
        with path.open("rb") as stream:
            data = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        for number, graph in _fields(data):
            for part, tensor in _fields(graph) if number == _GRAPH else ():
                told = dict(_fields(tensor)) if part == _INITIALIZER else {}
                content = told.get(_TENSOR_BYTES)
                if told.get(_TENSOR_DTYPE) == _FLOAT32 and isinstance(content, memoryview):
                    yield np.frombuffer(content, "<f4")
    except (OSError, ValueError, IndexError) as error:
        raise ArtifactError(f"not an ONNX file: {error}", where=str(path), fix="name an ONNX file") from error


def _read(data: memoryview) -> OnnxInterface:
    metadata: dict[str, str] = {}
    inputs: list[TensorInfo] = []
    outputs: list[TensorInfo] = []
    weights: set[str] = set()
    antialiased: list[str] = []
    for number, value in _fields(data):
        if number == _METADATA:
            entry = dict(_fields(value))
            metadata[_text(entry.get(_KEY))] = _text(entry.get(_VALUE))
        elif number == _GRAPH:
            for part, inner in _fields(value):
                if part == _INITIALIZER:
                    weights.update(_text(name) for field, name in _fields(inner) if field == _TENSOR_NAME)
                elif part == _NODE:
                    antialiased += _antialiased(inner)
                elif part in (_INPUT, _OUTPUT):
                    (inputs if part == _INPUT else outputs).append(_info(inner))
    # Files of old versions list their weights among the inputs too.
    own = tuple(info for info in inputs if info.name not in weights)
    return OnnxInterface(own, tuple(outputs), metadata, tuple(antialiased))


def _antialiased(node: memoryview | int) -> list[str]:
    """The name of a node, or its operator's where it has none, in case it is a Resize with ``antialias``."""
    fields = list(_fields(node))
    told = dict(fields)
    if _text(told.get(_NODE_TYPE)) != "Resize":
        return []
    attributes = [dict(_fields(value)) for number, value in fields if number == _NODE_ATTRIBUTE]
    set_ = {_text(item.get(_ATTRIBUTE_NAME)) for item in attributes if item.get(_ATTRIBUTE_INT)}
    return [_text(told.get(_NODE_NAME)) or "Resize"] if "antialias" in set_ else []


def _info(data: memoryview | int) -> TensorInfo:
    told = dict(_fields(data))
    tensor = dict(_fields(dict(_fields(told.get(_TYPE))).get(_TENSOR_TYPE)))
    element = tensor.get(_ELEMENT, 0)
    shape = tuple(_size(dict(_fields(item))) for field, item in _fields(tensor.get(_SHAPE)) if field == _DIMENSION)
    return TensorInfo(_text(told.get(_NAME)), _DTYPES.get(int(element), f"type {element}"), shape)


def _size(dimension: dict[int, memoryview | int]) -> int | str:
    size = dimension.get(_SIZE)
    # An axis without a name is dynamic all the same.
    return int(size) if isinstance(size, int) else _text(dimension.get(_PARAMETER)) or "?"


def _text(value: memoryview | int | None) -> str:
    return bytes(value).decode("utf-8", "replace") if isinstance(value, memoryview) else ""


def _fields(data: memoryview | int | None) -> Iterator[tuple[int, memoryview | int]]:
    """Fields of a message: numbers, and parts of the memory; other kinds are passed over."""
    if not isinstance(data, memoryview):
        return
    position = 0
    while position < len(data):
        tag, position = read_varint(data, position)
        kind = tag & 7
        if kind == 2:
            length, position = read_varint(data, position)
            yield tag >> 3, data[position : position + length]
            position += length
        elif kind == 0:
            value, position = read_varint(data, position)
            yield tag >> 3, value
        else:
            position += 8 if kind == 1 else 4
