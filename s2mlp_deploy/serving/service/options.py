"""What may be chosen of the service: address, engine, and a bound for whatever somebody could take too much of."""

from __future__ import annotations

from dataclasses import dataclass

from s2mlp_deploy.choices import EnginePool
from s2mlp_deploy.engines.profiles import MAX_SIZE
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.preprocess import MAX_PIXELS

MIB = 2**20

LONGEST = 365 * 86_400.0
"""Seconds of the longest time that may be waited for anything: a year."""

_MOST_INSTANCES = 4096
"""Processes of a model: more than any machine has processors."""

_MOST_BYTES = 2**53
"""More than any memory has."""


def _check(name: str, value: float, least: float, most: float) -> None:
    """Refuses a number that is out of range, or none at all."""
    if not least <= value <= most:  # Which a NaN is not either.
        raise InputError(f"{name} is {value}", fix=f"give a number of at least {least}, at most {most:,}")


@dataclass(frozen=True)
class ServeOptions:
    """How the service runs.

    Attributes:
        host: Address to listen on.
        port: Of HTTP; 0 for any that is free, which the log tells.
        grpc_port: Of gRPC, likewise; None: no gRPC.
        token: What clients must send as a bearer token; None: nothing.
        reload_every: Seconds between looks for new files; 0 for never.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = None
    token: str | None = None
    reload_every: float = 5.0

    def __post_init__(self) -> None:
        """Refuse a time that no clock takes.

        Raises:
            InputError: It is none.
        """
        _check("reload_every", self.reload_every, 0, LONGEST)


@dataclass(frozen=True)
class EngineOptions:
    """How models are opened.

    Attributes:
        precision: Which file; None: what :func:`~s2mlp_deploy.serving.plan.plan_run` chooses.
        engine: What runs it; None likewise.
        threads: Within an operator; None likewise, or a share of the cores where there are several instances.
        spin: Whether idle threads of ONNX Runtime spin for work; None: as ``tune`` chose, else they do.
        flush_denormals: Whether subnormal numbers count as 0; where not, as ``tune`` chose.
        allow_unproven: Whether a file may run whose parity does not hold or was not measured.
        instances: Processes for each model; of Ray, replicas that there are at least.
        engine_pool: ``process``, or ``ray``: replicas of Ray Serve, as many as requests ask for.
        address: Of a Ray cluster; None starts Ray on this machine.
        max_instances: Of Ray, replicas that there may be; None: one for each core that this process may use.
    """

    precision: str | None = None
    engine: str | None = None
    threads: int | None = None
    spin: bool | None = None
    flush_denormals: bool = False
    allow_unproven: bool = False
    instances: int = 1
    engine_pool: EnginePool = "process"
    address: str | None = None
    max_instances: int | None = None

    def __post_init__(self) -> None:
        """Refuse numbers of processes that no machine runs.

        Raises:
            InputError: One is none.
        """
        _check("instances", self.instances, 1, _MOST_INSTANCES)
        _check("max_instances", 1 if self.max_instances is None else self.max_instances, 1, _MOST_INSTANCES)


@dataclass(frozen=True)
class ServiceLimits:
    """Bounds of the service.

    Attributes:
        max_batch: Samples in one run of a model.
        max_delay: Seconds that a request waits for others to share its run.
        queue: Requests that wait for a model; beyond that they are told to come again.
        timeout: Seconds from a request's arrival to its result.
        body_timeout: Seconds in which a request's headers, and then its body, must have come.
        max_body: Bytes of a request's body, decompressed.
        max_bodies: Bytes of all bodies that are held at a time.
        max_pixels: Of an image.
        drain: Seconds that running requests have when the service ends.
        grace: Seconds between saying that it ends (not ready) and taking no more connections.
    """

    max_batch: int = 8
    max_delay: float = 0.002
    queue: int = 128
    timeout: float = 30.0
    body_timeout: float = 20.0
    max_body: int = 32 * MIB
    max_bodies: int = 512 * MIB
    max_pixels: int = 50_000_000
    drain: float = 30.0
    grace: float = 1.0

    def __post_init__(self) -> None:
        for name in ("max_batch", "queue"):
            _check(name, getattr(self, name), 1, MAX_SIZE)
        for name in ("max_body", "max_bodies"):
            _check(name, getattr(self, name), 1, _MOST_BYTES)
        for name in ("timeout", "body_timeout", "drain"):
            if getattr(self, name) == 0:
                raise InputError(f"{name} is 0", fix="give a number above 0")
        for name in ("timeout", "body_timeout", "drain", "max_delay", "grace"):
            _check(name, getattr(self, name), 0, LONGEST)
        _check("max_pixels", self.max_pixels, 1, MAX_PIXELS)
