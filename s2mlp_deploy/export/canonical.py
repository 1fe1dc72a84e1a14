"""An exported program becomes the canonical ONNX graph: standard operators, and one ``s2mlp::Shift`` per shift.

The canonical graph is captured once and lowered as often as there are forms and precisions. ``Shift`` is a schema in
a domain of its own; it never reaches a file (see :mod:`s2mlp_deploy.export.lower`).
"""

from __future__ import annotations

import re
from typing import Any

import onnx_ir as ir
import torch
from onnxscript.function_libs.torch_lib.ops.vision import torchvision_deform_conv2d
from torch.export import ExportedProgram

from s2mlp_deploy.capture.frames import line_of_stack
from s2mlp_deploy.capture.program import Captured
from s2mlp_deploy.capture.torch_internals import quiet_exporter
from s2mlp_deploy.errors import ExportError
from s2mlp_deploy.export.passes.merge_shifts import MergeEqualShifts
from s2mlp_deploy.export.passes.name_after_modules import NameAfterModules
from s2mlp_deploy.export.passes.name_dynamic_axes import NameDynamicAxes
from s2mlp_deploy.export.passes.strip import StripProvenance
from s2mlp_deploy.export.shift_node import shift_opset, translate_shift
from s2mlp_deploy.recognition.sampling import is_deformable
from s2mlp_deploy.text import first_line_of

MIN_OPSET, MAX_OPSET, DEFAULT_OPSET = 18, 25, 20
"""torch 2.13 writes 18 when asked for less, and an invalid graph when asked for 26."""
DEFORM_CONV_OPSET = 19
"""ONNX has DeformConv from there on."""


def check_opset(opset: int) -> None:
    """Refuses an opset that would not be written.

    Raises:
        ExportError: Outside the range that the exporter writes truthfully.
    """
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise ExportError(
            f"opset {opset} cannot be written",
            fix=f"choose {MIN_OPSET} to {MAX_OPSET}; the default is {DEFAULT_OPSET}",
        )


def _translations(program: ExportedProgram, opset: int) -> dict[Any, Any]:
    """What torch's exporter cannot translate by itself.

    It knows torchvision's operators only where torchvision is installed; a program may hold them without. TensorRT-RTX
    1.7 has no DeformConv: such a file runs in ONNX Runtime only.

    Raises:
        ExportError: The opset is too old for an operator.
    """
    table: dict[Any, Any] = {torch.ops.s2mlp.shift.default: translate_shift}
    for node in program.graph.nodes:
        if is_deformable(node):
            if opset < DEFORM_CONV_OPSET:
                line = line_of_stack(node.meta.get("stack_trace"))
                raise ExportError(
                    f"deform_conv2d needs opset {DEFORM_CONV_OPSET} or later, and {opset} was asked for",
                    where=str(line) if line else None,
                    fix=f"choose {DEFORM_CONV_OPSET} to {MAX_OPSET}, or write constant offsets as a shift",
                )
            table[node.target] = torchvision_deform_conv2d
    return table


def to_canonical(captured: Captured, *, opset: int = DEFAULT_OPSET) -> ir.Model:
    """Translates a captured program with torch's exporter and cleans what it leaves.

    Every node and value is named after the module it comes from (``stages.0.blocks.1.mlp.fc1/MatMul``), dynamic axes
    have the names they were captured with, and nothing speaks of the machine that exported.

    Raises:
        ExportError: The exporter has no translation, or wrote another opset than it was asked for.
    """
    check_opset(opset)
    shift_opset()
    translations = _translations(captured.program, opset)
    try:
        with torch.no_grad(), quiet_exporter():
            exported = torch.onnx.export(
                captured.program,
                dynamo=True,
                custom_translation_table=translations,
                opset_version=opset,
                input_names=list(captured.input_names),
                output_names=list(captured.output_names),
                optimize=True,
                verbose=False,
            )
    except Exception as error:
        causes: list[BaseException] = [error]
        while causes[-1].__cause__ is not None:
            causes.append(causes[-1].__cause__)
        named = {name for cause in causes for name in re.findall(r"translating node %(\w+)", str(cause))}
        lines = [line_of_stack(n.meta.get("stack_trace")) for n in captured.program.graph.nodes if n.name in named]
        raise ExportError(
            f"an operation has no translation to ONNX: {first_line_of(causes[-1])}",
            where=next((str(line) for line in lines if line), None),
            fix="replace that operation in the model, or report it with the model's code",
        ) from error
    assert exported is not None
    model: ir.Model = exported.model
    written = model.opset_imports.get("")
    if written != opset:
        raise ExportError(f"asked for opset {opset}, the exporter wrote {written}", fix="choose another opset")
    return ir.passes.Sequential(MergeEqualShifts(), NameAfterModules(), NameDynamicAxes(), StripProvenance())(
        model
    ).model
