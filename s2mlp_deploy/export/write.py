"""Writing an artifact: ONNX files that explain themselves, and the manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import onnx
import onnx_ir as ir

from s2mlp_deploy.artifact import METADATA_KEY, ArtifactWriter, Manifest, TensorInfo, data_file
from s2mlp_deploy.errors import ExportError
from s2mlp_deploy.graph.checking import problem_of, weight_proto

MAX_SINGLE_FILE = 2_000_000_000
"""protobuf refuses messages from 2 GiB on; above this the weights go to ``<file>.data`` beside the graph."""

_TOOLS = ("torch", "onnx", "onnxscript", "onnx-ir")


def tool_versions(own: str) -> dict[str, str]:
    """The versions that shape the written bytes."""
    return {"s2mlp-deploy": own, **{tool: metadata.version(tool) for tool in _TOOLS}}


def tensor_infos(values: Sequence[ir.Value]) -> tuple[TensorInfo, ...]:
    """The names, dtypes and shapes of a graph's inputs or outputs.

    Raises:
        ExportError: One has no name, dtype or shape.
    """
    infos = []
    for value in values:
        # A type may be 0 too: undefined.
        if not value.dtype or value.shape is None or value.name is None:
            raise ExportError(
                f"the graph does not say what {value.name or 'an unnamed tensor'} is",
                fix="write the file with the types and shapes of its inputs and outputs",
            )
        shape = tuple(size if isinstance(size, int) else str(size.value) for size in value.shape)
        infos.append(TensorInfo(value.name, value.dtype.numpy().name, shape))
    return tuple(infos)


@dataclass(frozen=True)
class GraphFile:
    """A graph to be written.

    Attributes:
        name: File name.
        precision: Of the graph.
        model: The graph.
    """

    name: str
    precision: str
    model: ir.Model


def stage(writer: ArtifactWriter, manifest: Manifest, files: Sequence[GraphFile]) -> dict[str, tuple[str, int]]:
    """Writes graphs into a writer's staging, each with its own metadata.

    Returns:
        What the writer wants to know: for each file name its precision and number of nodes.

    Raises:
        ExportError: A graph does not pass ONNX's own checker.
    """
    facts: dict[str, tuple[str, int]] = {}
    for file in files:
        file.model.metadata_props.clear()
        # A file may have other types than the artifact's first: float16 inputs, for example.
        own = replace(
            manifest, inputs=tensor_infos(file.model.graph.inputs), outputs=tensor_infos(file.model.graph.outputs)
        )
        file.model.metadata_props.update(file_metadata(own, file.precision))
        save_model(file.model, writer.staging / file.name)
        facts[file.name] = (file.precision, len(file.model.graph))
        data = data_file(file.name)
        if (writer.staging / data).exists():
            facts[data] = (file.precision, 0)
    return facts


def file_metadata(manifest: Manifest, precision: str, **own: str) -> Mapping[str, str]:
    """What a lone file says of itself: the timeless part of the manifest, and what is its own."""
    return {METADATA_KEY: manifest.timeless(precision, **own)}


def save_model(model: ir.Model, path: Path) -> None:
    """Writes one file, or the graph and ``<file>.data`` where the weights pass protobuf's limit.

    The graph is checked by ONNX's own checker before anything is written.

    Raises:
        ExportError: ONNX's checker refuses the graph.
    """
    if problem := problem_of(model):
        raise ExportError(
            f"the graph is not valid ONNX: {problem}",
            where=path.name,
            fix="--exclude the layer that is named, or export the model again with a newer --opset",
        )
    shell = model.clone()
    weights = dict(shell.graph.initializers)
    shell.graph.initializers.clear()
    proto = ir.to_proto(shell)
    if sum(_size(value) for value in weights.values()) > MAX_SINGLE_FILE:
        ir.save(model, path, external_data=data_file(path.name))
    else:
        _write_in_pieces(proto, weights.values(), path)


def _size(value: ir.Value) -> int:
    return value.const_value.nbytes if value.const_value is not None else 0


def _write_in_pieces(proto: onnx.ModelProto, weights: Iterable[ir.Value], path: Path) -> None:
    """Writes a model one weight at a time: the whole in memory, as protobuf would have it, is two more copies of it.

    A protobuf message is its fields one after the other in any order, a nested one with its length before it, so the
    graph is written as what it is without weights, and then a field for each weight.
    """
    graph = proto.graph.SerializeToString(deterministic=True)
    values = [value for value in weights if value.const_value is not None]
    lengths = [weight_proto(value).ByteSize() for value in values]
    total = len(graph) + sum(len(_field(_INITIALIZER, length)) + length for length in lengths)
    proto.ClearField("graph")
    with path.open("wb") as stream:
        stream.write(proto.SerializeToString(deterministic=True))
        stream.write(_field(_GRAPH, total))
        stream.write(graph)
        for value, length in zip(values, lengths, strict=True):
            stream.write(_field(_INITIALIZER, length))
            stream.write(weight_proto(value).SerializeToString(deterministic=True))


_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number


def _field(number: int, length: int) -> bytes:
    """The head of a length-delimited protobuf field."""
    return _varint(number << 3 | 2) + _varint(length)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; all but the last with the high bit set."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
