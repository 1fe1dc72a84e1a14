"""Looking into a source: its shifts, near misses and hazards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from s2mlp_deploy.api.capturing import CapturedSource, analyze
from s2mlp_deploy.api.checking import refuse_late_options
from s2mlp_deploy.api.inspecting_files import FileInspection, inspect_file
from s2mlp_deploy.api.inspection_tables import print_source_inspection
from s2mlp_deploy.api.sources import load
from s2mlp_deploy.artifact import Hazard, ShiftRecord
from s2mlp_deploy.capture.axes import input_shapes
from s2mlp_deploy.choices import DynamicAxis
from s2mlp_deploy.errors import MissingDependencyError, SourceError
from s2mlp_deploy.export.adopt import GraphAnalysis
from s2mlp_deploy.export.rewrite import NearMissRecord
from s2mlp_deploy.export.write import tensor_infos
from s2mlp_deploy.progress import ProgressCallback, no_progress
from s2mlp_deploy.report.notebook import ShownAsPrinted
from s2mlp_deploy.sources.source import Source


@dataclass(frozen=True)
class SourceInspection(ShownAsPrinted):
    """What a source holds.

    Attributes:
        source: What was named.
        inputs: Names and shapes of the inputs; dynamic sizes as text.
        outputs: Names of the outputs.
        parameters: Learned numbers; of an ONNX file the numbers in its constants.
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

    def print_to(self, console: Console) -> None:
        """See :class:`~s2mlp_deploy.report.notebook.ShownAsPrinted`."""
        print_source_inspection(console, self)


def inspect_graph(
    path: str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    preprocess: str | Path | None = None,
    progress: ProgressCallback = no_progress,
) -> FileInspection:
    """Reads an ONNX file, and looks for shifts in one that does not say which it has.

    Args:
        path: The file. One that ONNX's checker does not accept is read and not looked through.
        overrides: Free sizes of its inputs by name, which become fixed for the search.
        preprocess: A description of its preprocessing, whose size it is run at where its own is free.
        progress: Told what is being done.

    Raises:
        ArtifactError: It is no ONNX file.
        SourceError: It has no such free size.
    """
    read = inspect_file(path)
    if read.metadata or read.problem:
        return read
    try:
        found = inspect_source(str(path), overrides=overrides, preprocess=preprocess, progress=progress)
        return replace(read, found=found)
    except (SourceError, MissingDependencyError) as error:
        if overrides:
            raise
        return replace(read, not_searched=error.problem)  # What no command takes as a source can be read all the same.


def inspect_source(
    source: str | Source | CapturedSource,
    *,
    checkpoint: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    preprocess: str | Path | None = None,
    dynamic: Sequence[DynamicAxis] | None = None,
    progress: ProgressCallback = no_progress,
) -> SourceInspection:
    """Finds every shift, near miss and hazard of a source; writes nothing.

    Args:
        source: What :func:`~s2mlp_deploy.api.load` takes, or what it or :func:`~s2mlp_deploy.api.capture` returned.
            Options of a step that is done already are refused.
        checkpoint: See :func:`~s2mlp_deploy.api.load`.
        overrides: See there.
        preprocess: See there.
        dynamic: See :func:`~s2mlp_deploy.api.analyze`.
        progress: Told what is being done.

    Raises:
        InputError: An option of a step that is done already.
        S2MLPDeployError: What loading and capturing raise.
    """
    refuse_late_options(
        source,
        loading={"checkpoint": checkpoint, "overrides": overrides, "preprocess": preprocess},
        capturing={"dynamic": dynamic},
    )
    if isinstance(source, str):
        progress("loading the model", 0, None)
        source = load(source, checkpoint=checkpoint, overrides=overrides, preprocess=preprocess)
    if isinstance(source, CapturedSource):
        loaded, known = source.source, source.analysis
    else:
        progress("capturing the model", 0, None)
        loaded, known = source, analyze(source, dynamic=("batch",) if dynamic is None else dynamic)
    if isinstance(known, GraphAnalysis):
        shapes = {info.name: info.shape for info in tensor_infos(known.model.graph.inputs)}
        outputs, parameters = known.output_names, known.parameters
    else:
        program = known.captured.program
        shapes = dict(zip(known.captured.input_names, input_shapes(program), strict=True))
        outputs, parameters = known.captured.output_names, sum(value.numel() for value in program.parameters())
    return SourceInspection(
        source=loaded.info.reference,
        inputs=shapes,
        outputs=outputs,
        parameters=parameters,
        shifts=known.with_forms(),
        near_misses=known.near_misses,
        hazards=known.hazards,
        notes=known.notes,
    )
