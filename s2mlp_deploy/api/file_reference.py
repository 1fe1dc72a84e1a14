"""An ONNX file as the reference: what a comparison of other files with it runs on.

Never imports torch, but where the smears of files were repaired (:mod:`.repaired`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from s2mlp_deploy.api.artifacts import known_of
from s2mlp_deploy.api.judging import Judging
from s2mlp_deploy.api.opening import is_engine, open_file
from s2mlp_deploy.api.prepared import Prepared, files_of, single_precision, with_fixed_sizes
from s2mlp_deploy.api.refusals import check_parity
from s2mlp_deploy.artifact import METADATA_KEY, TensorInfo, fitting_batch, read_description
from s2mlp_deploy.data.dataset import ModelData, open_data
from s2mlp_deploy.data.noise import NOISE_SAMPLES, NoiseBatches
from s2mlp_deploy.engines.base import Arrays, Engine, FileEngine
from s2mlp_deploy.errors import ArtifactError, InputError
from s2mlp_deploy.evidence.parity import Tolerances, Weights
from s2mlp_deploy.files import sha256_of
from s2mlp_deploy.graph.loading import load_graph
from s2mlp_deploy.graph.modules import name_nodes_after_scopes
from s2mlp_deploy.parity.matching import match_names
from s2mlp_deploy.parity.pixels import image_input, seeded_images
from s2mlp_deploy.parity.precisions import precision_of
from s2mlp_deploy.parity.tolerances import Limit
from s2mlp_deploy.preprocess import Preprocessing, load_sidecar
from s2mlp_deploy.progress import ProgressCallback
from s2mlp_deploy.text import join_names

_SAME = "compare files of one network"


@dataclass(frozen=True)
class Given:
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


def prepare_against(given: Given, progress: ProgressCallback) -> tuple[Prepared, Weights, Engine | None]:
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
    graphs = {str(path): named_graph(path) for path in paths if not is_engine(path)}
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


def named_graph(path: Path) -> ir.Model:
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
    given: Given, told: Mapping[str, Any], paths: Sequence[Path]
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
