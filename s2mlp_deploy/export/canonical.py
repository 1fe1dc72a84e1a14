"""An exported program becomes the canonical ONNX graph: standard operators, and one ``s2mlp::Shift`` per shift.

The canonical graph is captured once and lowered as often as there are forms and precisions. ``Shift`` is a schema in
a domain of its own; it never reaches a file (see :mod:`s2mlp_deploy.export.lower`).
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Sequence
from typing import Any

import onnx
import onnx_ir as ir
import onnxscript
import torch
from onnxscript.function_libs.torch_lib.ops.vision import torchvision_deform_conv2d
from torch.export import ExportedProgram

from s2mlp_deploy.capture.frames import line_of_stack
from s2mlp_deploy.capture.program import DYNAMIC_AXES, Captured
from s2mlp_deploy.capture.torch_internals import quiet_exporter
from s2mlp_deploy.errors import ExportError
from s2mlp_deploy.recognition.sampling import is_deformable
from s2mlp_deploy.text import first_line_of

DOMAIN = "s2mlp"
MIN_OPSET, MAX_OPSET, DEFAULT_OPSET = 18, 25, 20
"""torch 2.13 writes 18 when asked for less, and an invalid graph when asked for 26."""
DEFORM_CONV_OPSET = 19
"""ONNX has DeformConv from there on."""
ORIGIN = "s2mlp_deploy.origin"
"""Key in a Shift node's ``meta``: the name of the node of the captured program that it translates."""


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


@functools.cache
def _shift_schema() -> onnxscript.values.Opset:
    schema = onnx.defs.OpSchema
    kind = schema.AttrType
    onnx.defs.register_schema(
        schema(
            "Shift",
            DOMAIN,
            1,
            doc="A grouped shift; see s2mlp_deploy.shift.spec.ShiftSpec.",
            inputs=[schema.FormalParameter("X", "T")],
            outputs=[schema.FormalParameter("Y", "T")],
            type_constraints=[
                (
                    "T",
                    [f"tensor({t})" for t in ("float16", "bfloat16", "float", "double", "int32", "int64")],
                    "",
                )
            ],
            attributes=[
                schema.Attribute(name, attribute_type, "")
                for name, attribute_type in (
                    ("channels", kind.INTS),
                    ("offsets", kind.INTS),
                    ("axes", kind.INTS),
                    ("channel_axis", kind.INT),
                    ("border", kind.STRING),
                )
            ],
        )
    )
    return onnxscript.values.Opset(DOMAIN, 1)


def _translate_shift(
    x: Any,
    channels: Sequence[int],
    offsets: Sequence[int],
    axes: Sequence[int],
    channel_axis: int,
    border: str,
) -> Any:
    """The exporter's translation of ``torch.ops.s2mlp.shift``."""
    return _shift_schema().Shift(
        x,
        channels=list(channels),
        offsets=list(offsets),
        axes=list(axes),
        channel_axis=channel_axis,
        border=border,
    )


def _translations(program: ExportedProgram, opset: int) -> dict[Any, Any]:
    """What torch's exporter cannot translate by itself.

    It knows torchvision's operators only where torchvision is installed; a program may hold them without. TensorRT-RTX
    1.7 has no DeformConv: such a file runs in ONNX Runtime only.

    Raises:
        ExportError: The opset is too old for an operator.
    """
    table: dict[Any, Any] = {torch.ops.s2mlp.shift.default: _translate_shift}
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
    _shift_schema()
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
    _name_after_modules(model)
    _name_dynamic_axes(model)
    _strip_provenance(model)
    return model


def _name_after_modules(model: ir.Model) -> None:
    """Names nodes, their outputs and folded weights after module paths; deterministic and unique."""
    graph = model.graph
    fixed = {*graph.inputs, *graph.outputs}
    taken: dict[str, int] = {}
    taken_names = {value.name for value in (*fixed, *graph.initializers.values())}

    def unique(base: str) -> str:
        while True:
            count = taken.get(base, 0)
            taken[base] = count + 1
            name = base if count == 0 else f"{base}_{count}"
            if name not in taken_names:
                taken_names.add(name)
                return name

    scopes = {node: module_path(node) for node in graph}
    for node in graph:
        scope = scopes[node] or _neighbours_scope(node, scopes)
        node.name = unique(f"{scope}/{node.op_type}" if scope else f"/{node.op_type}")
        for index, output in enumerate(node.outputs):
            if output not in fixed:
                output.name = f"{node.name}.out{index}" if len(node.outputs) > 1 else f"{node.name}.out"
    for name, value in list(graph.initializers.items()):
        if name.startswith("val_"):
            # Folded by the exporter: a transposed weight, or the constant axes and shapes of one node.
            user = next(iter(value.uses())).node
            rank = len(value.shape) if value.shape is not None else 0
            stem = user.name or user.op_type
            scope = stem.split("/")[0]
            base = f"{scope}.weight_t" if user.op_type == "MatMul" and rank == 2 and scope else f"{stem}.constant"
            value.name = unique(base)


def module_path(node: ir.Node) -> str:
    """The path of the module whose forward made this node, for example ``stages.0.blocks.1.mlp.fc1``."""
    scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes")
    if not scopes:
        return ""
    path = ast.literal_eval(scopes)
    # The last entry is the operation itself, those before it are the modules from the root down.
    return str(path[-2]) if len(path) > 1 else ""


def _neighbours_scope(node: ir.Node, scopes: dict[ir.Node, str]) -> str:
    """For a node that the optimiser made: the innermost module that its neighbours share."""
    producers = [value.producer() for value in node.inputs if value is not None]
    consumers = [use.node for value in node.outputs for use in value.uses()]
    paths = [scopes[near].split(".") for near in (*producers, *consumers) if near is not None and scopes.get(near)]
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)


def _name_dynamic_axes(model: ir.Model) -> None:
    """Gives torch's symbols (``s77``) the names of the axes that they are the size of."""
    pattern = re.compile(r"[A-Za-z_]\w*")
    names: dict[str, str] = {}
    for value in model.graph.inputs:
        for axis, dim in enumerate(value.shape or ()):
            if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
                for symbol in pattern.findall(dim.value):
                    usual = next((name for name, position in DYNAMIC_AXES.items() if position == axis), f"axis{axis}")
                    # A second size on the same axis of another input is another name.
                    unique = usual if usual not in names.values() else f"{usual}_{len(names)}"
                    names.setdefault(symbol, unique)

    def rename(value: ir.Value) -> None:
        shape = value.shape
        if shape is None or shape.frozen:
            return
        for index, dim in enumerate(shape):
            if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
                shape[index] = ir.SymbolicDim(pattern.sub(lambda m: names.get(m[0], m[0]), dim.value))

    seen: set[int] = set()
    values = [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]
    for value in values:
        if id(value.shape) not in seen:
            seen.add(id(value.shape))
            rename(value)


def _strip_provenance(model: ir.Model) -> None:
    """Removes stack traces and everything else that tells of the exporting machine."""
    graph = model.graph
    graph.metadata_props.clear()
    graph.doc_string = None
    graph.name = "s2mlp_deploy"
    model.metadata_props.clear()
    model.doc_string = None
    model.producer_name = "s2mlp-deploy"
    for node in graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*graph.inputs, *graph.initializers.values()):
        value.metadata_props.clear()
