"""The Python API: every command is one of these functions.

Importing this module imports no torch, no onnx and no runtime; each function imports what it needs and says which
extra is missing.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy import __version__
from s2mlp_deploy.artifact import (
    EVIDENCE,
    MANIFEST,
    Manifest,
    ShiftRecord,
    check_output,
    to_json,
    write_file,
)
from s2mlp_deploy.errors import (
    ArtifactError,
    DataError,
    InputError,
    MissingDependencyError,
    PreprocessingError,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from s2mlp_deploy.engines.base import EngineStatus
    from s2mlp_deploy.engines.profiles import Shape
    from s2mlp_deploy.engines.tensorrt_rtx import BuildRecord
    from s2mlp_deploy.models.registry import ModelEntry
    from s2mlp_deploy.parity.compare import ParityReport, Tolerances
    from s2mlp_deploy.serving.predictor import Prediction
    from s2mlp_deploy.sources.source import Source

Progress = Callable[[str, int, int | None], None]
"""Called with what is being done, how much of it is done, and how much there is (None where nobody knows)."""

PARITY_SAMPLES = 16
"""Images of seeded noise that parity uses when no data is given."""


def quiet(what: str, done: int, total: int | None) -> None:
    """Reports to nobody."""


def models() -> tuple[ModelEntry, ...]:
    """The zoo's models with the papers' figures."""
    from s2mlp_deploy.models.registry import list_models

    return list_models()


def doctor() -> tuple[EngineStatus, ...]:
    """Which engines can be used on this machine, and what the others lack."""
    from s2mlp_deploy.engines.registry import statuses

    return statuses()


def require_export() -> None:
    """Checks that the extra ``export`` is installed, without importing it.

    Raises:
        MissingDependencyError: Names the first package that is not.
    """
    for module in ("torch", "onnx", "onnxscript", "safetensors", "jinja2"):
        if importlib.util.find_spec(module) is None:
            raise MissingDependencyError(module, extra="export", purpose="working with PyTorch models")


@dataclass(frozen=True)
class CapturedSource:
    """A source and its canonical graph: what is exported once and written in as many forms as wanted."""

    source: Source
    canonical: ir.Model


def load(
    source: str,
    *,
    checkpoint: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    preprocess: str | Path | None = None,
    seed: int = 0,
) -> Source:
    """Loads a source: a module with its weights, example inputs and preprocessing.

    Args:
        source: A name of the zoo.
        checkpoint: safetensors or a state dict; without it the weights are random and seeded.
        overrides: Fields of the configuration, as ``--set`` takes them.
        preprocess: A JSON file that describes the preprocessing; default ``<checkpoint>.json`` where it exists.
        seed: Of random weights.

    Raises:
        SourceError: Unknown model or field.
        CheckpointError: The weights cannot be read or do not fit.
        PreprocessingError: The description is wrong.
        MissingDependencyError: The extra ``export`` is not installed.
    """
    require_export()
    from s2mlp_deploy.sources.source import load_source

    return load_source(
        source,
        checkpoint=Path(checkpoint) if checkpoint is not None else None,
        overrides=overrides,
        preprocess=Path(preprocess) if preprocess is not None else None,
        seed=seed,
    )


def capture(source: Source, *, opset: int | None = None, progress: Progress = quiet) -> CapturedSource:
    """Captures a source and translates it to the canonical graph, whose shifts have no form yet.

    Raises:
        ExportError: torch.export or the translation refuses the module, or the opset is out of range.
        CheckpointError: A weight is NaN or infinite.
    """
    from s2mlp_deploy.export.canonical import DEFAULT_OPSET, check_opset, to_canonical
    from s2mlp_deploy.export.capture import capture as capture_module

    opset = DEFAULT_OPSET if opset is None else opset
    check_opset(opset)
    progress("capturing the model", 0, 2)
    captured = capture_module(
        source.module,
        source.example_inputs,
        input_names=source.input_names,
        output_names=source.output_names,
        dynamic_axes=source.dynamic_axes,
    )
    progress("translating to ONNX", 1, 2)
    canonical = to_canonical(captured, opset=opset)
    progress("translating to ONNX", 2, 2)
    return CapturedSource(source, canonical)


def export(
    source: str | Source | CapturedSource,
    output: str | Path,
    *,
    checkpoint: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    preprocess: str | Path | None = None,
    shift_form: str | None = None,
    opset: int | None = None,
    force: bool = False,
    seed: int = 0,
    progress: Progress = quiet,
) -> Manifest:
    """Exports a source to an artifact: ``model.fp32.onnx``, ``manifest.json`` and ``report.html``.

    Args:
        source: What :func:`load` takes, or what it or :func:`capture` returned.
        output: The directory to write.
        checkpoint: See :func:`load`.
        overrides: See :func:`load`.
        preprocess: See :func:`load`.
        shift_form: How shifts are written: a name of ``s2mlp_deploy.export.forms.FORMS``.
        opset: 18 to 25, default 20.
        force: Replace an artifact that is there.
        seed: Of random weights.
        progress: Told what is being done.

    Returns:
        The manifest as written.

    Raises:
        S2MLPDeployError: What :func:`load` and :func:`capture` raise; OutputError where the directory cannot be
            written or holds an artifact; InputError for an unknown form.
    """
    require_export()
    from s2mlp_deploy.export.canonical import check_opset
    from s2mlp_deploy.export.forms import DEFAULT_FORM, get_form
    from s2mlp_deploy.export.lower import lower_shifts
    from s2mlp_deploy.export.write import GraphFile, tensor_infos, tool_versions, write_artifact
    from s2mlp_deploy.report.html import write_report

    directory = Path(output)
    # Everything that can be refused is refused before minutes are spent.
    form = get_form(shift_form or DEFAULT_FORM)
    if opset is not None:
        check_opset(opset)
    check_output(directory, force=force)
    if isinstance(source, str):
        source = load(source, checkpoint=checkpoint, overrides=overrides, preprocess=preprocess, seed=seed)
    if not isinstance(source, CapturedSource):
        source = capture(source, opset=opset, progress=progress)
    origin = source.source
    progress("writing shifts", 0, None)
    model, lowered = lower_shifts(source.canonical, form)
    manifest = Manifest(
        name=origin.name,
        source=origin.info,
        preprocessing=origin.preprocessing.to_dict() if origin.preprocessing else None,
        classes=origin.classes,
        inputs=tensor_infos(model.graph.inputs),
        outputs=tensor_infos(model.graph.outputs),
        opset=model.opset_imports[""],
        shifts=tuple(
            ShiftRecord(item.where, item.spec.to_dict(), "s2mlp::shift", item.form, item.nodes) for item in lowered
        ),
        tools=tool_versions(__version__),
    )
    progress("writing files", 0, None)
    written = write_artifact(directory, manifest, [GraphFile("model.fp32.onnx", "fp32", model)], force=force)
    write_report(directory)
    return written


def build(
    onnx_file: str | Path,
    *,
    engine: str = "tensorrt-rtx",
    targets: Sequence[str],
    output: str | Path | None = None,
    min_shapes: Mapping[str, Shape] | None = None,
    opt_shapes: Mapping[str, Shape] | None = None,
    max_shapes: Mapping[str, Shape] | None = None,
) -> BuildRecord:
    """Builds an engine file from an ONNX file; no GPU is needed.

    The engine is written beside the ONNX file as ``<stem>.<engine>.<targets>.engine`` unless ``output`` says
    otherwise. In an artifact, the record of the build is saved under ``evidence/``.

    Args:
        onnx_file: The graph.
        engine: ``tensorrt-rtx``.
        targets: Compute capabilities, for example ``["sm89"]``.
        output: Where to write.
        min_shapes: Smallest shape by input; default batch 1.
        opt_shapes: Shape to tune for by input; default batch 8.
        max_shapes: Largest shape by input; default batch 32.

    Raises:
        TargetError: Unknown engine or target.
        MissingDependencyError: The builder is not installed.
        ArtifactError: The file is not ONNX.
        InputError: Shapes are missing or do not fit.
        BuildError: The parser or the builder refuses the graph.
        OutputError: The engine cannot be written.
    """
    from s2mlp_deploy.engines import tensorrt_rtx
    from s2mlp_deploy.engines.registry import check_builder

    check_builder(engine)
    path = Path(onnx_file)
    record = tensorrt_rtx.build(
        path,
        targets=targets,
        output=Path(output) if output is not None else None,
        min_shapes=min_shapes,
        opt_shapes=opt_shapes,
        max_shapes=max_shapes,
    )
    save_evidence(path, f"build-{Path(record.engine).name.removesuffix('.engine')}", record)
    return record


def save_evidence(file: Path, name: str, value: object) -> Path | None:
    """Saves a result under ``evidence/`` of the artifact that ``file`` belongs to and renews its report.

    Returns:
        Where it was saved; None where the file is no part of an artifact.
    """
    directory = file.parent
    if not (directory / MANIFEST).is_file():
        return None
    from s2mlp_deploy.report.html import write_report

    path = directory / EVIDENCE / f"{name}.json"
    write_file(path, to_json(value))
    write_report(directory)
    return path


Batches = Iterator[tuple[dict[str, NDArray[Any]], NDArray[np.int64] | None]]


def parity(
    source: str | Source,
    files: Sequence[str | Path],
    *,
    checkpoint: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    preprocess: str | Path | None = None,
    data: str | Path | None = None,
    samples: int | None = None,
    batch: int = 8,
    tolerances: Tolerances | None = None,
    provider: str = "CPUExecutionProvider",
    seed: int = 0,
    progress: Progress = quiet,
) -> tuple[ParityReport, ...]:
    """Compares ONNX files with the PyTorch module they come from.

    The reference runs once for all files. Reports are saved under ``evidence/`` of each file's artifact.

    Args:
        source: What :func:`load` takes or returned.
        files: ONNX files to compare.
        checkpoint: See :func:`load`.
        overrides: See :func:`load`.
        preprocess: See :func:`load`.
        data: A folder of images, flat or with one folder per class; without it the inputs are seeded noise.
        samples: At most this many images (default: all; without data 16).
        batch: Images per run.
        tolerances: Limits; default by the file's precision.
        provider: ONNX Runtime's execution provider.
        seed: Of random weights, of noise and of the choice of samples.
        progress: Told how many images are done.

    Returns:
        A report per file; ``report.passed`` is the verdict.

    Raises:
        InputError: Files or data cannot be used (its subclasses say what).
    """
    from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine

    if not files:
        raise InputError("no files to compare", fix="name at least one .onnx file")
    if batch < 1 or (samples is not None and samples < 1):
        raise InputError("batch and samples must be at least 1")
    paths = [Path(file) for file in files]
    for path in paths:
        if not path.is_file():
            raise ArtifactError("no such ONNX file", where=str(path), fix="check the path")
    candidates = {str(path): OnnxRuntimeEngine(path, provider=provider) for path in paths}
    if isinstance(source, str):
        source = load(source, checkpoint=checkpoint, overrides=overrides, preprocess=preprocess, seed=seed)

    from s2mlp_deploy.engines.torch import TorchEngine
    from s2mlp_deploy.export.capture import check_finite_weights
    from s2mlp_deploy.parity.compare import TOLERANCES, ParityReport, compare, judge

    check_finite_weights(source.module)
    first = next(iter(candidates.values()))
    reference = TorchEngine(source.module, first.inputs, first.outputs)
    batches, described, total = _parity_inputs(source, data, samples, batch, seed)
    done = 0

    def on_batch(size: int) -> None:
        nonlocal done
        done += size
        progress("comparing", done, total)

    progress("comparing", 0, total)
    images, figures = compare(reference, candidates, batches, on_batch=on_batch)
    reports = []
    for path in paths:
        precision = _precision(path)
        limits = tolerances or TOLERANCES.get(precision, TOLERANCES["fp32"])
        report = judge(
            ParityReport(
                reference=f"torch, {source.info.reference}",
                candidate=candidates[str(path)].name,
                file=path.name,
                precision=precision,
                data=described,
                images=images,
                outputs=figures[str(path)],
                tolerances=limits,
            ),
            limits,
        )
        save_evidence(path, f"parity-{path.stem}", report)
        reports.append(report)
    return tuple(reports)


def _precision(path: Path) -> str:
    """The precision in an artifact's file name, ``model.<precision>.onnx``; fp32 for foreign files."""
    parts = path.name.split(".")
    return parts[1] if len(parts) == 3 else "fp32"


