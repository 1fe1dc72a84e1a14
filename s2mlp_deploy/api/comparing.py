"""Parity: an artifact's files against the module they come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from torch import nn

from s2mlp_deploy.api.capturing import CapturedSource, analyze
from s2mlp_deploy.api.checking import refuse_late_options
from s2mlp_deploy.api.evidence import save_evidence
from s2mlp_deploy.api.opening import open_file
from s2mlp_deploy.api.sources import load
from s2mlp_deploy.artifact import METADATA_KEY, TensorInfo
from s2mlp_deploy.capture.checks import check_weights
from s2mlp_deploy.capture.hazards import evaluating
from s2mlp_deploy.data.dataset import ModelData, open_data
from s2mlp_deploy.data.noise import NOISE_SAMPLES, NoiseBatches
from s2mlp_deploy.engines.base import Engine
from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
from s2mlp_deploy.engines.tensorrt.runtime import TensorRTEngine
from s2mlp_deploy.engines.torch import TorchEngine
from s2mlp_deploy.errors import ArtifactError, InputError, PreprocessingError
from s2mlp_deploy.evidence.parity import ParityReport, Tolerances
from s2mlp_deploy.files import sha256_of
from s2mlp_deploy.models.registry import MODELS
from s2mlp_deploy.parity.compare import compare
from s2mlp_deploy.parity.matching import match_names
from s2mlp_deploy.parity.pixels import OnPixels, image_input, preprocessed_input
from s2mlp_deploy.parity.tolerances import Limit, apply_tolerances, default_tolerances, tolerances_by_output
from s2mlp_deploy.progress import ProgressCallback, no_progress
from s2mlp_deploy.sources.isolation import importing_from
from s2mlp_deploy.sources.source import Source

_EAGER = "eager"
_SAME_MODEL = "compare with the source, checkpoint and settings that the file was exported from"
Session = OnnxRuntimeEngine | TensorRTEngine


def parity(
    source: str | Source | CapturedSource,
    files: Sequence[str | Path],
    *,
    checkpoint: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    preprocess: str | Path | None = None,
    data: str | Path | Iterable[Any] | None = None,
    samples: int | None = None,
    batch: int = 8,
    tolerances: Tolerances | None = None,
    atol: Limit = None,
    rtol: Limit = None,
    provider: str = "CPUExecutionProvider",
    seed: int = 0,
    progress: ProgressCallback = no_progress,
) -> tuple[ParityReport, ...]:
    """Compares ONNX or engine files with the PyTorch module they come from.

    The reference runs once for all files. Where the module's code races, the reference is its functional meaning, and
    the eager run is reported beside it, never compared with. Reports are saved under ``evidence/`` of each file's
    artifact.

    Inputs and outputs of a file are those of the module with the same names; where the names differ, their order
    counts.

    A file that was exported with its preprocessing is compared from the pixels on: it gets decoded images, the
    reference what Python's preprocessing makes of them. That needs ``data``, and then holds for every file of the call.

    Args:
        source: What :func:`~s2mlp_deploy.api.load` takes, or what it or :func:`~s2mlp_deploy.api.capture` returned.
        files: ONNX files to compare; engine files where their GPU is.
        checkpoint: See :func:`~s2mlp_deploy.api.load`.
        overrides: See there.
        preprocess: See there.
        data: What :func:`~s2mlp_deploy.data.dataset.open_data` takes: images in a folder or archive, arrays, or
            something to iterate over; without it the inputs are seeded noise.
        samples: At most this many images (default: all; without data 16).
        batch: Images per run; a file with a fixed batch runs with that.
        tolerances: Limits for every file; default by the precision that a file says it has, and wider where it
            preprocesses.
        atol: Allowed absolute difference in place of the tolerances': a number, or numbers by the output's name, where
            ``""`` stands for all others.
        rtol: Allowed difference as a share of the reference's peak, in the same way.
        provider: ONNX Runtime's execution provider.
        seed: Of random weights where ``source`` is a name, of noise, and of the choice of samples.
        progress: Told how many images are done.

    Returns:
        A report per file; ``report.passed`` is the verdict.

    Raises:
        InputError: Files, data or limits cannot be used, an input or output has no counterpart, or an option is given
            that a loaded source cannot honour (its subclasses say what).
    """
    _check_options(source, files, batch, samples, checkpoint=checkpoint, overrides=overrides, preprocess=preprocess)
    paths = [Path(file) for file in files]
    for path in paths:
        if not path.is_file():
            raise ArtifactError("no such file", where=str(path), fix="check the path")
    sessions: dict[str, Session] = {str(path): open_file(path, provider=provider, batch=batch) for path in paths}
    first, outputs = str(paths[0]), [info.name for info in sessions[str(paths[0])].outputs]
    descriptions = {key: _description(session) for key, session in sessions.items()}
    on_pixels = [key for key in sessions if descriptions[key].get("preprocessing_in_graph") is True]
    limits: dict[str, dict[str, Tolerances]] = {}
    for key in sessions:
        base = tolerances or default_tolerances(_precision(descriptions[key]), on_pixels=key in on_pixels)
        limits[key] = tolerances_by_output(outputs, base, atol=atol, rtol=rtol)
    if isinstance(source, str):
        source = load(source, checkpoint=checkpoint, overrides=overrides, preprocess=preprocess, seed=seed)
    origin = source.source if isinstance(source, CapturedSource) else source
    if on_pixels and origin.preprocessing is None:
        raise PreprocessingError(
            "the file preprocesses its images, and no preprocessing is configured for the model it is compared with",
            where=", ".join(sorted(on_pixels)),
            fix="--preprocess FILE.json, or the checkpoint, that the file was exported with",
        )
    if on_pixels and data is None:
        raise InputError(
            "a file that preprocesses its images can only be compared on images",
            where=", ".join(sorted(on_pixels)),
            fix="--data PATH: images, in a folder or an archive",
        )
    reference, eager = _references(source, first, sessions[first], on_pixels=bool(on_pixels))
    engines: dict[str, Engine] = {**sessions} | ({_EAGER: eager} if eager is not None else {})
    fed = reference.inputs
    if on_pixels and origin.preprocessing is not None:
        fed = (image_input([sessions[key].inputs[0] for key in on_pixels]),)
        reference = OnPixels(reference, origin.preprocessing)
        engines = {
            key: engine if key in on_pixels else OnPixels(engine, origin.preprocessing)
            for key, engine in engines.items()
        }
    inputs = _inputs(origin, fed, data, samples, batch, seed, progress)
    done = 0

    def on_batch(size: int) -> None:
        nonlocal done
        done += size
        progress("comparing", done, inputs.count)

    progress("comparing", 0, inputs.count)
    with importing_from(origin.folder), _evaluating(origin.module):
        images, figures = compare(reference, engines, inputs, on_batch=on_batch)
    reports = []
    for path in paths:
        report = ParityReport(
            reference=f"{reference.name}, {origin.info.reference}",
            candidate=engines[str(path)].name,
            file=path.name,
            precision=_precision(descriptions[str(path)]),
            data=inputs.described,
            images=images,
            outputs=figures[str(path)],
            file_sha256=sha256_of(path),
            eager=figures.get(_EAGER, ()),
        )
        reports.append(apply_tolerances(report, limits[str(path)]))
        save_evidence(path.parent, reports[-1], label=path.stem)
    return tuple(reports)


def _check_options(
    source: str | Source | CapturedSource,
    files: Sequence[str | Path],
    batch: int,
    samples: int | None,
    **loading: object,
) -> None:
    if not files:
        raise InputError("no files to compare", fix="name at least one .onnx file")
    if batch < 1 or (samples is not None and samples < 1):
        raise InputError(
            "batch and samples must be at least 1", where=f"batch {batch}, samples {samples}", fix="give larger numbers"
        )
    refuse_late_options(source, loading=loading, capturing={})


def _description(session: Session) -> Mapping[str, Any]:
    """What a file says of itself: its metadata entry, or what the engine's sidecar keeps of that."""
    try:
        described = msgspec.json.decode(session.metadata.get(METADATA_KEY, "{}"))
    except msgspec.DecodeError:
        return {}
    return described if isinstance(described, dict) else {}


