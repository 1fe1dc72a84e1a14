"""Parity with an ONNX file as the reference: outputs and layers of other files against it.

Never imports torch, but where the smears of files were repaired (:mod:`.repaired`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from s2mlp_deploy.api.artifacts import known_of
from s2mlp_deploy.api.bisecting import as_computed
from s2mlp_deploy.api.evidence import save_evidence
from s2mlp_deploy.api.judging import Judging
from s2mlp_deploy.api.layer_reports import refuse_engines, run_layers
from s2mlp_deploy.api.opening import is_engine, open_file
from s2mlp_deploy.api.prepared import Prepared, files_of, single_precision, with_fixed_sizes
from s2mlp_deploy.api.refusals import check_parity
from s2mlp_deploy.api.saved_layers import check_place
from s2mlp_deploy.artifact import METADATA_KEY, TensorInfo, fitting_batch, read_description
from s2mlp_deploy.choices import GRAPH_ENGINE
from s2mlp_deploy.data.dataset import ModelData, open_data
from s2mlp_deploy.data.noise import NOISE_SAMPLES, NoiseBatches
from s2mlp_deploy.engines.base import Arrays, Engine, FileEngine
from s2mlp_deploy.errors import ArtifactError, InputError
from s2mlp_deploy.evidence.layers import LayersReport
from s2mlp_deploy.evidence.machine import environment_here
from s2mlp_deploy.evidence.parity import ParityReport, Tolerances, Weights
from s2mlp_deploy.files import sha256_of
from s2mlp_deploy.graph.loading import load_graph
from s2mlp_deploy.graph.modules import name_nodes_after_scopes
from s2mlp_deploy.parity.compare import compare
from s2mlp_deploy.parity.graph_taps import TappedGraph
from s2mlp_deploy.parity.layers import MEMORY
from s2mlp_deploy.parity.matching import match_names
from s2mlp_deploy.parity.pixels import image_input, seeded_images
from s2mlp_deploy.parity.precisions import precision_of
from s2mlp_deploy.parity.probes import Tried, probes, try_probes
from s2mlp_deploy.parity.tolerances import Limit, apply_tolerances
from s2mlp_deploy.preprocess import Preprocessing, load_sidecar
from s2mlp_deploy.progress import ProgressCallback, no_progress
from s2mlp_deploy.text import join_names

_SAME = "compare files of one network"
_ORIGINAL = "the reference as it is"
_REPAIRED = " with its smears repaired"


def parity_against_file(
    reference: str | Path,
    files: Sequence[str | Path],
    *,
    preprocess: str | Path | None = None,
    data: str | Path | Iterable[Any] | None = None,
    samples: int | None = None,
    batch: int = 8,
    tolerances: Tolerances | None = None,
    atol: Limit = None,
    rtol: Limit = None,
    engine: str = GRAPH_ENGINE,
    seed: int | None = None,
    progress: ProgressCallback = no_progress,
) -> tuple[ParityReport, ...]:
    """Compares ONNX or engine files with another ONNX file, which is right; needs no torch.

    Files whose smears were repaired (``export --repair-smear``) compute something else than their source by design:
    they are compared with the source whose smears are repaired too, for which torch is needed, and the reports say so
    and how far the source itself is from that.

    Args:
        reference: The ONNX file that is right.
        files: What is compared with it, as for :func:`~s2mlp_deploy.api.parity`.
        preprocess: See there; without it what an artifact of the files, or the file itself, says.
        data: See there, as for the rest.
        samples: See there.
        batch: See there.
        tolerances: See there.
        atol: See there.
        rtol: See there.
        engine: See there; of the compared files, the reference runs on ONNX Runtime's CPU.
        seed: See there.
        progress: See there.

    Raises:
        InputError: The files have other inputs or outputs than the reference, or as for
            :func:`~s2mlp_deploy.api.parity`.
    """
    given = _Given(reference, files, preprocess, data, samples, batch, tolerances, atol, rtol, engine, seed)
    ready, weights, original = _prepare(given, progress)
    precisions, sessions = ready.precisions, ready.sessions
    engines: dict[str, Engine] = {**sessions} | ({_ORIGINAL: original} if original is not None else {})
    told = f"{reference}{_REPAIRED}" if original is not None else str(reference)
    limits = {key: ready.judging.general(precisions[key], on_pixels=False) for key in sessions}
    done = 0

    def on_batch(size: int) -> None:
        nonlocal done
        done += size
        progress("comparing", done, ready.inputs.count)

    measured = compare(ready.reference, engines, ready.inputs, on_batch=on_batch)
    notes = measured.notes
    if original is not None:
        apart = max(output.metrics.max_abs or 0.0 for output in measured.figures[_ORIGINAL])
        notes = (*notes, f"{Path(reference).name} itself differs from that by up to {apart:.3g}, as it is meant to")
    tried = {key: Tried((), ()) for key in sessions}
    if not ready.on_pixels:
        progress("trying other inputs", 0, None)
        tried = try_probes(
            ready.reference,
            sessions,
            {key: limits[key] for key in sessions if precisions[key] in ("fp32", "fp16")},
            probes(ready.fed, ready.examples, ready.sizes, ready.seed),
            float32=[key for key in sessions if precisions[key] == "fp32"],
        )
    noise, reports = isinstance(ready.inputs, NoiseBatches), []
    for path in ready.paths:
        key = str(path)
        ready.check_unchanged(path)
        allowed, basis = ready.judging.of_file(
            path, ready.hashes[path], precisions[key], on_pixels=False, images=measured.images, on_noise=noise
        )
        report = ParityReport(
            reference=f"{ready.reference.name}, {told}",
            candidate=sessions[key].name,
            file=path.name,
            precision=precisions[key],
            data=ready.inputs.described,
            images=measured.images,
            outputs=measured.figures[key],
            file_sha256=ready.hashes[path],
            tried=tried[key].names,
            notes=notes,
            noise=noise,
            data_sha256=ready.data_sha256,
            weights=weights,
            environment=environment_here(),
            limits=basis,
        )
        report = apply_tolerances(report, allowed)
        reports.append(replace(report, failures=(*report.failures, *tried[key].failures)))
        save_evidence(path.parent, reports[-1], label=reports[-1].label)
    return tuple(reports)


def layers_against_file(
    reference: str | Path,
    files: Sequence[str | Path],
    *,
    preprocess: str | Path | None = None,
    data: str | Path | Iterable[Any] | None = None,
    samples: int | None = None,
    batch: int = 8,
    tolerances: Tolerances | None = None,
    atol: Limit = None,
    rtol: Limit = None,
    engine: str = GRAPH_ENGINE,
    seed: int | None = None,
    memory: int = MEMORY,
    save: str | Path | None = None,
    bisect: bool = False,
    progress: ProgressCallback = no_progress,
) -> tuple[LayersReport, ...]:
    """Compares what leaves each module in ONNX files with what leaves it in another one; needs no torch.

    Modules are those that the reference's nodes are named after. Where they are named after none, every value that is
    not mere movement is compared with the value of the same name.

    Args:
        reference: The ONNX file that is right.
        files: ONNX files, or artifacts for all of theirs.
        preprocess: See :func:`parity_against_file`.
        data: See :func:`~s2mlp_deploy.api.parity_per_layer`, as for the rest.
        samples: See there.
        batch: See there.
        tolerances: See there.
        atol: See there.
        rtol: See there.
        engine: See there.
        seed: See there.
        memory: See there.
        save: See there.
        bisect: See there; a shift has no other form, for want of the model.
        progress: See there.

    Raises:
        InputError: As for :func:`parity_against_file`; or a file is an engine.
    """
    if save is not None:
        check_place(Path(save))
    refuse_engines(files, engine)
    given = _Given(reference, files, preprocess, data, samples, batch, tolerances, atol, rtol, engine, seed)
    ready, weights, original = _prepare(given, progress)
    if original is not None:
        raise InputError(
            "layers of files whose smears were repaired are others than those of their source",
            where=str(reference),
            fix="leave --per-layer out, or compare with the float32 file of the artifact",
        )
    model, rounds = as_computed(_named_graph(Path(reference)), GRAPH_ENGINE)
    program = TappedGraph(model)
    told = f"{program.name}{', results rounded to float16' if rounds else ''}, {reference}"
    return run_layers(
        ready,
        program,
        program,
        told,
        weights,
        memory=memory,
        save=save,
        bisect=bisect,
        data=data,
        engine=engine,
        other_form=None,
        progress=progress,
    )


def refuse_of_file(checkpoint: object, overrides: Mapping[str, Any] | None) -> None:
    """Refuses what an ONNX file has in it already.

    Raises:
        InputError: Weights or settings are given.
    """
    given = [name for name, value in (("--checkpoint", checkpoint), ("--set", overrides)) if value]
    if given:
        raise InputError(
            f"{' and '.join(given)}: an ONNX file has its weights and sizes in it",
            fix=f"leave out {' and '.join(given)}, or name the model as SOURCE",
        )


@dataclass(frozen=True)
class _Given:
    """The arguments of a comparison."""

    reference: str | Path
    files: Sequence[str | Path]
    preprocess: str | Path | None
    data: str | Path | Iterable[Any] | None
    samples: int | None
    batch: int
    tolerances: Tolerances | None
    atol: Limit
    rtol: Limit
    engine: str
    seed: int | None


class _Fed:
    """An engine that is fed float32 where it takes float16."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name, self.outputs = engine.name, engine.outputs
        self.inputs = single_precision(engine.inputs)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        types = {info.name: info.dtype for info in self._engine.inputs}
        return self._engine.run({name: array.astype(types[name], copy=False) for name, array in feeds.items()})