def _parity_inputs(
    source: Source, data: str | Path | None, samples: int | None, batch: int, seed: int
) -> tuple[Batches, str, int]:
    """Batches of inputs, what they are in words, and how many images there will be."""
    name, shape = source.input_names[0], tuple(source.example_inputs[0].shape[1:])
    if data is None:
        count = samples or PARITY_SAMPLES
        generator = np.random.default_rng(seed)
        sizes = [min(batch, count - start) for start in range(0, count, batch)]
        noise = (({name: generator.standard_normal((size, *shape), dtype=np.float32)}, None) for size in sizes)
        return noise, f"{count} images of seeded Gaussian noise (seed {seed})", count
    if source.preprocessing is None:
        raise PreprocessingError(
            "nobody said how an image becomes this model's input",
            fix="--preprocess FILE.json with size, mean and std",
        )
    from s2mlp_deploy.calibration.images import batches, collect

    collection = collect(Path(data), classes=source.classes, limit=samples, seed=seed)
    described = f"{len(collection)} images of {Path(data).name}"
    stream = batches(collection, source.preprocessing, batch, on_broken="raise")
    return (({name: item.array}, item.labels) for item in stream), described, len(collection)


def predict(
    directory: str | Path,
    images: Sequence[str | Path],
    *,
    precision: str = "fp32",
    top: int = 5,
    provider: str = "CPUExecutionProvider",
) -> list[Prediction]:
    """Classifies image files with an artifact; see :class:`~s2mlp_deploy.serving.predictor.Predictor`.

    Raises:
        DataError: No images were named.
        ArtifactError: The artifact is damaged, or has no such file or no preprocessing.
        ImageError: A file is no picture.
    """
    from s2mlp_deploy.serving.predictor import Predictor

    if not images:
        raise DataError("no images to classify", fix="name at least one image file")
    return Predictor(directory, precision=precision, provider=provider).predict(images, top=top)
