"""Parity: an artifact's files against the module they come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import onnx_ir as ir

from s2mlp_deploy.api.artifacts import Known, find_checkpoint, is_same_source, known_of
from s2mlp_deploy.api.capturing import CapturedSource
from s2mlp_deploy.api.checking import check_same_inputs, refuse_late_options
from s2mlp_deploy.api.evidence import save_evidence
from s2mlp_deploy.api.judging import Judging
from s2mlp_deploy.api.opening import is_engine, open_file
from s2mlp_deploy.api.references import Session, evaluation, references_of
from s2mlp_deploy.api.refusals import check_data, check_parity
from s2mlp_deploy.artifact import (
    MANIFEST,
    METADATA_KEY,
    ShiftRecord,
    SourceInfo,
    TensorInfo,
    current_fields,
    fitting_batch,
    model_file,
    read_description,
    read_manifest,
    verify_file,
)
from s2mlp_deploy.data.dataset import ModelData, open_data
from s2mlp_deploy.data.noise import NOISE_SAMPLES, NoiseBatches
from s2mlp_deploy.engines.base import Engine
from s2mlp_deploy.errors import ArtifactError, CheckpointError, InputError, PreprocessingError, ShiftError
from s2mlp_deploy.evidence.calibration import CalibrationReport
from s2mlp_deploy.evidence.machine import environment_here
from s2mlp_deploy.evidence.parity import GraphProof, ParityReport, Tolerances, Weights
from s2mlp_deploy.evidence.store import read_record
from s2mlp_deploy.files import sha256_of
from s2mlp_deploy.graph.loading import load_graph
from s2mlp_deploy.parity.compare import compare
from s2mlp_deploy.parity.pixels import OnPixels, image_input, seeded_images
from s2mlp_deploy.parity.probes import Tried, probes, try_probes
from s2mlp_deploy.parity.proof import precision_of, prove
from s2mlp_deploy.parity.tolerances import Limit, apply_tolerances
from s2mlp_deploy.progress import ProgressCallback, no_progress
from s2mlp_deploy.report.verdict import comparable, parity_command
from s2mlp_deploy.shift.spec import ShiftSpec
from s2mlp_deploy.sources.isolation import importing_from
from s2mlp_deploy.sources.load import load_source
from s2mlp_deploy.sources.source import Source
from s2mlp_deploy.text import first_line_of

_EAGER = "eager"


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
    seed: int | None = None,
    progress: ProgressCallback = no_progress,
) -> tuple[ParityReport, ...]:
    """Compares ONNX or engine files with the PyTorch module they come from.

    The reference runs once for all files. Where the module's code races, the reference is its functional meaning, and
    the eager run is reported beside it, never compared with. Reports are saved under ``evidence/`` of each file's
    artifact.

    Inputs and outputs of a file are those of the module with the same names; where the names differ, their order
    counts.

    A file that was exported with its preprocessing is compared from the pixels on: it gets decoded images, the
    reference what Python's preprocessing makes of them; that then holds for every file of the call.

    What an artifact knows need not be given: preprocessing and class names, and, where ``source`` is what it was
    exported from, its checkpoint (found again by name and hash), overrides and seed.

    Args:
        source: What :func:`~s2mlp_deploy.api.load` takes, or what it or :func:`~s2mlp_deploy.api.capture` returned.
        files: ONNX files to compare, artifacts for all of theirs; engine files where their GPU is.
        checkpoint: See :func:`~s2mlp_deploy.api.load`.
        overrides: See there.
        preprocess: See there.
        data: What :func:`~s2mlp_deploy.data.dataset.open_data` takes: images in a folder or archive, arrays, or
            something to iterate over; without it the inputs are seeded noise, or images of it.
        samples: At most this many images (default: all; without data 16).
        batch: Images per run; a file with a fixed batch runs with that.
        tolerances: Limits for every file; default what a file's own making measured of it
            (:mod:`s2mlp_deploy.parity.own_limits`), and where that is not known by its precision, wider where it
            preprocesses.
        atol: Allowed absolute difference in place of the tolerances': a number, or numbers by the output's name, where
            ``""`` stands for all others.
        rtol: Allowed difference as a share of the reference's peak, in the same way.
        provider: ONNX Runtime's execution provider.
        seed: Of random weights where ``source`` is a name, of noise, and of the choice of samples; default: the
            artifact's, or 0.
        progress: Told how many images are done.

    Returns:
        A report per file; ``report.passed`` is the verdict.

    Raises:
        InputError: Files, data or limits cannot be used, an input or output has no counterpart, or an option is given
            that a loaded source cannot honour (its subclasses say what).
    """
    _check_options(source, files, batch, samples, checkpoint=checkpoint, overrides=overrides, preprocess=preprocess)
    check_data(data, minimum=1)
    paths = [path for file in files for path in _files_of(Path(file))]
    for path in paths:
        if not path.is_file():
            raise ArtifactError("no such file", where=str(path), fix="check the path")
    # Before anything is loaded: evidence must be of the very bytes that were measured.
    hashes = {path: sha256_of(path) for path in paths}
    weights, known = None if checkpoint is None else Path(checkpoint), Known()
    if isinstance(source, str):
        known = known_of(source, paths, checkpoint=weights)
        weights = known.checkpoint or weights
    seed = (known.seed or 0) if seed is None else seed
    sessions: dict[str, Session] = {str(path): open_file(path, provider=provider, batch=batch) for path in paths}
    first, outputs = str(paths[0]), [info.name for info in sessions[str(paths[0])].outputs]
    descriptions = {
        key: read_description(session.metadata.get(METADATA_KEY), Path(key)) for key, session in sessions.items()
    }
    graphs = {str(path): load_graph(path, valid=False).model.graph for path in paths if not is_engine(path)}
    precisions = {key: precision_of(graphs.get(key), descriptions[key].get("precision")) for key in sessions}
    on_pixels = [key for key in sessions if descriptions[key].get("preprocessing_in_graph") is True]
    judging = Judging(outputs, tolerances, atol, rtol)
    limits = {key: judging.general(precisions[key], on_pixels=key in on_pixels) for key in sessions}
    named = source if isinstance(source, str) else ""
    if isinstance(source, str):
        progress("loading the model", 0, None)
        source = load_source(
            source,
            checkpoint=weights,
            overrides=known.overrides | dict(overrides or {}),
            preprocess=None if preprocess is None else Path(preprocess),
            described=known.description,
            seed=seed,
        )
    origin = source.source if isinstance(source, CapturedSource) else source
    named = named or origin.info.reference
    for path in paths:
        _check_weights(origin, path, named)
    if on_pixels and origin.preprocessing is None:
        raise PreprocessingError(
            "the file preprocesses its images, and no preprocessing is configured for the model it is compared with",
            where=", ".join(sorted(on_pixels)),
            fix="--preprocess FILE.json, or the checkpoint, that the file was exported with",
        )
    if not on_pixels:
        check_same_inputs(origin, first, sessions[first].inputs)
    sizes = tuple(limit for session in sessions.values() for limit in session.limits)
    size, whole = fitting_batch(sizes, batch)
    made = None
    if on_pixels and data is None and origin.preprocessing is not None:
        data = made = seeded_images(origin.preprocessing, samples or NOISE_SAMPLES, seed)
    opened: ModelData | NoiseBatches | None = None
    if data is not None:  # Opened before the source is captured, which takes long; a file's inputs tell as much.
        taken = (image_input([sessions[key].inputs[0] for key in on_pixels]),) if on_pixels else None
        opened = _opened(origin, taken or _single(sessions[first].inputs), data, samples, size, whole, seed, progress)
    references = references_of(source, first, sessions[first], on_pixels=bool(on_pixels), progress=progress)
    reference = references.engine
    progress("reading shifts", 0, None)
    proofs = {
        str(path): _proof(path, graphs[str(path)], descriptions[str(path)], origin, references.shifts)
        for path in paths
        if str(path) in graphs
    }
    engines: dict[str, Engine] = {**sessions} | ({_EAGER: references.eager} if references.eager is not None else {})
    fed = reference.inputs
    if on_pixels and origin.preprocessing is not None:
        fed = (image_input([sessions[key].inputs[0] for key in on_pixels]),)
        reference = OnPixels(reference, origin.preprocessing)
        engines = {
            key: engine if key in on_pixels else OnPixels(engine, origin.preprocessing)
            for key, engine in engines.items()
        }
    examples = [tensor.numpy() for tensor in origin.example_tensors]
    inputs = opened
    if inputs is None:
        count = samples or NOISE_SAMPLES
        inputs = NoiseBatches(fed, examples, samples=count, batch=size, whole=whole, seed=seed)
    if made is not None:
        inputs.described = f"{inputs.count} seeded images of noise (seed {seed})"
    done = 0

    def on_batch(size: int) -> None:
        nonlocal done
        done += size
        progress("comparing", done, inputs.count)

    progress("comparing", 0, inputs.count)
    with importing_from(origin.folder), evaluation(origin.module):
        measured = compare(reference, engines, inputs, on_batch=on_batch)
        tried = {key: Tried((), ()) for key in sessions}
        if not on_pixels:
            progress("trying other inputs", 0, None)
            tried = try_probes(
                reference,
                sessions,
                {key: limits[key] for key in sessions if precisions[key] in ("fp32", "fp16")},
                probes(fed, examples, sizes, seed),
                float32=[key for key in sessions if precisions[key] == "fp32"],
            )
    # Engines are loaded by now, so that their versions are known.
    environment, noise = environment_here(), isinstance(inputs, NoiseBatches)
    data_sha256 = "" if isinstance(inputs, NoiseBatches) else inputs.content_hash
    reports = []
    for path in paths:
        key = str(path)
        if sha256_of(path) != hashes[path]:
            raise ArtifactError("the file was replaced while it was compared", where=key, fix="compare again")
        allowed, basis = judging.of_file(
            path,
            hashes[path],
            precisions[key],
            on_pixels=key in on_pixels,
            images=measured.images,
            on_noise=noise,
        )
        report = ParityReport(
            reference=f"{reference.name}, {origin.info.reference}",
            candidate=engines[key].name,
            file=path.name,
            precision=precisions[key],
            data=inputs.described,
            images=measured.images,
            outputs=measured.figures[key],
            file_sha256=hashes[path],
            eager=measured.figures.get(_EAGER, ()),
            proof=proofs.get(key),
            tried=tried[key].names,
            notes=measured.notes,
            noise=noise,
            data_sha256=data_sha256,
            weights=Weights.of(origin.info),
            environment=environment,
            limits=basis,
        )
        report = apply_tolerances(report, allowed)
        reports.append(replace(report, failures=(*report.failures, *tried[key].failures)))
        save_evidence(path.parent, reports[-1], label=reports[-1].label)
    return tuple(reports)


def _files_of(path: Path) -> list[Path]:
    """A file, or the files of an artifact."""
    if not path.is_dir():
        return [path]
    return [path / name for name in comparable(read_manifest(path))]


def _check_weights(origin: Source, path: Path, named: str) -> None:
    """Refuses to compare an artifact's file with the same model under other weights, which proves nothing of it.

    Args:
        origin: The model.
        path: The file.
        named: How the user named the model.

    Raises:
        InputError: The manifest names other weights; has the command that compares with them.
    """
    if not (path.parent / MANIFEST).is_file():
        return
    manifest = read_manifest(path.parent)
    told, given = manifest.source, origin.info
    own = path.name in {record.path for record in manifest.files}
    if not own or not is_same_source(told.reference, given.reference):
        return
    if told.checkpoint_sha256 == given.checkpoint_sha256 and (told.checkpoint_sha256 or told.seed == given.seed):
        return

    def weights(info: SourceInfo) -> str:
        return f"those of {info.checkpoint}" if info.checkpoint else f"random ones (seed {info.seed or 0})"

    # The artifact's own weights are taken where none are named.
    fix: str | None = parity_command(
        manifest, str(path.parent), [path.name], source=replace(told, reference=named, checkpoint=None)
    )
    if told.checkpoint:
        try:
            find_checkpoint(told, path.parent, named)
        except CheckpointError as error:
            fix = error.fix
    raise InputError(
        f"the file was exported with other weights, {weights(told)}, than the model has here, {weights(given)}",
        where=str(path),
        fix=fix,
    )


def _proof(
    path: Path, graph: ir.Graph, description: Mapping[str, Any], origin: Source, shifts: Sequence[ShiftSpec]
) -> GraphProof:
    """What is read off a file: its own description, the float32 file beside it and the saved calibration help."""
    try:
        told = msgspec.convert(current_fields(dict(description)).get("shifts", ()), tuple[ShiftRecord, ...])
    except (msgspec.ValidationError, KeyError, TypeError, ShiftError) as error:
        return GraphProof(0, failures=(f"what the file says of its shifts is damaged: {first_line_of(error)}",))
    if not description:
        if not shifts:
            return GraphProof(0)
        return GraphProof(0, unread="the file does not say what its shifts are: it was not exported by this package")
    float32, calibration = None, None
    if description.get("precision") != "fp32" and (path.parent / MANIFEST).is_file():
        manifest = read_manifest(path.parent)
        record = next((item for item in manifest.files if item.path == model_file("fp32")), None)
        if record is not None and path.name in {item.path for item in manifest.files}:
            float32 = verify_file(path.parent, record)
        if manifest.calibration is not None and path.name in manifest.calibration.files:
            saved = read_record(path.parent, CalibrationReport)
            calibration = saved if saved is not None and saved.calibration == manifest.calibration else None
    return prove(graph, told, shifts, module=origin.module, float32=float32, calibration=calibration)


def _check_options(
    source: str | Source | CapturedSource,
    files: Sequence[str | Path],
    batch: int,
    samples: int | None,
    **loading: object,
) -> None:
    check_parity(files)
    if batch < 1 or (samples is not None and samples < 1):
        raise InputError(
            "batch and samples must be at least 1", where=f"batch {batch}, samples {samples}", fix="give larger numbers"
        )
    refuse_late_options(source, loading=loading, capturing={})


def _opened(
    source: Source,
    inputs: Sequence[TensorInfo],
    data: str | Path | Iterable[Any],
    samples: int | None,
    batch: int,
    whole: bool,
    seed: int,
    progress: ProgressCallback,
) -> ModelData:
    return open_data(
        data,
        inputs=tuple(inputs),
        preprocessing=source.preprocessing,
        classes=source.classes,
        samples=samples,
        seed=seed,
        batch=batch,
        whole=whole,
        minimum=1,
        on_broken="raise",
        progress=progress,
    )


def _single(inputs: Sequence[TensorInfo]) -> tuple[TensorInfo, ...]:
    """A file's inputs as its source takes them: in float32 where they are float16."""
    return tuple(replace(info, dtype="float32") if info.dtype == "float16" else info for info in inputs)
