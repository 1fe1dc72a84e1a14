"""What parity is measured against: a source's module, or its functional meaning, with the names of a file."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import get_args

from torch import nn

from s2mlp_deploy.api.capturing import CapturedSource, analyze_program
from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.capture.checks import check_weights
from s2mlp_deploy.capture.hazards import evaluating
from s2mlp_deploy.choices import DynamicAxis
from s2mlp_deploy.engines.base import Engine, FileEngine
from s2mlp_deploy.engines.torch import TorchEngine
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.export.analysis import Analysis
from s2mlp_deploy.graph.axes import named_axes
from s2mlp_deploy.models.registry import MODELS
from s2mlp_deploy.parity.matching import match_names
from s2mlp_deploy.parity.pixels import preprocessed_input
from s2mlp_deploy.parity.proof import shifts_of
from s2mlp_deploy.progress import ProgressCallback, no_progress
from s2mlp_deploy.shift.spec import ShiftSpec
from s2mlp_deploy.sources.onnx_model import OnnxModel
from s2mlp_deploy.sources.source import Source

_SAME_MODEL = "compare with the source, checkpoint and settings that the file was exported from"


def evaluation(module: object) -> AbstractContextManager[None]:
    """Evaluation mode for a while; a finished program has no modes."""
    return evaluating(module) if isinstance(module, nn.Module) else nullcontext()


@dataclass(frozen=True)
class References:
    """What is right.

    Attributes:
        engine: Computes it.
        shifts: The shifts in it.
        eager: The eager module where that is another thing.
        analysis: Of the functional meaning, where that is the engine.
    """

    engine: Engine
    shifts: tuple[ShiftSpec, ...]
    eager: Engine | None = None
    analysis: Analysis | None = None


def references_of(
    source: Source | CapturedSource,
    file: str,
    session: FileEngine,
    *,
    on_pixels: bool,
    functional: bool = False,
    progress: ProgressCallback = no_progress,
) -> References:
    """What a file is compared with.

    Args:
        source: The module.
        file: The file whose names the reference takes.
        session: That file.
        on_pixels: Whether files preprocess: the module's input is then what Python's preprocessing makes.
        functional: Whether the functional meaning is wanted, whose modules can be looked into.
        progress: Told that the module is captured.
    """
    origin = source.source if isinstance(source, CapturedSource) else source
    module = origin.module
    if isinstance(module, OnnxModel):
        raise InputError(
            "an ONNX file is compared with as it is, and not through a loaded source",
            where=str(module.path),
            fix="name the file by its path",
        )
    if isinstance(module, nn.Module) and origin.info.reference in MODELS and not functional:
        # The zoo's shift is one operator that never writes into its input: nothing to watch for.
        check_weights(module)
        inputs, outputs = _interface(origin, origin.input_names, origin.output_names, file, session, on_pixels)
        with evaluating(module):
            shifts = shifts_of(module, origin.example_inputs)
        return References(TorchEngine(module, origin.example_inputs, inputs, outputs), tuple(shifts))
    # The height and width of images that a graph preprocesses are not the module's.
    free = {name for info in session.inputs for name in info.shape if name == "batch" or not on_pixels}
    # Files of others may call sizes what the module's inputs have not; a program has the sizes that it has.
    there = {name for tensor in origin.example_tensors for name in named_axes(tensor.dim())}
    free &= there if isinstance(module, nn.Module) else {"batch"}
    dynamic: list[DynamicAxis] = [name for name in get_args(DynamicAxis) if name in free]
    if not isinstance(source, CapturedSource):
        progress("capturing the model", 0, None)
    known = source.analysis if isinstance(source, CapturedSource) else analyze_program(origin, module, dynamic=dynamic)
    assert isinstance(known, Analysis)
    names = known.captured.input_names, known.captured.output_names
    inputs, outputs = _interface(origin, *names, file, session, on_pixels)
    meaning = TorchEngine(known.functional(), origin.example_inputs, inputs, outputs, name="torch (functional meaning)")
    found = tuple(record.spec for record in known.shifts)
    if functional or not isinstance(module, nn.Module):
        return References(meaning, found, analysis=known)
    eager = TorchEngine(module, origin.example_inputs, inputs, outputs)
    return References(meaning, found, eager) if known.races else References(eager, found)


def _interface(
    source: Source,
    input_names: Sequence[str] | None,
    output_names: Sequence[str] | None,
    file: str,
    session: FileEngine,
    on_pixels: bool,
) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """The file's inputs and outputs, each in the module's order.

    Raises:
        InputError: The module has another number of them; names both sides.
    """
    sides = (f"the model {source.info.reference}", file)
    tensors = source.example_tensors
    outputs = _in_order(output_names, session.outputs, "output", sides)
    if on_pixels:
        assert source.preprocessing is not None
        if len(tensors) != 1:
            raise InputError(
                f"{sides[0]} has {len(tensors)} inputs, and an image is only one", where=file, fix=_SAME_MODEL
            )
        return (preprocessed_input(source.preprocessing),), outputs
    inputs = _in_order(input_names, session.inputs, "input", sides, len(tensors))
    # A file with float16 inputs is fed the module's own, rounded.
    return tuple(
        replace(info, dtype=str(tensor.dtype).removeprefix("torch.")) if info.dtype == "float16" else info
        for info, tensor in zip(inputs, tensors, strict=True)
    ), outputs


def _in_order(
    names: Sequence[str] | None,
    infos: Sequence[TensorInfo],
    what: str,
    sides: tuple[str, str],
    count: int | None = None,
) -> tuple[TensorInfo, ...]:
    """A file's inputs or outputs in the module's order, where the module's names are known."""
    if names is None:
        names = [info.name for info in infos] if count is None else [f"argument {i + 1}" for i in range(count)]
    matched = match_names(names, [info.name for info in infos], what=what, sides=sides)
    by_name = {info.name: info for info in infos}
    return tuple(by_name[matched[name]] for name in names)
