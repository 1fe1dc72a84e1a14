"""Cutting an engine, which cannot be looked into without changing it, at the boundaries of modules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.api.capturing import CapturedSource
from s2mlp_deploy.api.layering import tapped_source
from s2mlp_deploy.api.opening import is_engine
from s2mlp_deploy.api.pieces import EnginePieces, Told, write_pieces
from s2mlp_deploy.api.saved_folder import check_place
from s2mlp_deploy.choices import GRAPH_ENGINE
from s2mlp_deploy.engines.record import read_engine
from s2mlp_deploy.errors import ArtifactError, InputError
from s2mlp_deploy.files import sha256_of
from s2mlp_deploy.parity.exits import match_taps
from s2mlp_deploy.parity.pieces import cut
from s2mlp_deploy.progress import ProgressCallback, no_progress
from s2mlp_deploy.sources.isolation import importing_from
from s2mlp_deploy.sources.source import Source

PIECES = 4
"""How many pieces an engine is cut into: each takes a build."""
_IMAGES = 2


def engine_pieces(
    source: str | Source | CapturedSource,
    engine: str | Path,
    directory: str | Path,
    *,
    checkpoint: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    preprocess: str | Path | None = None,
    data: str | Path | Iterable[Any] | None = None,
    samples: int | None = None,
    seed: int | None = None,
    pieces: int = PIECES,
    progress: ProgressCallback = no_progress,
) -> EnginePieces:
    """Builds an engine again in pieces, and keeps them with what enters and leaves each in the model.

    TensorRT-RTX builds without a GPU, so that any machine can do this. The pieces run where their GPU is:
    :func:`~s2mlp_deploy.api.judge_pieces` says there which departs first. Pieces are fused less than the whole engine:
    where all of them hold and the engine does not, it is what the builder does across their borders.

    Args:
        source: See :func:`~s2mlp_deploy.api.parity`.
        engine: An engine file with its sidecar, and the ONNX file that it was built from beside it.
        directory: A new folder.
        checkpoint: See there, as for what follows.
        overrides: See there.
        preprocess: See there.
        data: See there.
        samples: Images that are kept, all of which a piece gets at once (default: 2).
        seed: See there.
        pieces: How many at most.
        progress: Told what is done.

    Raises:
        ArtifactError: The ONNX file is not there, or another than the engine was built from.
        InputError: It is no engine, there is no place to cut, or as for :func:`~s2mlp_deploy.api.parity`.
        BuildError: A piece cannot be built.
        OutputError: The folder is there already, or cannot be written.
    """
    engine, directory = Path(engine), Path(directory)
    if not is_engine(engine):
        raise InputError("it is no engine", where=str(engine), fix="give --per-layer, or --bisect alone")
    if pieces < 2:
        raise InputError(f"{pieces} is no number of pieces", fix="give 2 or more")
    check_place(directory)
    record = read_engine(engine)
    file = engine.parent / record.onnx
    if not file.is_file() or sha256_of(file) != record.onnx_sha256:
        problem = "is another than the engine was built from" if file.is_file() else "is not there"
        raise ArtifactError(
            f"the ONNX file of the engine {problem}", where=str(file), fix="put it there, or build the engine again"
        )
    wanted = samples or _IMAGES
    ready, program, reference = tapped_source(
        source,
        [file],
        checkpoint=checkpoint,
        overrides=overrides,
        preprocess=preprocess,
        data=data,
        samples=wanted,
        batch=wanted,
        tolerances=None,
        atol=None,
        rtol=None,
        engine=GRAPH_ENGINE,
        seed=seed,
        progress=progress,
    )
    assert ready.origin is not None
    if ready.on_pixels:
        raise InputError(
            "the file preprocesses its images, and its pieces would not", where=str(file), fix="cut one that does not"
        )
    model = ready.graphs[str(file)]
    found, _ = match_taps(program.taps, model.graph)
    known = {tap.value: path for path, tap in found.items() if not tap.scale}
    parts = cut(model.graph, known, pieces)
    if len(parts) < 2:
        raise InputError(
            "there is no place to cut it: no value that leaves a module is all that passes it",
            where=str(file),
            fix="compare the ONNX file with --per-layer",
        )
    node_of = {tap.path: tap.node for tap in program.taps}
    passing = {name for part in parts for name in (*part.inputs, *part.outputs)}
    names = {node_of[known[name]]: name for name in passing if name in known}
    values: dict[str, NDArray[Any]] = {}
    with importing_from(ready.origin.folder):
        feeds = next(iter(ready.inputs))[0]
        outputs = program.look(reference, feeds, names, lambda node, value: values.update({names[node]: value}))
    given = {str(value.name): array for value, array in zip(model.graph.inputs, feeds.values(), strict=True)}
    made = {str(value.name): array for value, array in zip(model.graph.outputs, outputs.values(), strict=True)}
    told = Told(
        f"{reference.name}, {ready.origin.info.reference}",
        ready.inputs.described,
        len(next(iter(feeds.values()))),
        {name: np.asarray(array) for name, array in (values | given | made).items() if name in passing},
    )
    return write_pieces(directory, engine, record, model, parts, told, progress)
