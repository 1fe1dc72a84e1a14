"""The first layer of a file that departs: what enters it, and what mends it, tried and measured."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from s2mlp_deploy.api.capturing import CapturedSource
from s2mlp_deploy.api.preparing import Prepared
from s2mlp_deploy.artifact import MANIFEST, model_file, read_manifest, verify_file
from s2mlp_deploy.choices import GRAPH_ENGINE
from s2mlp_deploy.engines.base import Engine
from s2mlp_deploy.engines.registry import kind_of
from s2mlp_deploy.errors import InputError, S2MLPDeployError
from s2mlp_deploy.evidence.layers import Bisection, LayerParity, LayersReport, Mend
from s2mlp_deploy.export.canonical import to_canonical
from s2mlp_deploy.export.forms import FORMS
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.graph.loading import load_graph
from s2mlp_deploy.parity.exits import Tap
from s2mlp_deploy.parity.layers import compare_layers
from s2mlp_deploy.parity.program_taps import TappedProgram
from s2mlp_deploy.precision.derive import derive_on
from s2mlp_deploy.precision.exclusion import Exclusion
from s2mlp_deploy.precision.quantizable import select_ops
from s2mlp_deploy.precision.rounding import round_like_half
from s2mlp_deploy.progress import ProgressCallback
from s2mlp_deploy.text import first_line_of

_KEY = "mend"


@dataclass(frozen=True)
class Run:
    """What layers were compared with, for comparing others.

    Attributes:
        program: With taps.
        reference: The engine that runs it.
        ready: Files and inputs.
        splits: Whether a batch may be cut.
        memory: Bytes that tapped tensors may take.
        data: What the user named as data.
        engine: What ran the files.
    """

    program: TappedProgram
    reference: Engine
    ready: Prepared
    splits: bool
    memory: int
    data: str | Path | Iterable[Any] | None
    engine: str


_Maker = Callable[[LayersReport, Path, Tap, Run, object], tuple[Mend, ir.Model | None]]


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


def with_bisection(
    report: LayersReport, path: Path, run: Run, source: object, progress: ProgressCallback
) -> LayersReport:
    """The report with what was tried against its first layer past its tolerance; as it is where all hold.

    Args:
        report: Of a file's layers.
        path: The file.
        run: What was compared.
        source: What the user named or loaded: a captured source is not captured again.
        progress: Told what is tried.
    """
    first = report.first
    tap = next((tap for tap in run.program.taps if first is not None and tap.path == first.path), None)
    if first is None or tap is None:  # An output that departs without any layer is no module's.
        return report
    mends = []
    if run.program.is_shift(tap):
        progress("trying another form of the shift", 0, None)
        mends.append(_tried(_other_form, report, path, tap, run, source))
    if report.precision != "fp32":
        progress(f"trying {tap.path} in higher precision", 0, None)
        mends.append(_tried(_higher, report, path, tap, run, source))
    elif not mends:
        mends.append(
            Mend(
                "export the file again",
                problem="a float32 file has no higher precision, and the layer is no shift that has other forms: "
                "its constants or nodes are not the model's",
            )
        )
    return replace(report, bisection=Bisection(first.path, first.line, run.program.entering(tap), tuple(mends)))


def _tried(make: _Maker, report: LayersReport, path: Path, tap: Tap, run: Run, source: object) -> Mend:
    """A mend with its figures, or with the reason why it could not be tried."""
    mend, model = Mend("", problem=""), None
    try:
        mend, model = make(report, path, tap, run, source)
        if model is None:
            return mend
        found = compare_layers(
            run.program,
            run.reference,
            {_KEY: as_computed(model, run.engine)[0]},
            run.ready.inputs,
            adapt=run.ready.adapted,
            splits=run.splits,
            memory=run.memory,
            engine=run.engine,
        )[_KEY]
    except S2MLPDeployError as error:
        return replace(mend, what=mend.what or _WHAT[make.__name__], problem=first_line_of(error))
    limits = {layer.path: layer.tolerances for layer in report.layers}
    judged = [replace(layer, tolerances=limits.get(layer.path)) for layer in found.layers]
    layer: LayerParity | None = next((layer for layer in judged if layer.path == tap.path), None)
    outputs = tuple(layer for layer in judged if layer.kind == "output")
    return replace(
        mend, layer=layer, outputs=outputs, problem="" if layer is not None else "the layer is not found in it"
    )


def _other_form(report: LayersReport, path: Path, _: Tap, run: Run, source: object) -> tuple[Mend, ir.Model | None]:
    """The file made again with another form of its shifts."""
    ready = run.ready
    analysis = ready.references.analysis
    assert analysis is not None
    if ready.on_pixels:
        return Mend("another form of the shift", problem="the file preprocesses its images"), None
    told = ready.descriptions[str(path)].get("shifts") or ()
    forms = {str(item.get("form")) for item in told if isinstance(item, dict)}
    canonical = source.canonical if isinstance(source, CapturedSource) else to_canonical(analysis.captured)
    for name, form in FORMS.items():
        if name in forms:
            continue
        try:
            model = lower_shifts(canonical, form)[0]
        except InputError:  # Not every shift takes every form.
            continue
        if report.precision != "fp32":
            model = derive_on(model, report.precision, _feeds(model, run))
        what = f"the shifts as {name}" + _MADE_ANEW * (report.precision != "fp32")
        return Mend(what, f"export with --shift-form {name}"), model
    return Mend("another form of the shift", problem="no other form takes it"), None


_WHAT = {"_other_form": "another form of the shift", "_higher": "the layer in higher precision"}
_MADE_ANEW = ", quantized anew on the data of this comparison"


def _higher(report: LayersReport, path: Path, tap: Tap, run: Run, _: object) -> tuple[Mend, ir.Model | None]:
    """The file made again from the float32 file beside it with the layer left in higher precision."""
    what = f"{tap.path} in higher precision{_MADE_ANEW}"
    pattern = f"^{re.escape(tap.path)}/"
    if not (path.parent / MANIFEST).is_file():
        return Mend(what, problem="the file is in no artifact, whose float32 file it would be made of"), None
    manifest = read_manifest(path.parent)
    record = next((item for item in manifest.files if item.path == model_file("fp32")), None)
    if record is None or run.ready.on_pixels:
        return Mend(what, problem="there is no float32 file that takes the model's input"), None
    model = load_graph(verify_file(path.parent, record)).model
    exclusion = Exclusion((pattern,))
    half = report.precision == "fp16"
    names = list(model.graph) if half else [op.node for op in select_ops(model).ops]
    if not any(exclusion.reason(node) for node in names):
        return Mend(what, problem="it has no GEMM or convolution that is quantized"), None
    option = f"quantize with --exclude {shlex.quote(pattern)}, on the data that the file was calibrated on"
    if isinstance(run.data, (str, Path)):
        precision = report.precision.partition("-")[0]
        command = ["s2mlp-deploy", "quantize", str(path.parent), "--data", str(run.data), "--precision", precision]
        option = shlex.join([*command, "--exclude", pattern])
    made = derive_on(model, report.precision, _feeds(model, run), exclusion)
    return Mend(what, option), made


def _feeds(model: ir.Model, run: Run) -> Iterator[Mapping[str, NDArray[Any]]]:
    """The data of the comparison as the inputs of a float32 graph."""
    if {str(value.name) for value in model.graph.inputs} != {info.name for info in run.ready.fed}:
        raise InputError("the inputs of the float32 graph have other names than the file's")
    for feeds, _ in run.ready.inputs:
        yield feeds
