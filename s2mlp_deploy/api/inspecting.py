"""Looking into a source or an ONNX file."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from s2mlp_deploy.api.exporting import analyze
from s2mlp_deploy.api.sources import load, require_export
from s2mlp_deploy.artifact import METADATA_KEY, Hazard, ShiftRecord, TensorInfo, current_fields, data_file
from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.text import first_line_of

if TYPE_CHECKING:
    from s2mlp_deploy.export.rewrite import NearMissRecord


@dataclass(frozen=True)
class SourceInspection:
    """What a source holds.

    Attributes:
        source: What was named.
        inputs: Names and shapes of the inputs; dynamic sizes as text.
        outputs: Names of the outputs.
        parameters: Learned numbers.
        shifts: In order, in the form that ``export`` would write.
        near_misses: In order.
        hazards: Lines that mean different things to different runtimes.
        notes: What was tried and did not work.
    """

    source: str
    inputs: dict[str, tuple[int | str, ...]]
    outputs: tuple[str, ...]
    parameters: int
    shifts: tuple[ShiftRecord, ...]
    near_misses: tuple[NearMissRecord, ...]
    hazards: tuple[Hazard, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class FileInspection:
    """What an ONNX file holds.

    Attributes:
        file: Its name.
        bytes: Its size, external data included.
        opset: Of the standard domain.
        producer: Who wrote it.
        inputs: Of the graph.
        outputs: Of the graph.
        nodes: How many there are.
        operators: How often each operator stands in the graph, the commonest first.
        weights: Bytes of weights by element type.
        metadata: The timeless manifest of an artifact's file; empty for others.
    """

    file: str
    bytes: int
    opset: int
    producer: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    nodes: int
    operators: dict[str, int]
    weights: dict[str, int]
    metadata: dict[str, Any]


def inspect_source(
    source: str,
    *,
    checkpoint: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    preprocess: str | Path | None = None,
    dynamic: Sequence[str] = ("batch",),
) -> SourceInspection:
    """Finds every shift, near miss and hazard of a source; writes nothing.

    Args:
        source: See :func:`~s2mlp_deploy.api.load`, and there for the other arguments.
        checkpoint: See there.
        overrides: See there.
        preprocess: See there.
        dynamic: See :func:`~s2mlp_deploy.api.analyze`.

    Raises:
        S2MLPDeployError: What loading and capturing raise.
    """
    loaded = load(source, checkpoint=checkpoint, overrides=overrides, preprocess=preprocess)
    known = analyze(loaded, dynamic=dynamic)
    from s2mlp_deploy.capture.program import input_shapes
    from s2mlp_deploy.export.forms import choose_form

    form = choose_form().name
    program = known.captured.program
    return SourceInspection(
        source=loaded.info.reference,
        inputs=dict(zip(known.captured.input_names, input_shapes(program), strict=True)),
        outputs=known.captured.output_names,
        parameters=sum(value.numel() for value in program.parameters()),
        shifts=tuple(replace(shift, form=form) for shift in known.shifts),
        near_misses=known.near_misses,
        hazards=known.hazards,
        notes=known.captured.notes,
    )


def inspect_file(path: str | Path) -> FileInspection:
    """Reads an ONNX file's interface, operators and weights; runs nothing.

    Raises:
        ArtifactError: It is no ONNX file.
        MissingDependencyError: The extra ``export`` is not installed.
    """
    require_export()
    import onnx
    import onnx_ir as ir

    from s2mlp_deploy.export.write import tensor_infos

    file = Path(path)
    if not file.is_file():
        raise ArtifactError("no such ONNX file", where=str(file), fix="check the path")
    try:
        # Sizes are in the graph itself; the weights of external data stay on disk.
        model = ir.from_proto(onnx.load(file, load_external_data=False))
        if "" not in model.opset_imports or not model.graph.outputs:
            raise ValueError("it has no graph")
    except Exception as error:
        raise ArtifactError(
            f"not an ONNX file: {first_line_of(error)}",
            where=str(file),
            fix="name a file that ends in .onnx",
        ) from error
    weights: collections.Counter[str] = collections.Counter()
    for value in model.graph.initializers.values():
        if value.const_value is not None:
            weights[value.const_value.dtype.name.lower()] += value.const_value.nbytes
    operators = collections.Counter(
        f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in model.graph.all_nodes()
    )
    data = file.with_name(data_file(file.name))
    text = model.metadata_props.get(METADATA_KEY)
    return FileInspection(
        file=file.name,
        bytes=file.stat().st_size + (data.stat().st_size if data.is_file() else 0),
        opset=model.opset_imports[""],
        producer=f"{model.producer_name or 'unknown'} {model.producer_version or ''}".strip(),
        inputs=tensor_infos(model.graph.inputs),
        outputs=tensor_infos(model.graph.outputs),
        nodes=sum(operators.values()),
        operators=dict(operators.most_common()),
        weights=dict(weights.most_common()),
        metadata=current_fields(msgspec.json.decode(text)) if text else {},
    )