def _is_repaired(description: Mapping[str, Any]) -> bool:
    """Whether a file says that the shifts which were meant stand in place of its source's smears."""
    return any(hazard.get("repaired") is True for hazard in description.get("hazards", ()))


def _repaired(own: Path, descriptions: Mapping[str, Mapping[str, Any]]) -> FileEngine | None:
    """The reference with its smears repaired, where the files' are; None where they are compared with it as it is.

    Raises:
        InputError: Some of the files were repaired, and others not.
    """
    repaired = [key for key, description in descriptions.items() if _is_repaired(description)]
    if not repaired:
        return None
    # Recognition needs torch, and nothing else here does.
    from s2mlp_deploy.api.repaired import repaired_reference

    found = repaired_reference(own)
    if found is not None and len(repaired) < len(descriptions):
        raise InputError(
            "the smears of some of the files were repaired, and not those of the others",
            where=join_names(repaired),
            fix="compare them apart",
        )
    return found


def _prepare(given: _Given, progress: ProgressCallback) -> tuple[Prepared, Weights, Engine | None]:
    """Opens files, reference and data; refuses early what cannot be compared.

    Returns:
        All of it; and the reference as it is, where another one takes its place whose smears are repaired.
    """
    own = Path(given.reference)
    if given.batch < 1 or (given.samples is not None and given.samples < 1):
        where = f"batch {given.batch}, samples {given.samples}"
        raise InputError("batch and samples must be at least 1", where=where, fix="give larger numbers")
    if not own.is_file():
        raise ArtifactError("no such file", where=str(own), fix="check the path")
    check_parity(given.files, given.data)
    paths = [path for file in given.files for path in files_of(Path(file))]
    if own.resolve() in {path.resolve() for path in paths} and len(paths) > 1:
        paths = [path for path in paths if path.resolve() != own.resolve()]  # The artifact that it is of.
    hashes = {path: sha256_of(path) for path in (own, *paths)}
    progress("loading the files", 0, None)
    reference = open_file(own, batch=given.batch)
    sessions = {str(path): open_file(path, engine=given.engine, batch=given.batch) for path in paths}
    descriptions = {
        key: read_description(session.metadata.get(METADATA_KEY), Path(key)) for key, session in sessions.items()
    }
    told = read_description(reference.metadata.get(METADATA_KEY), own)
    graphs = {str(path): _named_graph(path) for path in paths if not is_engine(path)}
    precisions = {
        key: precision_of(graphs[key].graph if key in graphs else None, descriptions[key].get("precision"))
        for key in sessions
    }
    pixels = told.get("preprocessing_in_graph") is True
    for key, session in sessions.items():
        if (descriptions[key].get("preprocessing_in_graph") is True) != pixels:
            raise InputError(
                "the one takes images, and the other what preprocessing makes of them",
                where=f"{own}, {key}",
                fix="compare files that were exported in the same way, or with the model",
            )
        _check_interface(reference, session, own, key)
    judging = Judging([info.name for info in reference.outputs], given.tolerances, given.atol, given.rtol)
    judging.general("fp32", on_pixels=False)
    preprocessing, classes = _described(given, told, [own, *paths])
    sizes = tuple(limit for session in (reference, *sessions.values()) for limit in session.limits)
    size, whole = fitting_batch(sizes, given.batch)
    repaired = None if _is_repaired(told) else _repaired(own, descriptions)
    fed_reference = _Fed(reference if repaired is None else repaired)
    fed = (
        (image_input([session.inputs[0] for session in sessions.values()]),)
        if pixels
        else with_fixed_sizes(fed_reference.inputs, sessions, own)
    )
    examples = tuple(_example(info) for info in fed)
    seed, data, made = given.seed or 0, given.data, None
    if pixels and data is None and preprocessing is not None:
        data = made = seeded_images(preprocessing, given.samples or NOISE_SAMPLES, seed)
    inputs: ModelData | NoiseBatches
    if data is not None:
        inputs = open_data(
            data,
            inputs=fed,
            preprocessing=preprocessing,
            classes=classes,
            samples=given.samples,
            seed=seed,
            batch=size,
            whole=whole,
            minimum=1,
            on_broken="raise",
            progress=progress,
        )
        if made is not None:
            inputs.described = f"{inputs.count} seeded images of noise (seed {seed})"
    else:
        count = given.samples or NOISE_SAMPLES
        inputs = NoiseBatches(fed, examples, samples=count, batch=size, whole=whole, seed=seed)
    ready = Prepared(
        None,
        tuple(paths),
        hashes,
        sessions,
        descriptions,
        graphs,
        precisions,
        tuple(sessions) if pixels else (),
        judging,
        sizes,
        whole,
        None,
        fed_reference,
        tuple(fed),
        examples,
        inputs,
        seed,
        preprocessing,
    )
    return ready, Weights(own.name, hashes[own], None), None if repaired is None else _Fed(reference)


