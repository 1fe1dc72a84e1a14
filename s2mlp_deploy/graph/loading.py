"""Reading ONNX files: the one place where a file becomes a graph."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from s2mlp_deploy.artifact import check_onnx
from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.graph.checking import in_order, problem_of_file
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


def load_graph(path: Path, *, valid: bool = True, infer: bool = True) -> LoadedGraph:
    """Reads an ONNX file that :func:`~s2mlp_deploy.artifact.check_onnx` accepts, and infers its types.

    Types are those that the exporter did not write down; where inference fails they stay unknown. Inputs with a
    default, as old files list their weights, are constants.

    Args:
        path: The file.
        valid: Whether ONNX's checker must accept it; not where the file is only looked at.
        infer: Whether types are inferred, which takes 20 s for a hundred thousand nodes without any.

    Raises:
        ArtifactError: It is no ONNX file, is not safe to load, or is not valid.
    """
    beside = check_onnx(path)
    try:
        # By its content: the suffixes .json and .txt have other readers.
        model = ir.load(path, format="protobuf")
        known = "" in model.opset_imports and bool(model.graph.outputs)
    except Exception as error:  # protobuf and onnx_ir raise types of their own.
        raise ArtifactError(
            f"not an ONNX file: {problem_of_file(path) or first_line_of(error)}",
            where=str(path),
            fix="name an ONNX file",
        ) from error
    if any(isinstance(text, bytes) for text in _texts(model)):
        raise ArtifactError(
            "not an ONNX file: a name in it is not UTF-8", where=str(path), fix="write it again with UTF-8 names"
        )
    if any(value.const_value is not None and not value.const_value.dtype for value in _weights(model)):
        raise ArtifactError(
            "not an ONNX file: a weight in it has no type",
            where=str(path),
            fix="write it again with the tool that made it",
        )
    if not known:
        # Bytes that are no protobuf of a graph can be read as a message without outputs.
        raise ArtifactError("there is no ONNX graph in the file", where=str(path), fix="name an ONNX file")
    if valid:
        _check(model, path)
    in_order(model)
    # Weights that callers may replace, as old tools write them: a graph that quantizes them could not take others.
    given = [value for value in model.graph.inputs if not value.is_initializer()]
    if len(given) < len(model.graph.inputs):
        model.graph.inputs[:] = given
    if infer and lacks_types(model):
        ShapeInferencePass()(model)
    return LoadedGraph(model, beside)


def _texts(model: ir.Model) -> Iterator[object]:
    """What is text in a graph. What is not UTF-8 is handed on by protobuf as bytes, which nobody expects."""
    yield from (model.producer_name, model.producer_version, model.graph.name, *model.opset_imports)
    yield from itertools.chain.from_iterable(model.metadata_props.items())
    yield from (value.name for value in (*model.graph.inputs, *model.graph.outputs))
    functions = (function.all_nodes() for function in model.functions.values())
    for node in itertools.chain(model.graph.all_nodes(), *functions):
        yield from (node.name, node.op_type, node.domain, node.overload, *node.attributes)
        yield from (value.name for value in (*node.inputs, *node.outputs) if value is not None)


def _weights(model: ir.Model) -> Iterator[ir.Value]:
    """Of the graph and those within it."""
    return itertools.chain.from_iterable(graph.initializers.values() for graph in model.graphs())


def lacks_types(model: ir.Model) -> bool:
    """Whether the graph does not tell the type or shape of every value."""
    outputs = (value for node in model.graph for value in node.outputs if value.name)
    return any(value.dtype is None or value.shape is None for value in outputs)


def _check(model: ir.Model, path: Path) -> None:
    """Refuses a graph that the installed onnx does not know, or that its checker does not accept."""
    written, newest = model.opset_imports[""], onnx.defs.onnx_opset_version()
    if written > newest or model.ir_version > onnx.IR_VERSION:
        raise ArtifactError(
            f"the file is written for opset {written} and IR version {model.ir_version}; the installed onnx "
            f"{onnx.__version__} knows opset {newest} and IR version {onnx.IR_VERSION}",
            where=str(path),
            fix="export with a lower --opset, or install a newer onnx",
        )
    if problem := problem_of_file(path):
        raise ArtifactError(
            f"the graph is not valid ONNX: {problem}",
            where=str(path),
            fix="write the file again with the tool that made it",
        )
