"""Workers as actors of Ray Data, on this machine or on a cluster."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import ray
import ray.data

from s2mlp_deploy.errors import CheckFailedError, S2MLPDeployError
from s2mlp_deploy.serving.batch.inputs import Chunk
from s2mlp_deploy.serving.batch.worker import ChunkResult, Worker, WorkerOptions
from s2mlp_deploy.serving.ray_runtime import running_ray
from s2mlp_deploy.text import first_line_of

_BLOCKS = 4096
"""Most blocks that chunks are cut into: Ray keeps a record of each."""

_SHARE = 0.5
"""Cores that Ray reserves for an actor. With one each, as many actors as cores leave none for Ray Data itself, which
then waits for ever."""


class RayActors:
    """Workers as actors. Ray starts an actor that died again, and its chunk with it.

    Args:
        options: How they work.
        workers: How many.
        address: Of a cluster: ``auto``, ``ray://head:10001``; None starts Ray on this machine and ends it again.
    """

    def __init__(self, options: WorkerOptions, workers: int, address: str | None) -> None:
        self._options = options
        self._workers = workers
        self._address = address

    def map(self, chunks: Iterable[Chunk]) -> Iterator[ChunkResult]:
        """See :class:`~s2mlp_deploy.serving.batch.pools.Pool`."""
        items = [{"chunk": pickle.dumps(chunk)} for chunk in chunks]
        with running_ray(self._address, self._workers):
            ray.data.DataContext.get_current().enable_progress_bars = False
            logging.getLogger("ray.data").setLevel(logging.ERROR)
            data = ray.data.from_items(items, override_num_blocks=min(len(items), _BLOCKS)).map_batches(
                _Actor,
                fn_constructor_args=(self._options,),
                compute=ray.data.ActorPoolStrategy(size=self._workers),
                batch_size=1,
                num_cpus=_SHARE,
            )
            try:
                for row in data.iter_rows():
                    result = pickle.loads(row["result"])
                    if isinstance(result, S2MLPDeployError):
                        raise result
                    yield result
            except ray.exceptions.RayError as error:
                raise CheckFailedError(
                    f"Ray did not finish: {first_line_of(error)}",
                    fix="fewer --workers where memory runs out; the same command goes on where it stopped",
                ) from error


class _Actor:
    def __init__(self, options: WorkerOptions) -> None:
        self._worker = Worker(options)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return {"result": np.array([self._answer(chunk) for chunk in batch["chunk"]], object)}

    def _answer(self, chunk: bytes) -> bytes:
        """The result of a chunk, or the error: Ray wraps what is raised in types that it makes as it goes."""
        try:
            return pickle.dumps(self._worker(pickle.loads(chunk)))
        except S2MLPDeployError as error:
            return pickle.dumps(error)
