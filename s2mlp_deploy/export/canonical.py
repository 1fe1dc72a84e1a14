"""An exported program becomes the canonical ONNX graph: standard operators, and one ``s2mlp::Shift`` per shift.

The canonical graph is captured once and lowered as often as there are forms and precisions. ``Shift`` is a schema in
a domain of its own; it never reaches a file (see :mod:`s2mlp_deploy.export.lower`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import onnx_ir as ir
import torch
from torch.export import ExportedProgram
from torch.fx import Node

from s2mlp_deploy.capture.checks import all_nodes
from s2mlp_deploy.capture.frames import line_of_stack
from s2mlp_deploy.capture.program import Captured
from s2mlp_deploy.errors import ExportError
from s2mlp_deploy.export.decompositions import decomposed
from s2mlp_deploy.export.faster import make_faster
from s2mlp_deploy.export.passes.merge_shifts import MergeEqualShifts
from s2mlp_deploy.export.passes.name_after_modules import NameAfterModules
from s2mlp_deploy.export.passes.name_dynamic_axes import NameDynamicAxes
from s2mlp_deploy.export.passes.note_example_sizes import NoteExampleSizes
from s2mlp_deploy.export.passes.simplify import Simplify
from s2mlp_deploy.export.passes.strip import StripProvenance
from s2mlp_deploy.export.shift_node import shift_opset, translate_shift
from s2mlp_deploy.graph.editing import drop_unused_initializers
from s2mlp_deploy.graph.opsets import DEFAULT_OPSET, DEFORM_CONV_OPSET, MAX_OPSET, check_opset
from s2mlp_deploy.recognition.fx import free_symbols, is_deformable
from s2mlp_deploy.text import first_line_of, join_names
from s2mlp_deploy.torch_internals import (
    has_no_translation,
    kept_registry,
    one_lookup,
    root_cause,
    tracing,
    untranslated_nodes,
)


def _translations(program: ExportedProgram, opset: int) -> dict[Any, Any]:
    """What torch's exporter cannot translate by itself.

    It knows torchvision's operators only where torchvision is installed; a program may hold them without. TensorRT-RTX
    1.7 has no DeformConv: such a file runs in ONNX Runtime only.

    Raises:
        ExportError: The opset is too old for an operator.
    """
    table: dict[Any, Any] = {torch.ops.s2mlp.shift.default: translate_shift}
    deformable = [node for node in all_nodes(program) if is_deformable(node)]
    if not deformable:
        return table
    if opset < DEFORM_CONV_OPSET:
        raise ExportError(
            f"deform_conv2d needs opset {DEFORM_CONV_OPSET} or later, and {opset} was asked for",
            where=_line_of(deformable),
            fix=f"--opset {DEFORM_CONV_OPSET} or more, up to {MAX_OPSET}",
        )
    # Not in every onnxscript that works: only who has a deformable convolution needs one that is new enough.
    from onnxscript.function_libs.torch_lib.ops.vision import torchvision_deform_conv2d

    return table | {node.target: torchvision_deform_conv2d for node in deformable}


def _line_of(nodes: Iterable[Node]) -> str | None:
    """The first line of the user's that made one of them."""
    lines = (line_of_stack(node.meta.get("stack_trace")) for node in nodes)
    return next((str(line) for line in lines if line), None)


def to_canonical(captured: Captured, *, opset: int = DEFAULT_OPSET, faster: bool = True) -> ir.Model:
    """Translates a captured program with torch's exporter and cleans what it leaves.

    Every node and value is named after the module it comes from (``stages.0.blocks.1.mlp.fc1/MatMul``), dynamic axes
    have the names they were captured with, and nothing speaks of the machine that exported.

    Args:
        captured: The program.
        opset: Of the graph.
        faster: Whether the passes that make it faster run (:mod:`s2mlp_deploy.export.faster`).

    Raises:
        ExportError: The exporter has no translation, fails, or wrote another opset than it was asked for.
    """
    check_opset(opset)
    shift_opset()
    program = decomposed(captured.program)
    translations = _translations(program, opset)
    try:
        with torch.no_grad(), tracing(), kept_registry(), one_lookup():
            exported = torch.onnx.export(
                program,
                dynamo=True,
                custom_translation_table=translations,
                opset_version=opset,
                input_names=list(captured.input_names),
                output_names=list(captured.output_names),
                optimize=False,  # By rules that drop small constants; see Simplify.
                verbose=False,
            )
    except Exception as error:
        raise _failure(error, program) from error
    assert exported is not None
    model: ir.Model = exported.model
    written = model.opset_imports.get("")
    if written != opset:
        raise ExportError(f"asked for opset {opset}, the exporter wrote {written}", fix="choose another opset")
    sizes = {str(symbol): size for symbol, size in free_symbols(captured.program).items()}
    clean = ir.passes.Sequential(
        Simplify(),
        MergeEqualShifts(),
        NoteExampleSizes(sizes),
        NameAfterModules(),
        NameDynamicAxes(),
        StripProvenance(),
    )
    cleaned = clean(model).model
    drop_unused_initializers(cleaned.graph)
    if faster:
        make_faster(cleaned)
    # The exporter gives an input that is returned as it is the name of the output.
    for value, name in zip(cleaned.graph.inputs, captured.input_names, strict=True):
        value.name = name
    return cleaned


def _failure(error: Exception, program: ExportedProgram) -> ExportError:
    """What the exporter could not do, in words of its own for each cause."""
    named = untranslated_nodes(error)
    nodes = [node for node in all_nodes(program) if node.name in named]
    cause, where = first_line_of(root_cause(error)), _line_of(nodes)
    operators = join_names(dict.fromkeys(str(node.target) for node in nodes)) or "an operation"
    if has_no_translation(error):
        return ExportError(
            f"{operators} has no translation to ONNX: {cause}",
            where=where,
            fix="replace that operation in the model, or report it with the model's code",
        )
    if named:
        return ExportError(
            f"torch's ONNX exporter fails on {operators}, which it knows: {cause}",
            where=where,
            fix="write that operation differently (other arguments, sizes or dtypes), or try another --opset",
        )
    return ExportError(
        f"torch's ONNX exporter fails on the whole program: {type(root_cause(error)).__name__}: {cause}",
        fix="report it with the model's code and the versions that `s2mlp-deploy doctor` prints",
    )
