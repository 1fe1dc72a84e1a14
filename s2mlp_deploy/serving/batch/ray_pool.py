"""Workers as actors of Ray Data, on this machine or on a cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

# Read when Ray is imported: it tells nobody that it is used, and its processes print only what ends them.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

import ray
import ray.data

from s2mlp_deploy.errors import CheckFailedError, InputError, S2MLPDeployError
from s2mlp_deploy.serving.batch.inputs import Chunk
from s2mlp_deploy.serving.batch.worker import ChunkResult, Worker, WorkerOptions
from s2mlp_deploy.text import first_line_of

_STORE = 200 * 2**20
"""Bytes of Ray's object store on one machine: results are small, and images are read by the actors."""

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


@contextlib.contextmanager
def running_ray(address: str | None, cores: int) -> Iterator[None]:
    """Ray, of a cluster or started on this machine, which ends with the block; one that runs already is used.

    Args:
        address: Of a cluster; None for this machine.
        cores: How many Ray may count on this machine.

    Raises:
        InputError: It cannot be reached or started.
    """
    if ray.is_initialized():
        yield
        return
    # Ray's sockets lie below it, and a path of a socket has 107 characters: TMPDIR may be longer than leaves room.
    place = tempfile.mkdtemp(prefix="ray-", dir="/tmp" if os.path.isdir("/tmp") else None)  # noqa: PTH112
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": True}
    if address is None:
        options |= {
            "num_cpus": cores,
            "include_dashboard": False,
            "object_store_memory": _STORE,
            "_temp_dir": place,
        }
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            ray.init(address=address or "local", **options)
        except Exception as error:  # Ray raises a dozen types, with no common base but this.
            raise InputError(
                f"Ray cannot be {'reached' if address else 'started'}: {first_line_of(error)}",
                where=address,
                fix="check --address, or use --engine-pool process",
            ) from error
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(place, ignore_errors=True)
