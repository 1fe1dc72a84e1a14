"""An ONNX file of anybody's becomes the canonical graph."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants
from onnxscript.version_converter import ConvertVersionPass

from s2mlp_deploy.artifact import Hazard, ShiftRecord, SizeLimit
from s2mlp_deploy.errors import ExportError
from s2mlp_deploy.export.forms import choose
from s2mlp_deploy.export.passes.fold_known_sizes import FoldKnownSizes
from s2mlp_deploy.export.passes.merge_shifts import MergeEqualShifts
from s2mlp_deploy.export.passes.name_after_modules import NameAfterModules, module_path
from s2mlp_deploy.export.passes.own_zero_points import OwnZeroPoints
from s2mlp_deploy.export.passes.simplify import Simplify
from s2mlp_deploy.export.passes.strip import StripProvenance
from s2mlp_deploy.export.rewrite import MovementRecord, NearMissRecord
from s2mlp_deploy.export.rewrite import told as told_of
from s2mlp_deploy.export.rewrite_graph import RewrittenGraph, rewrite_graph
from s2mlp_deploy.export.shift_node import DOMAIN, example_of, origin_of, spec_of
from s2mlp_deploy.graph.opsets import DEFAULT_OPSET, MAX_OPSET, check_opset
from s2mlp_deploy.recognition.graph import FreeSize, UnknownValueError
from s2mlp_deploy.recognition.onnx_graph import Feeds, OnnxGraph
from s2mlp_deploy.recognition.onnx_ops import Runtime
from s2mlp_deploy.text import first_line_of
from s2mlp_deploy.torch_internals import quiet_exporter

_LARGEST_BATCH = 4
"""The whole graph is run at other sizes, to measure what is in it: batches beyond the example's cost time only."""

_LIST = 64
"""No tensor has more axes."""