def _precision(description: Mapping[str, Any]) -> str:
    """``fp32`` for a file that does not say its precision."""
    precision = description.get("precision")
    return precision if isinstance(precision, str) else "fp32"


def _evaluating(module: object) -> AbstractContextManager[None]:
    """Evaluation mode for a while; a finished program has no modes."""
    return evaluating(module) if isinstance(module, nn.Module) else nullcontext()


def _references(
    source: Source | CapturedSource, file: str, session: Session, *, on_pixels: bool
) -> tuple[Engine, Engine | None]:
    """What is right, and the eager module where that is another thing.

    Args:
        source: The module.
        file: The file whose names the reference takes.
        session: That file.
        on_pixels: Whether files preprocess: the module's input is then what Python's preprocessing makes.
    """
    origin = source.source if isinstance(source, CapturedSource) else source
    module = origin.module
    if isinstance(module, nn.Module) and origin.info.reference in MODELS:
        # The zoo's shift is one operator that never writes into its input: nothing to watch for.
        check_weights(module)
        inputs, outputs = _interface(origin, origin.input_names, origin.output_names, file, session, on_pixels)
        return TorchEngine(module, origin.example_inputs, inputs, outputs), None
    known = source.analysis if isinstance(source, CapturedSource) else analyze(origin)
    names = known.captured.input_names, known.captured.output_names
    inputs, outputs = _interface(origin, *names, file, session, on_pixels)
    functional = TorchEngine(
        known.functional(), origin.example_inputs, inputs, outputs, name="torch (functional meaning)"
    )
    if not isinstance(module, nn.Module):
        return functional, None
    eager = TorchEngine(module, origin.example_inputs, inputs, outputs)
    return (functional, eager) if known.races else (eager, None)


def _interface(
    source: Source,
    input_names: Sequence[str] | None,
    output_names: Sequence[str] | None,
    file: str,
    session: Session,
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


def _inputs(
    source: Source,
    inputs: Sequence[TensorInfo],
    data: str | Path | Iterable[Any] | None,
    samples: int | None,
    batch: int,
    seed: int,
    progress: ProgressCallback,
) -> ModelData | NoiseBatches:
    if data is None:
        examples = [tensor.numpy() for tensor in source.example_tensors]
        return NoiseBatches(inputs, examples, samples=samples or NOISE_SAMPLES, batch=batch, seed=seed)
    return open_data(
        data,
        inputs=tuple(inputs),
        preprocessing=source.preprocessing,
        classes=source.classes,
        samples=samples,
        seed=seed,
        batch=batch,
        minimum=1,
        on_broken="raise",
        progress=progress,
    )
