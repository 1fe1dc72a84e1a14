"""What classifies a chunk, in whatever process: a predictor and the rows that it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from s2mlp_deploy.engines.base import Arrays
from s2mlp_deploy.serving.batch.inputs import Chunk
from s2mlp_deploy.serving.plan import RunPlan
from s2mlp_deploy.serving.predictor import Prediction, Predictor

ROW, IMAGE, CLASSES, PROBABILITIES, ERROR, KIND = "row", "image", "classes", "probabilities", "error", "error_kind"
OUTPUT, SHAPE = "output:", "shape:"
"""Prefixes of the columns of an output: its values, flat, and its sizes."""


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker runs.

    Attributes:
        plan: What runs, decided once for all of them.
        output: See :class:`~s2mlp_deploy.serving.predictor.Predictor`.
        top: How many classes are named.
        batch: Images in a run.
        outputs: Whether all outputs of the model are kept.
    """

    plan: RunPlan
    output: str | None = None
    top: int = 5
    batch: int = 8
    outputs: bool = False


@dataclass(frozen=True)
class ChunkResult:
    """What became of a chunk.

    Attributes:
        index: Its number.
        table: A row for each image, as a stream of Arrow.
        images: How many.
        broken: How many of them could not be used.
        failed: Of how many others the model said what is not finite.
    """

    index: int
    table: bytes
    images: int
    broken: int
    failed: int


class Worker:
    """Classifies chunks with one predictor, which is opened for the first of them.

    Args:
        options: How.
    """

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._predictor: Predictor | None = None

    def __call__(self, chunk: Chunk) -> ChunkResult:
        """Classifies the images of a chunk.

        Raises:
            S2MLPDeployError: The artifact cannot be run; images that cannot be used are rows.
        """
        options = self._options
        if self._predictor is None:
            self._predictor = Predictor(options.plan.directory, plan=options.plan, output=options.output, warn=False)
        predictor = self._predictor
        rows = list(predictor.stream(chunk.images(), top=options.top, batch=options.batch))
        kept = [info.name for info in predictor.outputs] if options.outputs or predictor.output is None else []
        table = table_of(chunk.first, rows, kept)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        errors = [item.error.kind for item, _ in rows if item.error is not None]
        return ChunkResult(
            chunk.index, sink.getvalue().to_pybytes(), len(rows), errors.count("image"), errors.count("output")
        )


def table_of(first: int, rows: Sequence[tuple[Prediction, Arrays]], outputs: Sequence[str]) -> pa.Table:
    """Predictions as a table.

    Args:
        first: Number of the first one.
        rows: Predictions, with all outputs for each.
        outputs: Names of the outputs that are kept: their values, flat, and their sizes.
    """
    items = [item for item, _ in rows]
    columns: dict[str, Any] = {
        ROW: pa.array(range(first, first + len(rows)), pa.int64()),
        IMAGE: pa.array([_text(item.image) for item in items], pa.string()),
        CLASSES: pa.array([list(item.classes) for item in items], pa.list_(pa.string())),
        PROBABILITIES: pa.array([list(item.probabilities) for item in items], pa.list_(pa.float64())),
        ERROR: pa.array([item.error.problem if item.error else None for item in items], pa.string()),
        KIND: pa.array([item.error.kind if item.error else None for item in items], pa.string()),
    }
    for name in outputs:
        arrays = [arrays.get(name) for _, arrays in rows]
        kind = next((array.dtype for array in arrays if array is not None), np.dtype(np.float32))
        columns[OUTPUT + name] = pa.array(
            [None if array is None else array.reshape(-1) for array in arrays], pa.list_(pa.from_numpy_dtype(kind))
        )
        columns[SHAPE + name] = pa.array(
            [None if array is None else list(array.shape) for array in arrays], pa.list_(pa.int64())
        )
    return pa.table(columns)


def _text(name: str) -> str:
    """A name that UTF-8 can hold: file systems give names that are none."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
