"""From a source to an artifact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy import __version__
from s2mlp_deploy.api.evidence import save_scores
from s2mlp_deploy.api.quantizing import PrecisionOptions, described, make
from s2mlp_deploy.api.sources import load, require_export
from s2mlp_deploy.artifact import ArtifactWriter, Manifest, check_output, model_file
from s2mlp_deploy.data.noise import NOISE_SAMPLES, NoiseBatches
from s2mlp_deploy.errors import ExportError, PreprocessingError
from s2mlp_deploy.progress import ProgressCallback, no_progress

if TYPE_CHECKING:
    import onnx_ir as ir

    from s2mlp_deploy.export.analysis import Analysis
    from s2mlp_deploy.sources.source import Source


@dataclass(frozen=True)
class CapturedSource:
    """A source and its canonical graph: what is captured once and written in as many forms as wanted.

    Attributes:
        source: What was captured.
        analysis: Its functional program, shifts and hazards.
        canonical: The ONNX graph whose shifts have no form yet.
    """

    source: Source
    analysis: Analysis
    canonical: ir.Model


def analyze(source: Source, *, dynamic: Sequence[str] = ("batch",), on_hazard: str = "warn") -> Analysis:
    """Captures a source, watches it for hazards and recognises its shifts; no ONNX yet.

    Args:
        source: What :func:`~s2mlp_deploy.api.load` or :func:`~s2mlp_deploy.api.from_module` returned.
        dynamic: Axes whose size may differ from the example's: ``batch``, ``height``, ``width``. A module that fixes
            its batch is captured with that batch, and a note says so.
        on_hazard: ``warn`` exports the functional meaning of a race, ``error`` refuses it.

    Raises:
        ExportError: The module cannot be captured, or races and ``on_hazard`` is ``error``.
        CheckpointError: A weight is NaN, infinite or on the meta device.
    """
    from s2mlp_deploy.export.analysis import analyze as run

    return run(
        source.module,
        source.example_inputs,
        input_names=source.input_names,
        output_names=source.output_names,
        dynamic=dynamic,
        on_hazard=on_hazard,
    )


def capture(
    source: Source,
    *,
    opset: int | None = None,
    dynamic: Sequence[str] = ("batch",),
    on_hazard: str = "warn",
    progress: ProgressCallback = no_progress,
) -> CapturedSource:
    """Captures a source and translates it to the canonical graph, whose shifts have no form yet.

    Args:
        source: See :func:`analyze`.
        opset: 18 to 25, default 20.
        dynamic: See :func:`analyze`.
        on_hazard: See :func:`analyze`.
        progress: Told what is being done.

    Raises:
        ExportError: The module or an operation is refused, or the opset is out of range.
        CheckpointError: A weight is NaN, infinite or on the meta device.
    """
    from s2mlp_deploy.export.canonical import to_canonical
    from s2mlp_deploy.graph.opsets import DEFAULT_OPSET, check_opset

    opset = DEFAULT_OPSET if opset is None else opset
    check_opset(opset)
    progress("capturing the model", 0, 2)
    analysis = analyze(source, dynamic=dynamic, on_hazard=on_hazard)
    progress("translating to ONNX", 1, 2)
    canonical = to_canonical(analysis.captured, opset=opset)
    progress("translating to ONNX", 2, 2)
    return CapturedSource(source, analysis, canonical)


def export(
    source: str | Source | CapturedSource,
    output: str | Path,
    *,
    checkpoint: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    preprocess: str | Path | None = None,
    with_preprocessing: bool = False,
    shift_form: str | None = None,
    opset: int | None = None,
    dynamic: Sequence[str] = ("batch",),
    on_hazard: str = "warn",
    force: bool = False,
    seed: int = 0,
    precision: PrecisionOptions | None = None,
    progress: ProgressCallback = no_progress,
) -> Manifest:
    """Exports a source to an artifact: ``model.fp32.onnx``, ``manifest.json`` and ``report.html``.

    Files of other precisions are made in the same go where ``precision`` asks for them; the artifact appears with all
    of them or not at all.

    Args:
        source: What :func:`~s2mlp_deploy.api.load` takes, or what it or :func:`capture` returned. Options that a
            finished step no longer takes are ignored.
        output: The directory to write.
        checkpoint: See :func:`~s2mlp_deploy.api.load`.
        overrides: See there.
        preprocess: See there.
        with_preprocessing: Whether the graph itself resizes, crops and normalises: its input is then ``image``, uint8
            [batch, height, width, 3].
        shift_form: How shifts are written: a name of ``s2mlp_deploy.export.forms.FORMS``, or ``auto``.
        opset: 18 to 25, default 20.
        dynamic: See :func:`analyze`.
        on_hazard: See :func:`analyze`.
        force: Replace an artifact that is there.
        seed: Of random weights.
        precision: Which files to make beside float32, and on what data.
        progress: Told what is being done.

    Returns:
        The manifest as written.

    Raises:
        S2MLPDeployError: What loading and capturing raise; OutputError where the directory cannot be written or
            holds an artifact; InputError for an unknown form; PreprocessingError where the graph is to do a
            preprocessing that is not known; what :func:`~s2mlp_deploy.api.quantize` raises where ``precision`` is
            given.
    """
    require_export()
    from s2mlp_deploy.export.analysis import check_options
    from s2mlp_deploy.export.forms import choose_form
    from s2mlp_deploy.export.lower import lower_shifts
    from s2mlp_deploy.export.preprocessing import add_preprocessing
    from s2mlp_deploy.export.write import GraphFile, stage, tensor_infos, tool_versions, write_artifact
    from s2mlp_deploy.graph.opsets import DEFAULT_OPSET, check_opset
    from s2mlp_deploy.precision.derive import check_opset as check_precisions
    from s2mlp_deploy.report.html import write_report

    directory = Path(output)
    # Everything that can be refused is refused before minutes are spent.
    form = choose_form(shift_form)
    if opset is not None:
        check_opset(opset)
    if not isinstance(source, CapturedSource):
        check_options(dynamic, on_hazard)
        if with_preprocessing and {"height", "width"} & set(dynamic):
            raise ExportError(
                "a graph that resizes to one size has no free height and width",
                where="--dynamic and --with-preprocessing",
                fix="leave height and width out of --dynamic; every picture size is taken anyway",
            )
    if precision is not None:
        # Asking for the files refuses what cannot be made.
        check_precisions(precision.files, DEFAULT_OPSET if opset is None else opset)
    check_output(directory, force=force)
    if isinstance(source, str):
        source = load(source, checkpoint=checkpoint, overrides=overrides, preprocess=preprocess, seed=seed)
    origin = source.source if isinstance(source, CapturedSource) else source
    if with_preprocessing and origin.preprocessing is None:
        raise PreprocessingError(
            "nobody said how an image becomes this model's input, so the graph cannot do it",
            where="--with-preprocessing",
            fix="--preprocess FILE.json with size, mean and std",
        )
    if not isinstance(source, CapturedSource):
        source = capture(source, opset=opset, dynamic=dynamic, on_hazard=on_hazard, progress=progress)
    analysis = source.analysis
    progress("writing shifts", 0, None)
    model, shifts = lower_shifts(source.canonical, form)
    if with_preprocessing and origin.preprocessing is not None:
        model = add_preprocessing(model, origin.preprocessing)
    manifest = Manifest(
        name=origin.name,
        source=origin.info,
        preprocessing=origin.preprocessing.to_dict() if origin.preprocessing else None,
        classes=origin.classes,
        inputs=tensor_infos(model.graph.inputs),
        outputs=tensor_infos(model.graph.outputs),
        opset=model.opset_imports[""],
        shifts=shifts,
        tools=tool_versions(__version__),
        hazards=analysis.hazards,
        notes=analysis.captured.notes,
        preprocessing_in_graph=with_preprocessing,
    )
    progress("writing files", 0, None)
    file = GraphFile(model_file("fp32"), "fp32", model)
    if precision is None or not precision.files:
        written = write_artifact(directory, manifest, [file], force=force)
        write_report(directory)
        return written
    with ArtifactWriter(directory, force=force) as writer:
        facts = stage(writer, manifest, [file])
        made = make(
            model,
            writer.staging / file.name,
            manifest,
            precision,
            home=directory,
            noise=_noise(origin, manifest, seed),
            foreign_cache="ignore",
            progress=progress,
        )
        manifest = described(manifest, made)
        facts |= stage(writer, manifest, [GraphFile(g.file, g.precision, g.model) for g in made.graphs])
        written = writer.commit(manifest, facts)
    save_scores(directory, written, made.ranges, made.accuracy)
    return written


def _noise(source: Source, manifest: Manifest, seed: int) -> Iterable[tuple[dict[str, NDArray[Any]], Any]]:
    """Something to measure float16's ranges on where there is no data."""
    if manifest.preprocessing_in_graph and source.preprocessing is not None:
        generator = np.random.default_rng(seed)
        height, width = source.preprocessing.size
        name = manifest.inputs[0].name
        return [
            ({name: generator.integers(0, 256, (1, height, width, 3), np.uint8)}, None) for _ in range(NOISE_SAMPLES)
        ]
    examples = [tensor.numpy() for tensor in source.example_tensors]
    return NoiseBatches(manifest.inputs, examples, samples=NOISE_SAMPLES, batch=4, seed=seed)
