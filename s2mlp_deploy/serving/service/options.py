"""What may be chosen of the service: address, engine, and a bound for whatever somebody could take too much of."""

from __future__ import annotations

from dataclasses import dataclass

from s2mlp_deploy.choices import EnginePool
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.preprocess import MAX_PIXELS

MIB = 2**20


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
        for name in ("max_batch", "queue", "timeout", "body_timeout", "max_body", "max_pixels", "drain"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} is {getattr(self, name)}", fix="give a number above 0")
        if self.max_delay < 0 or self.grace < 0:
            raise InputError("a time is below 0", fix="give 0 or more")
        if self.max_pixels > MAX_PIXELS:
            raise InputError(f"no more than {MAX_PIXELS:,} pixels can be decoded safely", fix="give fewer")
