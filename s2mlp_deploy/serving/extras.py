"""Packages that only some ways of running need."""

from __future__ import annotations

import importlib.util

from s2mlp_deploy.choices import EnginePool
from s2mlp_deploy.errors import InputError, MissingDependencyError


def check_pool(engine_pool: EnginePool, address: str | None) -> None:
    """Refuses a pool that cannot be used, before anything is read.

    Args:
        engine_pool: Who runs engines.
        address: Of a Ray cluster.

    Raises:
        InputError: An address is given to another pool than Ray.
        MissingDependencyError: Ray is not installed.
    """
    if engine_pool == "ray" and importlib.util.find_spec("ray") is None:
        raise MissingDependencyError("ray", extra="scale", purpose="--engine-pool ray")
    if address is not None and engine_pool != "ray":
        raise InputError("--address is of a Ray cluster", fix="add --engine-pool ray, or leave --address out")
