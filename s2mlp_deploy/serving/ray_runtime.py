"""Ray, found on a cluster or started on this machine: quietly, without a network, and gone again afterwards."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import ray

from s2mlp_deploy.errors import InputError
from s2mlp_deploy.text import first_line_of

_STORE = 200 * 2**20
"""Bytes of Ray's object store on one machine: what goes through it are single requests, or results of chunks."""


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
    # It tells nobody that it is used, and its processes print only what ends them.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
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
        logging.getLogger("ray").setLevel(logging.ERROR)
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