@dataclass(frozen=True)
class GraphAnalysis:
    """An ONNX file after recognition.

    Attributes:
        model: The canonical graph.
        shifts: In its order.
        near_misses: What moves data, is no shift and stays as it was.
        notes: What was made of the file, and what was not, for the manifest.
        hazards: What an overlapping copy left of a shift: the graph means it, and nobody who wrote it did.
        limits: None that are known: what free sizes may be, the file does not say.
        movements: What moves data, is no shift, and is written in other operators.
    """

    model: ir.Model
    shifts: tuple[ShiftRecord, ...]
    near_misses: tuple[NearMissRecord, ...]
    notes: tuple[str, ...] = ()
    hazards: tuple[Hazard, ...] = ()
    limits: tuple[SizeLimit, ...] = ()
    movements: tuple[MovementRecord, ...] = ()

    @property
    def input_names(self) -> tuple[str, ...]:
        """Of the graph."""
        return tuple(str(value.name) for value in self.model.graph.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Of the graph."""
        return tuple(str(value.name) for value in self.model.graph.outputs)

    @property
    def parameters(self) -> int:
        """Numbers in constants."""
        constants = [value.const_value for value in self.model.graph.initializers.values()]
        return sum(math.prod(tensor.shape.numpy()) for tensor in constants if tensor is not None)

    @property
    def shifts_integers(self) -> bool:
        """Whether any shift moves integers, as in a file with Q and DQ."""
        moved = (node.inputs[0] for node in _shift_nodes(self.model))
        return any(value is not None and value.dtype is not None and value.dtype.is_integer() for value in moved)

    def with_forms(self) -> tuple[ShiftRecord, ...]:
        """The shifts with the form that ``auto`` writes each in."""
        opset, records = self.model.opset_imports[""], []
        for node in _shift_nodes(self.model):
            source = node.inputs[0]
            dtype = source.dtype if source is not None and source.dtype else ir.DataType.FLOAT
            spec, origin = spec_of(node), origin_of(node)
            form = choose(spec, example_of(node), dtype, origin.idiom, opset)
            records.append(ShiftRecord(spec, origin, form.name))
        return tuple(records)


def adopt(
    model: ir.Model,
    *,
    opset: int | None,
    sizes: Mapping[str, int],
    runtime: Runtime,
    feeds: Feeds,
    where: str,
    notes: Sequence[str] = (),
    repair_smear: bool = False,
) -> GraphAnalysis:
    """Puts an ONNX graph into the form of the canonical one: its shifts become nodes ``s2mlp::Shift``.

    Functions are put in place, constants folded, and operators that do nothing dropped, by rules that change no number
    but for the rounding of what is folded. Nodes that say which module they come from are named after it, as torch's
    exporters write it down; all others keep their names.

    Args:
        model: The graph; it is not changed.
        opset: To be written; None for the file's own, but at least the default.
        sizes: Free sizes of the inputs, each with its value in the example.
        runtime: Runs graphs, and their nodes on element numbers.
        feeds: Makes inputs of any sizes.
        where: The file, for messages.
        notes: What is known already.
        repair_smear: Whether the shift that was meant takes the place of what an overlapping copy left of it; the
            graph then computes something else than the file.

    Raises:
        ExportError: The opset cannot be written, or the graph cannot be converted to it.
    """
    written = model.opset_imports[""]
    target = opset if opset is not None else max(written, DEFAULT_OPSET)
    if opset is None and target > MAX_OPSET:
        raise ExportError(
            f"the file is written for opset {written}, and at most {MAX_OPSET} is written",
            where=where,
            fix=f"--opset {MAX_OPSET}",
        )
    check_opset(target)
    own, told = _own(model), list(notes)
    if target != written:
        own = _converted(own, target, where)
        told.append(f"converted from opset {written} to {target}")
    common.InlinePass()(own)
    fold_constants(own, onnx_shape_inference=True, should_fold=_is_list_of_sizes)
    FoldKnownSizes()(own)
    Simplify()(own)
    found = RewrittenGraph()
    free = [
        FreeSize(name, example, 1, max(_LARGEST_BATCH, 2 * example) if example <= _LARGEST_BATCH else 2 * example)
        for name, example in sizes.items()
    ]
    try:
        graph = OnnxGraph(own, runtime, feeds, free)
        found = rewrite_graph(own, graph, repair_smears=repair_smear)
    except UnknownValueError as error:
        told.append(f"no shift was looked for: {first_line_of(error)}")
    ir.passes.Sequential(
        common.RemoveUnusedNodesPass(),
        MergeEqualShifts(),
        OwnZeroPoints(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )(own)
    if any(module_path(node) for node in own.graph):
        NameAfterModules()(own)
    StripProvenance()(own)
    _restore_inputs(own.graph, [str(value.name) for value in model.graph.inputs])
    # Equal shifts of one tensor are one by now.
    shifts = tuple(ShiftRecord(spec_of(node), origin_of(node)) for node in _shift_nodes(own))
    told += told_of(found.movements)
    return GraphAnalysis(own, shifts, found.near_misses, tuple(told), found.smears, movements=found.movements)


def _restore_inputs(graph: ir.Graph, names: Sequence[str]) -> None:
    """Gives inputs the names of the file. One that is an output too cannot have its name there as well."""
    for value in graph.outputs:
        if value.name in names and not value.is_graph_input():
            value.name = f"{value.name}_output"
    for value, name in zip(graph.inputs, names, strict=True):
        value.name = name


def _is_list_of_sizes(node: ir.Node) -> bool | None:
    """Folded although onnxscript leaves it: the ones that an exporter puts before an Expand."""
    if node.op_type != "ConstantOfShape" or node.inputs[0] is None or node.inputs[0].const_value is None:
        return None
    value = node.attributes.get("value")
    short = math.prod(node.inputs[0].const_value.numpy().tolist()) <= _LIST
    return True if value is not None and value.as_tensor().dtype == ir.DataType.INT64 and short else None


def _shift_nodes(model: ir.Model) -> list[ir.Node]:
    return [node for node in model.graph if node.domain == DOMAIN]


def _own(model: ir.Model) -> ir.Model:
    """A copy whose weights are in memory, and whose shapes between inputs and outputs follow from the operators.

    Beside the file weights would be read again and again. The shapes that a file states may be those of another batch,
    and runtimes do not mind; here indices are made of them.
    """
    own = model.clone()
    for node in own.graph.all_nodes():
        for output in node.outputs:
            if not output.is_graph_output():
                output.shape = None
    for value in own.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            tensor = value.const_value
            value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, shape=tensor.shape, name=value.name)
    return own


def _converted(model: ir.Model, target: int, where: str) -> ir.Model:
    """The model for another opset.

    Raises:
        ExportError: An operator has no counterpart there.
    """
    written = model.opset_imports[""]
    problem = "an operator of it has no counterpart there"
    try:
        with quiet_exporter():
            model = ConvertVersionPass(target, fallback=True)(model).model
    except Exception as error:  # Converters raise types of their own.
        problem = first_line_of(error)
    if model.opset_imports[""] != target:
        raise ExportError(
            f"the file is written for opset {written} and cannot be converted to {target}: {problem}",
            where=where,
            fix=f"--opset {written}, or export the file again for opset {target}"
            if written >= 18
            else f"export the file again for opset {DEFAULT_OPSET}",
        )
    return model