def _named_graph(path: Path) -> ir.Model:
    """A file's graph, its nodes named after modules where the file tells them in any way."""
    model = load_graph(path, valid=False).model
    name_nodes_after_scopes(model.graph)
    return model


def _check_interface(reference: Engine, session: Engine, own: Path, key: str) -> None:
    """Refuses files whose inputs or outputs cannot be the reference's.

    Raises:
        InputError: Another number of them, or a size that both state and that differs.
    """
    for what, wanted, found in (
        ("input", reference.inputs, session.inputs),
        ("output", reference.outputs, session.outputs),
    ):
        names = match_names([i.name for i in wanted], [i.name for i in found], what=what, sides=(str(own), key))
        by_name = {info.name: info for info in found}
        for info in wanted:
            other = by_name[names[info.name]]
            sizes = zip(info.shape, other.shape, strict=False)
            if len(info.shape) != len(other.shape) or any(
                isinstance(a, int) and isinstance(b, int) and a != b for a, b in sizes
            ):
                raise InputError(
                    f"{what} {info.name!r} is {list(other.shape)}, and {list(info.shape)} in the reference",
                    where=f"{key}, {own}",
                    fix=_SAME,
                )


def _described(
    given: _Given, told: Mapping[str, Any], paths: Sequence[Path]
) -> tuple[Preprocessing | None, Sequence[str] | None]:
    """Preprocessing and class names: the user's, an artifact's, or those that the file keeps."""
    if given.preprocess is not None:
        named = load_sidecar(Path(given.preprocess))
        return named.preprocessing, named.classes
    known = known_of(str(given.reference), paths, checkpoint=None).description
    if known is not None:
        return known.preprocessing, known.classes
    kept = told.get("preprocessing")
    return (Preprocessing.from_dict(kept) if kept else None), told.get("classes")


def _example(info: TensorInfo) -> NDArray[Any]:
    """An input of the sizes that are stated; two samples of a free batch, as models are captured with."""
    shape = [size if isinstance(size, int) else (2 if axis == 0 else _FREE) for axis, size in enumerate(info.shape)]
    return np.zeros(shape, info.dtype)


_FREE = 32
"""A free size that is no batch: of no image in particular."""
