"""The first layer of a file that departs: what enters it, and what mends it, tried and measured."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from s2mlp_deploy.api.prepared import Prepared
from s2mlp_deploy.artifact import MANIFEST, model_file, read_manifest, verify_file
from s2mlp_deploy.choices import GRAPH_ENGINE
from s2mlp_deploy.data.noise import NoiseBatches
from s2mlp_deploy.engines.base import Engine
from s2mlp_deploy.engines.registry import kind_of
from s2mlp_deploy.errors import InputError, S2MLPDeployError
from s2mlp_deploy.evidence.layers import Bisection, LayerParity, LayersReport, Mend
from s2mlp_deploy.evidence.tune import Optimize
from s2mlp_deploy.graph.loading import load_graph
from s2mlp_deploy.parity.exits import Tap
from s2mlp_deploy.parity.layers import LookedInto, compare_layers
from s2mlp_deploy.precision.derive import derive_on
from s2mlp_deploy.precision.exclusion import Exclusion
from s2mlp_deploy.precision.quantizable import select_ops
from s2mlp_deploy.precision.rounding import round_like_half
from s2mlp_deploy.progress import ProgressCallback
from s2mlp_deploy.text import command_line, first_line_of

_KEY = "mend"


@dataclass(frozen=True)
class Run:
    """What layers were compared with, for comparing others.

    Attributes:
        program: With taps.
        reference: The engine that runs it.
        ready: Files and inputs.
        memory: Bytes that tapped tensors may take.
        data: What the user named as data.
        engine: What ran the files.
        other_form: Makes a file again with another form of its shifts; None where there is no model to make it of.
    """

    program: LookedInto
    reference: Engine
    ready: Prepared
    memory: int
    data: str | Path | Iterable[Any] | None
    engine: str
    other_form: Maker | None = None


@dataclass(frozen=True)
class Attempt:
    """Something to try.

    Attributes:
        mend: What it is; with a problem where it cannot be tried.
        model: The graph to run instead; None where there is none.
        options: What its engine is opened with.
    """

    mend: Mend
    model: ir.Model | None = None
    options: dict[str, Any] = field(default_factory=dict)


Maker = Callable[[LayersReport, Path, Tap, Run], Attempt]


def as_computed(model: ir.Model, engine: str) -> tuple[ir.Model, bool]:
    """A graph whose results are those of the file on its own hardware, and whether it rounds to float16 for that.

    OpenVINO takes the casts of such a graph out again: there a float16 file is looked at as a CPU computes it, in
    float32.
    """
    if kind_of(engine) != GRAPH_ENGINE:
        return model, False
    values = (*model.graph.inputs, *(value for node in model.graph for value in node.outputs))
    half = any(value.dtype == ir.DataType.FLOAT16 for value in values)
    return (round_like_half(model), True) if half else (model, False)


def with_bisection(report: LayersReport, path: Path, run: Run, progress: ProgressCallback) -> LayersReport:
    """The report with what was tried against its first layer past its tolerance; as it is where all hold.

    Args:
        report: Of a file's layers.
        path: The file.
        run: What was compared.
        progress: Told what is tried.
    """
    first = report.first
    tap = next((tap for tap in run.program.taps if first is not None and tap.path == first.path), None)
    if first is None or tap is None:  # An output that departs without any layer is no module's.
        return report
    mends = []
    if run.program.is_shift(tap) and run.other_form is not None:
        progress("trying another form of the shift", 0, None)
        mends.append(_tried("another form of the shift", run.other_form, report, path, tap, run))
    if report.precision != "fp32":
        progress(f"trying {tap.path} in higher precision", 0, None)
        mends.append(_tried("the layer in higher precision", _higher, report, path, tap, run))
    elif not mends:
        mends.append(
            Mend(
                "export the file again",
                problem="a float32 file has no higher precision, and the layer is no shift that has other forms: "
                "its constants or nodes are not the model's",
            )
        )
    if kind_of(run.engine) == GRAPH_ENGINE:
        mends += _levels(report, path, tap, run, progress)
    if report.precision.endswith("-trt"):
        mends.append(
            Mend(
                "an engine of TensorRT at another optimization level",
                problem="it runs on its GPU alone: build it there with --builder-optimization-level 0, and compare",
            )
        )
    enters, taps = run.program.entering(tap), run.program.taps
    leaves = tuple(other.path for other in taps if other is not tap and tap.path in run.program.entering(other))
    return replace(report, bisection=Bisection(first.path, first.line, enters, tuple(mends), leaves))


def _levels(report: LayersReport, path: Path, tap: Tap, run: Run, progress: ProgressCallback) -> list[Mend]:
    """The file with less done to it by the engine's optimizer: nothing of it, and the most of it that still helps."""
    progress("trying the engine's optimizer at another level", 0, None)
    mends: list[Mend] = []
    levels: tuple[Optimize, ...] = ("off", "basic", "extended")
    for level in levels:
        mend = _tried("another optimization level", functools.partial(_other_level, level), report, path, tap, run)
        if level == "off" or mend.helps:
            mends = [mend]
        if not mend.helps:
            break
    return mends


