"""An ONNX file of anybody's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes.common import ShapeInferencePass

from s2mlp_deploy.artifact import SourceInfo
from s2mlp_deploy.errors import SourceError
from s2mlp_deploy.files import sha256_of
from s2mlp_deploy.graph.axes import axis_name
from s2mlp_deploy.graph.loading import lacks_types, load_graph
from s2mlp_deploy.preprocess import Sidecar
from s2mlp_deploy.sources.onnx_model import EXAMPLE_BATCH, OnnxModel
from s2mlp_deploy.sources.source import Source
from s2mlp_deploy.text import join_names, whole_number

OLDEST_OPSET = 11
"""Before it Pad, Clip, Slice and others had attributes where there are inputs now, and converters fail on many."""
MOST_NODES = 50_000
"""A larger graph takes minutes to look through; the largest networks have a few thousand nodes."""
_NUMBERS = frozenset(
    {
        ir.DataType.BOOL,
        ir.DataType.DOUBLE,
        ir.DataType.FLOAT,
        ir.DataType.FLOAT16,
        ir.DataType.INT16,
        ir.DataType.INT32,
        ir.DataType.INT64,
        ir.DataType.INT8,
        ir.DataType.UINT8,
    }
)
"""What NumPy and the engines know."""
_EXAMPLE_SIDE, _EXAMPLE_LENGTH = 224, 16


def load_onnx(path: Path, *, checkpoint: Path | None, overrides: Mapping[str, Any], sidecar: Sidecar | None) -> Source:
    """Reads an ONNX file of anybody's as a source.

    Args:
        path: The file; weights in other files lie beside it.
        checkpoint: None: the file has its weights.
        overrides: Free sizes of its inputs by name, which become fixed.
        sidecar: A description of its preprocessing.

    Raises:
        SourceError: Weights were given, the file is too old or too large, it takes or gives what is no tensor of
            numbers, or has no such free size.
        ArtifactError: It is no valid ONNX file, or not safe to load.
    """
    if checkpoint is not None:
        raise SourceError("an ONNX file has its weights inside", where=str(path), fix="leave --checkpoint away")
    described = sidecar.preprocessing if sidecar is not None else None
    model = open_onnx(path, overrides=overrides, image=described.size if described is not None else None)
    feeds = model.feeds({})
    return Source(
        name=path.stem,
        module=model,
        example_inputs=tuple(torch.from_numpy(array) for array in feeds.values()),
        info=SourceInfo(path.name, checkpoint=path.name, checkpoint_sha256=model.sha256),
        input_names=tuple(feeds),
        output_names=tuple(str(value.name) for value in model.model.graph.outputs),
        preprocessing=described,
        classes=sidecar.classes if sidecar is not None else None,
    )


def open_onnx(path: Path, *, overrides: Mapping[str, Any], image: tuple[int, int] | None = None) -> OnnxModel:
    """Reads an ONNX file as a graph.

    Args:
        path: The file; weights in other files lie beside it.
        overrides: Free sizes of its inputs by name, which become fixed.
        image: Height and width of the images that it takes, where they are known.

    Raises:
        SourceError: It is too old or too large, takes or gives what is no tensor of numbers, or has no such free size.
        ArtifactError: It is no valid ONNX file, or not safe to load.
    """
    if not path.is_file():
        raise SourceError("no such file", where=str(path), fix="check the path")
    sha256 = sha256_of(path)
    model = load_graph(path, infer=False).model
    sizes = {name: _size_of(name, value, path) for name, value in overrides.items()}
    written = model.opset_imports[""]
    if written < OLDEST_OPSET:
        raise SourceError(
            f"the file is written for opset {written}, and sources are read from opset {OLDEST_OPSET} on",
            where=str(path),
            fix=f"export it again for opset {OLDEST_OPSET} or later, or convert it with onnx.version_converter",
        )
    nodes = sum(1 for _ in model.graph.all_nodes())
    if nodes > MOST_NODES:
        raise SourceError(
            f"the graph has {nodes:,} nodes, and at most {MOST_NODES:,} are looked through",
            where=str(path),
            fix="export the network without unrolled loops, or simplify the file first",
        )
    if lacks_types(model):
        ShapeInferencePass()(model)
    _check_interface(model.graph, path)
    _name_sizes(model.graph)
    _fix_sizes(model.graph, sizes, path)
    return OnnxModel(path, sha256, model, _examples(model.graph, image), _notes(model.graph))


def _check_interface(graph: ir.Graph, path: Path) -> None:
    for what, values in (("input", graph.inputs), ("output", graph.outputs)):
        for value in values:
            plain = isinstance(value.type, ir.TensorType) and value.dtype in _NUMBERS
            if plain and (value.shape is not None or what == "output"):
                continue
            kind = "text" if value.dtype == ir.DataType.STRING else "no tensor whose type and rank are known"
            raise SourceError(
                f"the {what} {value.name} is {kind}, and engines here take and give tensors of numbers",
                where=str(path),
                fix=f"cut the file before it with onnx.utils.extract_model, or export without that {what}",
            )


def _name_sizes(graph: ir.Graph) -> None:
    """Gives every free size of an input a plain name; a first axis without one is the batch."""
    for value in graph.inputs:
        assert value.shape is not None
        sizes: list[int | str] = []
        for axis, size in enumerate(value.shape):
            if isinstance(size, int) and size > 0:
                sizes.append(size)
            elif not isinstance(size, int) and size.value is not None and size.value.isidentifier():
                sizes.append(size.value)
            else:
                # Also formulas, and the 0 and -1 that some tools write for a free size.
                sizes.append("batch" if axis == 0 else f"{value.name}_{axis_name(axis, len(value.shape))}")
        value.shape = ir.Shape(sizes)


def _free(graph: ir.Graph) -> dict[str, tuple[ir.Value, int]]:
    """The free sizes of a graph's inputs, each with the first axis that has it."""
    found: dict[str, tuple[ir.Value, int]] = {}
    for value in graph.inputs:
        for axis, size in enumerate(value.shape or ()):
            if not isinstance(size, int):
                found.setdefault(str(size.value), (value, axis))
    return found


