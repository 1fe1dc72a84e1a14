"""Capturing a source: once, for as many forms and precisions as wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir
from torch import nn
from torch.export import ExportedProgram

from s2mlp_deploy.api.adopting import adopt_model, check_free_sizes
from s2mlp_deploy.api.refusals import refuse_repair
from s2mlp_deploy.choices import DynamicAxis, OnHazard
from s2mlp_deploy.export.adopt import GraphAnalysis
from s2mlp_deploy.export.analysis import Analysis, check_options
from s2mlp_deploy.export.analysis import analyze as analyze_module
from s2mlp_deploy.export.canonical import to_canonical
from s2mlp_deploy.graph.opsets import DEFAULT_OPSET, check_opset
from s2mlp_deploy.progress import ProgressCallback, no_progress
from s2mlp_deploy.sources.isolation import importing_from
from s2mlp_deploy.sources.onnx_model import OnnxModel
from s2mlp_deploy.sources.source import Source


@dataclass(frozen=True)
class CapturedSource:
    """A source and its canonical graph: what is captured once and written in as many forms as wanted.

    Attributes:
        source: What was captured.
        analysis: Its functional program, shifts and hazards; of an ONNX file its shifts.
        canonical: The ONNX graph whose shifts have no form yet.
    """

    source: Source
    analysis: Analysis | GraphAnalysis
    canonical: ir.Model


def analyze(
    source: Source, *, dynamic: Sequence[DynamicAxis] = ("batch",), on_hazard: OnHazard = "warn"
) -> Analysis | GraphAnalysis:
    """Captures a source, watches it for hazards and recognises its shifts; no ONNX yet.

    An ONNX file is captured already and means one thing: the free sizes are its own, and its only hazards are smears,
    what an overlapping copy left of a shift.

    Args:
        source: What :func:`~s2mlp_deploy.api.load` or :func:`~s2mlp_deploy.api.from_module` returned.
        dynamic: Axes whose size may differ from the example's: ``batch``, ``height``, ``width``, of volumes
            ``depth``. A module that fixes its batch is captured with that batch, and a note says so; other axes that
            cannot be free are refused.
        on_hazard: ``warn`` exports the functional meaning of a race, ``error`` refuses it.

    Raises:
        ExportError: The module cannot be captured, or races and ``on_hazard`` is ``error``.
        CheckpointError: A weight is NaN, infinite or on the meta device.
    """
    if isinstance(source.module, OnnxModel):
        check_options(dynamic, on_hazard)
        check_free_sizes(source.module, dynamic)
        return adopt_model(source.module, on_hazard=on_hazard)
    return analyze_program(source, source.module, dynamic=dynamic, on_hazard=on_hazard)


def analyze_program(
    source: Source,
    module: nn.Module | ExportedProgram,
    *,
    dynamic: Sequence[DynamicAxis] = ("batch",),
    on_hazard: OnHazard = "warn",
) -> Analysis:
    """What :func:`analyze` does where the source is no ONNX file.

    Args:
        source: The source.
        module: Its module.
        dynamic: See there.
        on_hazard: See there.

    Raises:
        ExportError: See there.
        CheckpointError: See there.
    """
    with importing_from(source.folder):
        found = analyze_module(
            module,
            source.example_inputs,
            input_names=source.input_names,
            output_names=source.output_names,
            dynamic=dynamic,
            on_hazard=on_hazard,
        )
    return replace(found, captured=replace(found.captured, notes=(*source.notes, *found.captured.notes)))


def capture(
    source: Source,
    *,
    opset: int | None = None,
    dynamic: Sequence[DynamicAxis] = ("batch",),
    on_hazard: OnHazard = "warn",
    repair_smear: bool = False,
    progress: ProgressCallback = no_progress,
) -> CapturedSource:
    """Captures a source and translates it to the canonical graph, whose shifts have no form yet.

    Args:
        source: See :func:`analyze`.
        opset: 18 to 25, default 20; of an ONNX file its own where that is later.
        dynamic: See :func:`analyze`.
        on_hazard: See :func:`analyze`.
        repair_smear: Whether smears of an ONNX file become the shifts that were meant; it then computes something else.
        progress: Told what is being done.

    Raises:
        ExportError: The module or an operation is refused, the opset is out of range, or there is no smear to repair.
        InputError: Smears of something else than an ONNX file are to be repaired.
        CheckpointError: A weight is NaN, infinite or on the meta device.
    """
    if isinstance(source.module, OnnxModel):
        check_free_sizes(source.module, dynamic)
        progress("reading the graph", 0, 1)
        adopted = adopt_model(source.module, opset=opset, repair_smear=repair_smear, on_hazard=on_hazard)
        progress("reading the graph", 1, 1)
        return CapturedSource(source, adopted, adopted.model)
    if repair_smear:
        refuse_repair(source.info.reference)
    opset = DEFAULT_OPSET if opset is None else opset
    check_opset(opset)
    progress("capturing the model", 0, 2)
    known = analyze_program(source, source.module, dynamic=dynamic, on_hazard=on_hazard)
    progress("translating to ONNX", 1, 2)
    canonical = to_canonical(known.captured, opset=opset)
    progress("translating to ONNX", 2, 2)
    return CapturedSource(source, known, canonical)
