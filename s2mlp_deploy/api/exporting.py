"""From a source to an artifact."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from rich.console import Console

from s2mlp_deploy.api.adopting import check_free_sizes
from s2mlp_deploy.api.capturing import CapturedSource, capture
from s2mlp_deploy.api.checking import check_data_fits, check_preprocessing, check_scores, refuse_late_options
from s2mlp_deploy.api.evidence import save_evidence, save_scores
from s2mlp_deploy.api.module_records import by_module
from s2mlp_deploy.api.refusals import check_export, refuse_repair
from s2mlp_deploy.api.remembering import remembered_form, remembered_layout
from s2mlp_deploy.api.sources import load
from s2mlp_deploy.api.speed import check_speed
from s2mlp_deploy.artifact import REPORT, ArtifactWriter, Manifest, check_served_name, fitting_batch, model_file
from s2mlp_deploy.choices import DynamicAxis, Layout, OnHazard, ShiftFormName
from s2mlp_deploy.data.noise import NOISE_SAMPLES, NoiseBatches
from s2mlp_deploy.errors import ExportError, InputError
from s2mlp_deploy.evidence.accuracy import AccuracyReport
from s2mlp_deploy.evidence.speed import SpeedCheck
from s2mlp_deploy.export.analysis import check_options
from s2mlp_deploy.export.describing import manifest_of
from s2mlp_deploy.export.forms import AUTO, find_form
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.export.preprocessing import add_preprocessing
from s2mlp_deploy.export.write import GraphFile, stage
from s2mlp_deploy.graph.subnormals import flush_weights, in_words, subnormal_weights
from s2mlp_deploy.parity.precisions import precision_of
from s2mlp_deploy.precision.convert import convert, with_precisions
from s2mlp_deploy.precision.options import PrecisionOptions
from s2mlp_deploy.progress import ProgressCallback, no_progress
from s2mlp_deploy.report.accuracy import print_accuracy
from s2mlp_deploy.report.notebook import ShownAsPrinted
from s2mlp_deploy.report.speed import print_speed
from s2mlp_deploy.report.terminal import print_manifest
from s2mlp_deploy.sources.onnx_model import OnnxModel
from s2mlp_deploy.sources.source import Source

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportResult(ShownAsPrinted):
    """What an export wrote.

    Attributes:
        directory: The artifact.
        manifest: As written.
        accuracy: How near files of other precisions are to float32, and what they score; None where there are none.
        speed: How fast they are beside float32; None where that was not asked for.
    """

    directory: Path
    manifest: Manifest
    accuracy: AccuracyReport | None = None
    speed: SpeedCheck | None = None

    @property
    def report(self) -> Path:
        """The page that shows the artifact."""
        return self.directory / REPORT

    def file(self, precision: str = "fp32") -> Path:
        """The ONNX file of a precision.

        Raises:
            ArtifactError: The artifact has none.
        """
        return self.directory / self.manifest.file(precision).path

    def print_to(self, console: Console) -> None:
        """See :class:`~s2mlp_deploy.report.notebook.ShownAsPrinted`."""
        print_manifest(console, self.manifest, self.directory)
        if self.accuracy is not None:
            print_accuracy(console, self.accuracy)
        if self.speed is not None:
            print_speed(console, self.speed, str(self.directory))


def export(
    source: str | Source | CapturedSource,
    output: str | Path,
    *,
    checkpoint: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    preprocess: str | Path | None = None,
    name: str | None = None,
    with_preprocessing: bool = False,
    shift_form: ShiftFormName = "auto",
    layout: Layout = "auto",
    opset: int | None = None,
    dynamic: Sequence[DynamicAxis] | None = None,
    on_hazard: OnHazard | None = None,
    repair_smear: bool = False,
    flush_denormals: bool = False,
    force: bool = False,
    seed: int | None = None,
    precision: PrecisionOptions | None = None,
    progress: ProgressCallback = no_progress,
) -> ExportResult:
    """Exports a source to an artifact: ``model.fp32.onnx``, ``manifest.json`` and ``report.html``.

    An ONNX file that computes in float16 or integers already stays in that precision, and its file is named after it.

    Files of other precisions are made in the same go where ``precision`` asks for them; the artifact appears with all
    of them or not at all.

    Args:
        source: What :func:`~s2mlp_deploy.api.load` takes, or what it or :func:`capture` returned. Options of a step
            that is done already are refused.
        output: The directory to write.
        checkpoint: See :func:`~s2mlp_deploy.api.load`.
        overrides: See there.
        preprocess: See there.
        name: What to serve it as; default: the checkpoint's stem, or the model's name.
        with_preprocessing: Whether the graph itself resizes, crops and normalises: its input is then ``image``, uint8
            [batch, height, width, 3].
        shift_form: How shifts are written; ``auto`` is what :func:`~s2mlp_deploy.api.tune` found the fastest on this
            machine for a network of this shape, and else chooses for each by what it costs.
        layout: Inner layout, of a zoo model that is named; ``auto`` is what tuning found, and else the model's own,
            as ``as-is`` always is. What ``overrides`` say goes first.
        opset: 18 to 25, default 20; of an ONNX file its own where that is later.
        dynamic: See :func:`~s2mlp_deploy.api.analyze`; default ``("batch",)``.
        on_hazard: See there; default ``warn``.
        repair_smear: Whether smears of an ONNX file (what an overlapping copy left of a shift) become the shifts that
            were meant: the files then compute something else than the source.
        flush_denormals: Whether weights below the smallest normal float32 become 0: processors compute with them many
            times slower. Without it they are kept, and a warning tells of them.
        force: Replace an artifact that is there.
        seed: Of random weights; default 0.
        precision: Which files to make beside float32, and on what data.
        progress: Told what is being done.

    Returns:
        The manifest as written, and the figures where files of other precisions were made.

    Raises:
        InputError: An unknown form, or an option of a step that is done already.
        OutputError: The directory cannot be written or holds an artifact.
        PreprocessingError: The graph is to do a preprocessing that is not configured.
        S2MLPDeployError: What loading, capturing and, where ``precision`` is given,
            :func:`~s2mlp_deploy.api.quantize` raise.
    """
    directory = Path(output)
    # Everything that can be refused is refused before minutes are spent: the arguments alone, then with the source.
    form = find_form(shift_form)
    if name is not None:
        check_served_name(name)
    refuse_late_options(
        source,
        loading={
            "checkpoint": checkpoint,
            "overrides": overrides,
            "preprocess": preprocess,
            "seed": seed,
            "layout": None if layout == "auto" else layout,
        },
        capturing={"opset": opset, "dynamic": dynamic, "on_hazard": on_hazard, "repair_smear": repair_smear or None},
    )
    axes: Sequence[DynamicAxis] = ("batch",) if dynamic is None else dynamic
    hazards: OnHazard = on_hazard or "warn"
    check_options(axes, hazards)
    if with_preprocessing and {"height", "width"} & set(axes):
        raise ExportError(
            "a graph that resizes to one size has no free height and width",
            where="--dynamic and --with-preprocessing",
            fix="leave height and width out of --dynamic; images of every size are taken anyway",
        )
    known = source.canonical.opset_imports[""] if isinstance(source, CapturedSource) else opset
    names = check_export(directory, force=force, opset=known, precision=precision)
    wanted = precision if precision is not None and precision.files else None
    if isinstance(source, str):
        progress("loading the model", 0, None)
        source = _load(
            source, layout, checkpoint=checkpoint, overrides=overrides, preprocess=preprocess, seed=seed or 0
        )
    origin = source.source if isinstance(source, CapturedSource) else source
    if repair_smear and not isinstance(origin.module, OnnxModel):
        refuse_repair(origin.info.reference)
    base = "fp32"
    if isinstance(origin.module, OnnxModel):
        base = _precision_of_file(origin.module, axes, wanted)
        names = check_export(directory, force=force, opset=known, precision=precision, base=base)
    if with_preprocessing:
        check_preprocessing(origin)
    if wanted is not None:
        check_data_fits(wanted, origin, with_preprocessing=with_preprocessing)
        check_scores(wanted, origin)
    progress("waiting for the output", 0, None)  # Only where another command is writing there.
    with ArtifactWriter(directory, force=force, files=names, checked=True) as writer:
        if not isinstance(source, CapturedSource):
            source = capture(
                source, opset=opset, dynamic=axes, on_hazard=hazards, repair_smear=repair_smear, progress=progress
            )
        progress("writing shifts", 0, None)
        remembered = ""
        if shift_form == AUTO:
            found, remembered = remembered_form(origin, source.analysis)
            form = find_form(found or AUTO)
        model, shifts = lower_shifts(source.canonical, form, others=isinstance(origin.module, OnnxModel))
        _tell_subnormals(model, flush=flush_denormals)
        if with_preprocessing and origin.preprocessing is not None:
            model = add_preprocessing(model, origin.preprocessing)
        manifest = manifest_of(
            model,
            source.analysis,
            shifts,
            name=origin.name if name is None else name,
            source=origin.info,
            preprocessing=origin.preprocessing,
            classes=origin.classes,
            preprocessing_in_graph=with_preprocessing,
        )
        if remembered:
            LOG.info("%s", remembered)
            manifest = replace(manifest, notes=(*manifest.notes, remembered))
        progress("writing files", 0, None)
        file = GraphFile(model_file(base), base, model)
        converted = None
        files = [file]
        facts = stage(writer, manifest, files)
        if wanted is not None:
            converted = convert(
                model,
                writer.staging / file.name,
                manifest,
                wanted,
                home=directory,
                noise=_noise(origin, manifest, wanted.seed),
                foreign_cache="ignore",
                progress=progress,
            )
            manifest = with_precisions(manifest, converted)
            derived = [GraphFile(g.file, g.precision, g.model) for g in converted.graphs]
            facts |= stage(writer, manifest, derived)
            files += derived
        written = writer.commit(manifest, facts)
        modules = by_module(files, written)
        accuracy = None
        if converted is not None:
            accuracy = save_scores(directory, written, converted.ranges, converted.accuracy, modules)
        else:
            save_evidence(directory, *modules)
    speed = None
    if converted is not None and wanted is not None and wanted.speed_wanted:
        speed = check_speed(
            directory, written, wanted.files, converted.shapes, min_speedup=wanted.min_speedup, progress=progress
        )
    return ExportResult(directory, written, accuracy, speed)


def _load(name: str, layout: Layout, *, overrides: Mapping[str, Any] | None, **given: Any) -> Source:
    """Loads what was named, in the layout that was asked for or, of a zoo model, that was the fastest here."""
    settings = dict(overrides or {})
    if layout not in ("auto", "as-is"):
        settings["layout"] = layout
    source = load(name, overrides=settings, **given)
    if layout != "auto" or "layout" in settings or (best := remembered_layout(source)) is None:
        return source
    LOG.info(
        "layout %s: the fastest when `tune` measured this network here; --layout as-is leaves the model's own", best
    )
    return load(name, overrides=settings | {"layout": best}, **given)


def _tell_subnormals(model: ir.Model, *, flush: bool) -> None:
    found = flush_weights(model) if flush else subnormal_weights(model)
    if found and flush:
        LOG.warning("%s; they are 0 in the files", in_words(found))
    elif found:
        LOG.warning(
            "%s; processors may compute with them many times slower: --flush-denormals makes them 0", in_words(found)
        )


def _precision_of_file(model: OnnxModel, dynamic: Sequence[DynamicAxis], wanted: PrecisionOptions | None) -> str:
    """What an ONNX file computes in: a file of another precision than float32 is taken as it is.

    Raises:
        InputError: Sizes are to be free that the file fixes, or files of other precisions are to be made from one that
            is not in float32.
    """
    where = str(model.path)
    check_free_sizes(model, dynamic)
    found = precision_of(model.model.graph, None)
    if found != "fp32" and wanted is not None:
        raise InputError(
            f"the file computes in {found} already, and other precisions are made from float32",
            where=where,
            fix="name the float32 file that it was made from; `export` without --precision takes this one as it is",
        )
    return found


def _noise(source: Source, manifest: Manifest, seed: int) -> Iterable[tuple[dict[str, NDArray[Any]], Any]]:
    """Something to measure float16's ranges on where there is no data."""
    if manifest.preprocessing_in_graph and source.preprocessing is not None:
        generator = np.random.default_rng(seed)
        height, width = source.preprocessing.size
        name, size = manifest.inputs[0].name, manifest.inputs[0].shape[0]
        batch = size if isinstance(size, int) else 1
        return [
            ({name: generator.integers(0, 256, (batch, height, width, 3), np.uint8)}, None)
            for _ in range(-(-NOISE_SAMPLES // batch))
        ]
    examples = [tensor.numpy() for tensor in source.example_tensors]
    batch, whole = fitting_batch(manifest.limits, 4)
    return NoiseBatches(manifest.inputs, examples, samples=NOISE_SAMPLES, batch=batch, whole=whole, seed=seed)
