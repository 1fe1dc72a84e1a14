"""What every comparison of files with their module needs first: files, module, reference and inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from s2mlp_deploy.api.artifacts import Known, find_checkpoint, is_same_source, known_of
from s2mlp_deploy.api.capturing import CapturedSource
from s2mlp_deploy.api.checking import check_same_inputs, refuse_late_options
from s2mlp_deploy.api.judging import Judging
from s2mlp_deploy.api.opening import is_engine, open_file
from s2mlp_deploy.api.prepared import Prepared, files_of, single_precision
from s2mlp_deploy.api.references import references_of
from s2mlp_deploy.api.refusals import check_data, check_parity
from s2mlp_deploy.artifact import (
    MANIFEST,
    METADATA_KEY,
    SourceInfo,
    TensorInfo,
    fitting_batch,
    read_description,
    read_manifest,
)
from s2mlp_deploy.data.dataset import ModelData, open_data
from s2mlp_deploy.data.noise import NOISE_SAMPLES, NoiseBatches
from s2mlp_deploy.engines.base import Engine, FileEngine
from s2mlp_deploy.errors import ArtifactError, CheckpointError, InputError, PreprocessingError
from s2mlp_deploy.evidence.parity import Tolerances
from s2mlp_deploy.files import sha256_of
from s2mlp_deploy.graph.loading import load_graph
from s2mlp_deploy.parity.pixels import OnPixels, image_input, seeded_images
from s2mlp_deploy.parity.precisions import precision_of
from s2mlp_deploy.parity.tolerances import Limit
from s2mlp_deploy.progress import ProgressCallback
from s2mlp_deploy.report.verdict import parity_command
from s2mlp_deploy.sources.load import load_source
from s2mlp_deploy.sources.source import Source


def prepare(
    source: str | Source | CapturedSource,
    files: Sequence[str | Path],
    *,
    checkpoint: str | Path | None,
    overrides: Mapping[str, Any] | None,
    preprocess: str | Path | None,
    data: str | Path | Iterable[Any] | None,
    samples: int | None,
    batch: int,
    tolerances: Tolerances | None,
    atol: Limit,
    rtol: Limit,
    engine: str,
    seed: int | None,
    progress: ProgressCallback,
    functional: bool = False,
) -> Prepared:
    """Opens files, module, reference and data; refuses early what cannot be compared.

    The arguments are those of :func:`~s2mlp_deploy.api.parity`, and ``functional``: whether the reference is to be the
    module's functional meaning in any case.
    """
    _check_options(source, files, batch, samples, checkpoint=checkpoint, overrides=overrides, preprocess=preprocess)
    check_data(data, minimum=1)
    paths = [path for file in files for path in files_of(Path(file))]
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
    sessions: dict[str, FileEngine] = {str(path): open_file(path, engine=engine, batch=batch) for path in paths}
    first, outputs = str(paths[0]), [info.name for info in sessions[str(paths[0])].outputs]
    descriptions = {
        key: read_description(session.metadata.get(METADATA_KEY), Path(key)) for key, session in sessions.items()
    }
    graphs = {str(path): load_graph(path, valid=False).model for path in paths if not is_engine(path)}
    precisions = {
        key: precision_of(graphs[key].graph if key in graphs else None, descriptions[key].get("precision"))
        for key in sessions
    }
    on_pixels = [key for key in sessions if descriptions[key].get("preprocessing_in_graph") is True]
    judging = Judging(outputs, tolerances, atol, rtol)
    judging.general("fp32", on_pixels=False)  # Limits that cannot be are refused before the model is loaded.
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
        opened = _opened(
            origin, taken or single_precision(sessions[first].inputs), data, samples, size, whole, seed, progress
        )
    references = references_of(
        source, first, sessions[first], on_pixels=bool(on_pixels), functional=functional, progress=progress
    )
    reference: Engine = references.engine
    fed = reference.inputs
    if on_pixels and origin.preprocessing is not None:
        fed = (image_input([sessions[key].inputs[0] for key in on_pixels]),)
        reference = OnPixels(reference, origin.preprocessing)
    examples = tuple(tensor.numpy() for tensor in origin.example_tensors)
    inputs = opened
    if inputs is None:
        count = samples or NOISE_SAMPLES
        inputs = NoiseBatches(fed, examples, samples=count, batch=size, whole=whole, seed=seed)
    if made is not None:
        inputs.described = f"{inputs.count} seeded images of noise (seed {seed})"
    return Prepared(
        origin,
        tuple(paths),
        hashes,
        sessions,
        descriptions,
        graphs,
        precisions,
        tuple(on_pixels),
        judging,
        sizes,
        whole,
        references,
        reference,
        tuple(fed),
        examples,
        inputs,
        seed,
        origin.preprocessing,
    )


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
