"""What the manifest says of an exported model."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from s2mlp_deploy import __version__
from s2mlp_deploy.artifact import Manifest, ShiftRecord, SourceInfo
from s2mlp_deploy.export.adopt import GraphAnalysis
from s2mlp_deploy.export.analysis import Analysis
from s2mlp_deploy.export.write import tensor_infos, tool_versions
from s2mlp_deploy.preprocess import Preprocessing


def manifest_of(
    model: ir.Model,
    analysis: Analysis | GraphAnalysis,
    shifts: tuple[ShiftRecord, ...],
    *,
    name: str,
    source: SourceInfo,
    preprocessing: Preprocessing | None,
    classes: tuple[str, ...] | None,
    preprocessing_in_graph: bool,
) -> Manifest:
    """The manifest of an artifact whose files are not written yet.

    Args:
        model: The float32 graph.
        analysis: What is known of the module or file it comes from.
        shifts: Its shifts with their forms.
        name: What the artifact is served as.
        source: Where network and weights come from.
        preprocessing: How an image becomes the input.
        classes: Names of the outputs' classes.
        preprocessing_in_graph: Whether the graph does the preprocessing itself.

    Raises:
        ExportError: An input or output has no name, type or shape.
    """
    inputs, limits = tensor_infos(model.graph.inputs), analysis.limits
    if preprocessing_in_graph:
        # Of the image that such a graph takes only the batch is the network's.
        limits = tuple(replace(limit, input=inputs[0].name) for limit in limits if limit.axis == 0)
    return Manifest(
        name=name,
        source=source,
        preprocessing=preprocessing.to_dict() if preprocessing else None,
        classes=classes,
        inputs=inputs,
        outputs=tensor_infos(model.graph.outputs),
        opset=model.opset_imports[""],
        shifts=shifts,
        tools=tool_versions(__version__),
        hazards=analysis.hazards,
        notes=analysis.notes,
        preprocessing_in_graph=preprocessing_in_graph,
        limits=limits,
    )
