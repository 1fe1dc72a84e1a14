"""Writing an artifact: ONNX files that explain themselves, and the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import onnx
import onnx_ir as ir

from s2mlp_deploy.artifact import METADATA_KEY, ArtifactWriter, Manifest, TensorInfo
from s2mlp_deploy.errors import ExportError

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
        if value.dtype is None or value.shape is None or value.name is None:
            raise ExportError(f"the graph does not say what {value.name or 'an unnamed tensor'} is")
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


def write_artifact(directory: Path, manifest: Manifest, files: Sequence[GraphFile], *, force: bool) -> Manifest:
    """Writes the files and then the manifest that makes them an artifact.

    Raises:
        OutputError: The directory cannot be written or holds an artifact already.
        ExportError: A graph does not pass ONNX's own checker.
    """
    with ArtifactWriter(directory, force=force) as writer:
        facts: dict[str, tuple[str, int]] = {}
        for file in files:
            file.model.metadata_props.clear()
            file.model.metadata_props.update(file_metadata(manifest, file.precision))
            save_model(file.model, writer.staging / file.name)
            facts[file.name] = (file.precision, len(file.model.graph))
        return writer.commit(manifest, facts)


def file_metadata(manifest: Manifest, precision: str) -> Mapping[str, str]:
    """What a lone file says of itself: the timeless part of the manifest."""
    return {METADATA_KEY: manifest.timeless(precision)}


def save_model(model: ir.Model, path: Path) -> None:
    """Writes one file, or the graph and ``<file>.data`` where the weights pass protobuf's limit, and checks it.

    Raises:
        ExportError: ONNX's checker refuses the graph.
    """
    weights = sum(
        value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None
    )
    if weights > MAX_SINGLE_FILE:
        ir.save(model, path, external_data=f"{path.name}.data")
    else:
        path.write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))
    try:
        # By path, so that external data is found; full_check infers every shape and type again.
        onnx.checker.check_model(path, full_check=True)
    except Exception as error:
        raise ExportError(f"the written graph is not valid ONNX: {error}", where=path.name) from error
