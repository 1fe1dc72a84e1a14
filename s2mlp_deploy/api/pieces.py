"""An engine in pieces: kept in a folder with what enters and leaves each, and judged where their GPU is.

Never imports torch: the machine with the GPU needs neither the model nor torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from safetensors.numpy import save

from s2mlp_deploy.api.engines import build
from s2mlp_deploy.api.opening import open_file
from s2mlp_deploy.api.saved_folder import FolderKind, check_place, read_index, read_tensors
from s2mlp_deploy.artifact.directories import new_directory
from s2mlp_deploy.errors import ArtifactError, InputError
from s2mlp_deploy.evidence.build import BuildRecord
from s2mlp_deploy.evidence.layers import LayerParity, LayersReport
from s2mlp_deploy.evidence.machine import environment_here
from s2mlp_deploy.files import is_plain_name, sha256_of, to_json
from s2mlp_deploy.parity.pieces import Piece, piece_model
from s2mlp_deploy.parity.sketch import LayerFigures, float_array
from s2mlp_deploy.parity.tolerances import own_distance
from s2mlp_deploy.progress import ProgressCallback

INDEX = "pieces.json"
TENSORS = "tensors.safetensors"
_AGAIN = "cut the engine again, with --bisect --save"
KIND = FolderKind("engine pieces", 1, INDEX, _AGAIN)


@dataclass(frozen=True)
class BuiltPiece:
    """A piece as it is kept.

    Attributes:
        engine: Its file.
        engine_sha256: Of the file.
        modules: What it is of the network.
        inputs: The values that enter it.
        outputs: Those that leave it.
    """

    engine: str
    engine_sha256: str
    modules: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class EnginePieces:
    """An engine in pieces.

    Attributes:
        file: The engine that was cut.
        flavour: Whose engine it is.
        targets: The GPUs that it is for.
        precision: What it computes in.
        reference: What is right, in words.
        data: What the inputs were.
        images: How many.
        tensors_sha256: Of the file with what enters and leaves the pieces.
        pieces: In the order of the network.
        kind: What the document is.
        schema_version: Of the document.
    """

    file: str
    flavour: str
    targets: tuple[str, ...]
    precision: str
    reference: str
    data: str
    images: int
    tensors_sha256: str
    pieces: tuple[BuiltPiece, ...]
    kind: str = KIND.name
    schema_version: int = KIND.version


@dataclass(frozen=True)
class Told:
    """What is said of the comparison.

    Attributes:
        reference: What is right, in words.
        data: What the inputs were.
        images: How many.
        values: What enters and leaves pieces in the reference, by the graph's names, all images in one array.
    """

    reference: str
    data: str
    images: int
    values: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def write_pieces(
    directory: Path,
    engine: Path,
    record: BuildRecord,
    model: ir.Model,
    pieces: tuple[Piece, ...],
    told: Told,
    progress: ProgressCallback,
) -> EnginePieces:
    """Builds the pieces of an engine as it was built, into a folder that appears whole or not at all.

    Args:
        directory: Where to; must not exist.
        engine: The engine that is cut.
        record: Its sidecar.
        model: The graph that it was built from.
        pieces: Of that.
        told: What is said of the comparison, with the reference's values.
        progress: Told which piece is built.

    Raises:
        OutputError: The place cannot be written.
        BuildError: A piece cannot be built.
    """
    check_place(directory)
    with new_directory(directory.absolute()) as staging:
        built = []
        for number, piece in enumerate(pieces):
            progress(f"building piece {number + 1} of {len(pieces)}", number, len(pieces))
            built.append(_built(staging, number, piece, record, model, told))
        (staging / TENSORS).write_bytes(save({name: np.ascontiguousarray(a) for name, a in told.values.items()}))
        found = EnginePieces(
            engine.name,
            record.flavour,
            tuple(record.targets),
            record.precision or "fp32",
            told.reference,
            told.data,
            told.images,
            sha256_of(staging / TENSORS),
            tuple(built),
        )
        (staging / INDEX).write_bytes(to_json(found))
    return found


def _built(staging: Path, number: int, piece: Piece, record: BuildRecord, model: ir.Model, told: Told) -> BuiltPiece:
    made = piece_model(model, piece)
    file = staging / f"piece-{number:02}.onnx"
    ir.save(made, file)
    shapes = {
        str(value.name): tuple(told.values[str(value.name)].shape)
        for value in made.graph.inputs
        if value.shape is None or not value.shape.is_static()
    }
    options: dict[str, Any] = {}
    if shapes:
        options = {f"{which}_shapes": shapes for which in ("min", "opt", "max")}
    has_gemm = any(node.op_type in ("MatMul", "Gemm", "Conv") for node in made.graph)
    done = build(
        file,
        engine=record.flavour,
        targets=record.targets,
        output=staging / f"piece-{number:02}.engine",
        precision=record.precision if has_gemm else None,
        **options,
    )
    with suppress(OSError):
        shutil.rmtree(staging / "evidence")
    return BuiltPiece(done.engine, done.engine_sha256, piece.modules, piece.inputs, piece.outputs)


def judge_pieces(directory: str | Path) -> LayersReport:
    """Runs the pieces of an engine on their GPU, and compares what leaves each with what leaves it in the model.

    Args:
        directory: What ``parity ENGINE --bisect --save`` wrote.

    Returns:
        A layer for each value that leaves a piece, judged by its own distance: every piece is given what enters it in
        the model.

    Raises:
        ArtifactError: It is no such folder, of another version, or damaged.
        TargetError: There is no GPU.
        MissingDependencyError: The engine's library is not installed.
    """
    directory = Path(directory)
    index = read_index(directory, KIND, EnginePieces)
    values = read_tensors(directory, TENSORS, index.tensors_sha256, KIND)
    limits = own_distance(index.precision)
    layers = []
    for piece in index.pieces:
        file = directory / piece.engine
        if not is_plain_name(piece.engine) or not file.is_file() or sha256_of(file) != piece.engine_sha256:
            raise ArtifactError("the piece is missing, or another than was built", where=str(file), fix=_AGAIN)
        engine = open_file(file, batch=index.images)
        types = {info.name: info.dtype for info in engine.inputs}
        missing = [name for name in (*types, *piece.outputs) if name not in values]
        if missing:
            raise ArtifactError(f"it is damaged: no values of {', '.join(missing)}", where=str(directory), fix=_AGAIN)
        found = engine.run({name: values[name].astype(dtype, copy=False) for name, dtype in types.items()})
        for name in piece.outputs:
            figures = LayerFigures()
            try:
                figures.update(values[name], float_array(found[name]))
            except (KeyError, InputError) as error:
                raise ArtifactError(f"the piece gives another {name}", where=str(file), fix=_AGAIN) from error
            metrics, errors = figures.result()
            told = ", ".join(piece.modules) or name
            layers.append(LayerParity(told, "piece", name, metrics, errors, own=metrics, own_tolerances=limits))
    return LayersReport(
        reference=index.reference,
        candidate=f"{index.flavour} in {len(index.pieces)} pieces",
        file=index.file,
        precision=index.precision,
        data=index.data,
        images=index.images,
        layers=tuple(layers),
        runs=1,
        environment=environment_here(),
    )