def _size_of(name: str, value: Any, path: Path) -> int:
    """A size as Python has it, or as it is typed.

    Raises:
        SourceError: It is none.
    """
    if isinstance(value, str):
        value = whole_number(value) or value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SourceError(
            f"{name} is a size, and {value!r} is none", where=str(path), fix=f"--set {name}=1, for example"
        )
    return value


def _fix_sizes(graph: ir.Graph, overrides: Mapping[str, int], path: Path) -> None:
    free = _free(graph)
    for name, size in overrides.items():
        if name not in free:
            raise SourceError(
                f"the file has no free size called {name!r}",
                where=f"{path}: --set {name}={size}",
                fix=f"its free sizes are {join_names(free)}" if free else "all of its sizes are fixed: leave --set out",
            )
    if not overrides:
        return
    for value in graph.inputs:
        sizes = [size if isinstance(size, int) else str(size.value) for size in value.shape or ()]
        value.shape = ir.Shape([overrides.get(size, size) if isinstance(size, str) else size for size in sizes])
    # What was inferred with free sizes would contradict the fixed ones.
    for node in graph.all_nodes():
        for output in node.outputs:
            if any(not isinstance(size, int) for size in output.shape or ()):
                output.shape = ir.Shape([size if isinstance(size, int) else None for size in output.shape or ()])


def _examples(graph: ir.Graph, image: tuple[int, int] | None) -> dict[str, int]:
    made = {}
    for name, (value, axis) in _free(graph).items():
        rank = len(value.shape or ())
        if axis == 0:
            made[name] = EXAMPLE_BATCH
        elif rank == 4 and axis >= 2:
            made[name] = image[axis - 2] if image is not None else _EXAMPLE_SIDE
        else:
            made[name] = _EXAMPLE_LENGTH
    return made


def _notes(graph: ir.Graph) -> tuple[str, ...]:
    inner = [
        f"{node.name or node.op_type} ({node.op_type})"
        for node in graph
        if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values())
    ]
    domains = sorted({node.domain for node in graph.all_nodes()} - {"", "ai.onnx"})
    notes = []
    if inner:
        notes.append(f"the graphs within {join_names(inner, limit=3)} are left as they are")
    if domains:
        notes.append(f"operators of {join_names(domains)} are left as they are")
    return tuple(notes)
