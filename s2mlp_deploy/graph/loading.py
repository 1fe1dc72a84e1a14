"""Reading ONNX files: the one place where a file becomes a graph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from s2mlp_deploy.artifact import check_onnx
from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.graph.checking import problem_of_file
from s2mlp_deploy.text import first_line_of


@dataclass(frozen=True)
class LoadedGraph:
    """A graph and where its weights lie.

    Attributes:
        model: The graph; weights in other files stay there until they are read.
        beside: The names of those files, in the folder of the graph or below it.
    """

    model: ir.Model
    beside: tuple[str, ...]


def load_graph(path: Path, *, valid: bool = True) -> LoadedGraph:
    """Reads an ONNX file that :func:`~s2mlp_deploy.artifact.check_onnx` accepts, and infers its types.

    Types are those that the exporter did not write down; where inference fails they stay unknown.

    Args:
        path: The file.
        valid: Whether ONNX's checker must accept it; not where the file is only looked at.

    Raises:
        ArtifactError: It is no ONNX file, is not safe to load, or is not valid.
    """
    beside = check_onnx(path)
    if valid and (problem := problem_of_file(path)):
        raise ArtifactError(
            f"the graph is not valid ONNX: {problem}",
            where=str(path),
            fix="write the file again with the tool that made it",
        )
    try:
        # By its content: the suffixes .json and .txt have other readers.
        model = ir.load(path, format="protobuf")
        known = "" in model.opset_imports and bool(model.graph.outputs)
    except Exception as error:  # protobuf and onnx_ir raise types of their own.
        raise ArtifactError(
            f"not an ONNX file: {first_line_of(error)}", where=str(path), fix="name an ONNX file"
        ) from error
    if not known:
        # Bytes that are no protobuf of a graph can be read as a message without outputs.
        raise ArtifactError("there is no ONNX graph in the file", where=str(path), fix="name an ONNX file")
    if any(value.dtype is None or value.shape is None for node in model.graph for value in node.outputs if value.name):
        ShapeInferencePass()(model)
    return LoadedGraph(model, beside)