def _tried(what: str, make: Maker, report: LayersReport, path: Path, tap: Tap, run: Run) -> Mend:
    """A mend with its figures, or with the reason why it could not be tried."""
    mend = Mend("", problem="")
    try:
        attempt = make(report, path, tap, run)
        mend = attempt.mend
        if attempt.model is None:
            return mend
        found = compare_layers(
            run.program,
            run.reference,
            {_KEY: as_computed(attempt.model, run.engine)[0]},
            run.ready.inputs,
            adapt=run.ready.adapted,
            splits=run.ready.splits,
            memory=run.memory,
            engine=run.engine,
            options=attempt.options,
            foreign=isinstance(run.ready.inputs, NoiseBatches),
        )[_KEY]
    except S2MLPDeployError as error:
        return replace(mend, what=mend.what or what, problem=first_line_of(error))
    limits = {layer.path: (layer.tolerances, layer.own_tolerances) for layer in report.layers}
    judged = []
    for measured in found.layers:
        given, own = limits.get(measured.path, (None, None))
        judged.append(replace(measured, tolerances=given, own_tolerances=own))
    layer: LayerParity | None = next((layer for layer in judged if layer.path == tap.path), None)
    outputs = tuple(layer for layer in judged if layer.kind == "output")
    return replace(
        mend, layer=layer, outputs=outputs, problem="" if layer is not None else "the layer is not found in it"
    )


MADE_ANEW = ", quantized anew on the data of this comparison"


def _higher(report: LayersReport, path: Path, tap: Tap, run: Run) -> Attempt:
    """The file made again from the float32 file beside it with the layer left in higher precision."""
    what = f"{tap.path} in higher precision{MADE_ANEW}"
    pattern = f"^{re.escape(tap.path)}/"
    if not (path.parent / MANIFEST).is_file():
        return Attempt(Mend(what, problem="the file is in no artifact, whose float32 file it would be made of"))
    manifest = read_manifest(path.parent)
    record = next((item for item in manifest.files if item.path == model_file("fp32")), None)
    if record is None or run.ready.on_pixels:
        return Attempt(Mend(what, problem="there is no float32 file that takes the model's input"))
    model = load_graph(verify_file(path.parent, record)).model
    exclusion = Exclusion((pattern,))
    half = report.precision == "fp16"
    names = list(model.graph) if half else [op.node for op in select_ops(model).ops]
    if not any(exclusion.reason(node) for node in names):
        return Attempt(Mend(what, problem="it has no GEMM or convolution that is quantized"))
    option = f"quantize with --exclude {shlex.quote(pattern)}, on the data that the file was calibrated on"
    if isinstance(run.data, (str, Path)):
        precision = report.precision.partition("-")[0]
        given = ("--data", run.data, "--precision", precision, "--exclude", pattern)
        option = command_line("quantize", path.parent, *given)
    made = derive_on(model, report.precision, feeds_of(model, run), exclusion)
    return Attempt(Mend(what, option), made)


_LEVELS = {"extended": "ORT_ENABLE_EXTENDED", "basic": "ORT_ENABLE_BASIC", "off": "ORT_DISABLE_ALL"}


def _other_level(level: Optimize, _: LayersReport, path: Path, __: Tap, run: Run) -> Attempt:
    """The same file, with less done to it by the engine: what then is right, the engine's optimizer had wrong."""
    name = _LEVELS[level]
    mend = Mend(
        f"the same file with ONNX Runtime's optimizer at {name}",
        f"SessionOptions.graph_optimization_level = GraphOptimizationLevel.{name} in what runs the file",
    )
    return Attempt(mend, run.ready.graphs[str(path)], {"optimize": level})


def feeds_of(model: ir.Model, run: Run) -> Iterator[Mapping[str, NDArray[Any]]]:
    """The data of the comparison as the inputs of a float32 graph."""
    if {str(value.name) for value in model.graph.inputs} != {info.name for info in run.ready.fed}:
        raise InputError("the inputs of the float32 graph have other names than the file's")
    for feeds, _ in run.ready.inputs:
        yield feeds
