"""From start to end of the service: sockets, signals, drain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from s2mlp_deploy.engines.registry import check_here
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.evidence.machine import this_machine
from s2mlp_deploy.serving.extras import check_pool
from s2mlp_deploy.serving.service.app import make_app
from s2mlp_deploy.serving.service.core import Service
from s2mlp_deploy.serving.service.http import Token
from s2mlp_deploy.serving.service.logs import JsonLines
from s2mlp_deploy.serving.service.messages import Setup
from s2mlp_deploy.serving.service.metrics import Metrics
from s2mlp_deploy.serving.service.options import EngineOptions, ServeOptions, ServiceLimits
from s2mlp_deploy.serving.service.pool import Pool
from s2mlp_deploy.serving.service.repository import Repository, Starter

LOG = logging.getLogger(__name__)

_LOGGERS = ("s2mlp_deploy.serving.service", "uvicorn.error")
_KEEP_ALIVE = 75
_BACKLOG = 4096
_LINGER = 1.0
"""Seconds in which a connection may still bring a request when the service ends."""


class _Protocol(HttpToolsProtocol):
    """Uvicorn's, but that a connection on which no whole request head comes is closed after a while."""

    patience = 20.0
    _timer: asyncio.TimerHandle | None = None

    def _wait(self) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(self.patience, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # As uvicorn has it.
        super().connection_made(transport)
        self._wait()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def shutdown(self) -> None:
        """Called when the service ends: whoever is about to send on an open connection is answered, and then closed."""
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(_LINGER, super().shutdown)
        else:
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)


class _Server(uvicorn.Server):
    """Uvicorn's, but that signals are ours: after a drain the process ends with 0."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes who has connected already, then closes: the kernel would cut off those that nobody accepted."""
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.Protocol:
            kind: Any = self.config.http_protocol_class
            made: asyncio.Protocol = kind(
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state, _loop=loop
            )
            return made

        waiting = []
        for sock in sockets or ():
            with contextlib.suppress(BlockingIOError):
                while True:
                    connection, _ = sock.accept()
                    waiting.append(asyncio.create_task(loop.connect_accepted_socket(protocol, connection)))
        # Nothing is awaited up to here, nor until the sockets are closed.
        await super().shutdown(sockets)
        await asyncio.gather(*waiting, return_exceptions=True)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run(
    paths: list[Path],
    options: ServeOptions,
    engine: EngineOptions,
    limits: ServiceLimits,
    log: IO[bytes] | None = None,
) -> None:
    """Serves until SIGTERM or Ctrl-C; requests that run then are answered first.

    Args:
        paths: Artifacts, or folders with one for each version.
        options: Address, token.
        engine: How models are opened.
        limits: Bounds.
        log: Where the log goes; None for stderr.

    Raises:
        ArtifactError: There is no artifact in one of the paths.
        InputError: The address cannot be listened on.
        TargetError: There is no such engine, or no such part of a machine here.
        MissingDependencyError: The engine is not installed.
    """
    check_pool(engine.engine_pool, engine.address)
    if engine.engine is not None and engine.engine_pool == "process":  # A cluster's machines have what they have.
        check_here(engine.engine)
    _allow_connections()
    with (
        _logging(log) as lines,
        _listening(options.host, options.port) as sock,
        _other_starter(engine, limits) as starter,
    ):
        config = uvicorn.Config("", log_config=None)  # Its own configuration would close all handlers.
        factory: Any = config.get_loop_factory()
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_serve(paths, options, engine, limits, lines, sock, starter))


async def _serve(
    paths: list[Path],
    options: ServeOptions,
    engine: EngineOptions,
    limits: ServiceLimits,
    lines: JsonLines,
    sock: socket.socket,
    starter: Starter | None,
) -> None:
    def processes(setup: Setup, size: int) -> Pool:
        return Pool(setup, size, lambda: metrics.restarted())

    repository = Repository(paths, engine, limits, starter or processes)
    metrics = Metrics(repository, lambda: lines.lost)
    service = Service(repository, limits, metrics)
    token = None if options.token is None else Token(options.token)
    protocol = type("_PatientProtocol", (_Protocol,), {"patience": limits.body_timeout})
    config = uvicorn.Config(
        make_app(service, token),
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=int(limits.drain) or 1,
        backlog=_BACKLOG,
    )
    server = _Server(config)
    loop = asyncio.get_running_loop()
    ending = _Ending(server)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.signal)
    remote = None
    if options.grpc_port is not None:
        from s2mlp_deploy.serving.service.grpc_server import GrpcServer  # Only whoever wants it installs it.

        remote = GrpcServer(service, token)
        bound = await remote.start(options.host, options.grpc_port)
        LOG.info("gRPC on port %d", bound, extra={"grpc_port": bound})
    watching = asyncio.create_task(service.watch(options.reload_every))
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    host, port = sock.getsockname()[:2]
    LOG.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port, extra={"port": port})
    try:
        waiting = asyncio.create_task(ending.asked.wait())
        await asyncio.wait((waiting, watching, serving), return_when=asyncio.FIRST_COMPLETED)
        if watching.done() and options.reload_every <= 0 and watching.exception() is None:
            await asyncio.wait((waiting, serving), return_when=asyncio.FIRST_COMPLETED)
        # Not ready first, and connections close with their next answer: whoever balances load goes elsewhere.
        service.draining = True
        LOG.info("draining")
        if ending.asked.is_set():
            await ending.wait(limits.grace)
        server.should_exit = True
        await asyncio.gather(serving, *([ending.stop(remote, limits.drain)] if remote is not None else []))
    finally:
        watching.cancel()
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await watching
        finally:
            await repository.close()
    LOG.info("drained")


class _Ending:
    """What signals ask for: the first one the end, a second one that nothing is waited for any more.

    Args:
        server: Of HTTP.
    """

    def __init__(self, server: uvicorn.Server) -> None:
        self._server = server
        self.asked, self._hurry = asyncio.Event(), asyncio.Event()

    def signal(self) -> None:
        """One came."""
        if self.asked.is_set():
            self._server.force_exit = True
            self._hurry.set()
        self.asked.set()

    async def wait(self, seconds: float) -> None:
        """Waits, until somebody is in a hurry."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), seconds)

    async def stop(self, remote: _Stoppable, seconds: float) -> None:
        """Ends another server, whose calls have this time, until somebody is in a hurry."""
        stopping, hurried = asyncio.create_task(remote.stop(seconds)), asyncio.create_task(self._hurry.wait())
        await asyncio.wait((stopping, hurried), return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not stopping.done():
            await remote.stop(0)
        await stopping


class _Stoppable(Protocol):
    async def stop(self, seconds: float) -> None: ...


@contextlib.contextmanager
def _other_starter(engine: EngineOptions, limits: ServiceLimits) -> Iterator[Starter | None]:
    """What starts replicas of Ray, which runs meanwhile; None where processes of this machine are asked for."""
    if engine.engine_pool != "ray":
        yield None
        return
    # An extra of its own, of hundreds of megabytes.
    from s2mlp_deploy.serving.ray_runtime import running_ray
    from s2mlp_deploy.serving.service.ray_replicas import RayReplicas, running_serve

    cores = max(1, int(this_machine().usable_cores or 1))
    most = engine.max_instances or max(cores, engine.instances)
    with running_ray(engine.address, cores), running_serve():
        yield lambda setup, size: RayReplicas(setup, size, most, limits)


@contextlib.contextmanager
def _logging(stream: IO[bytes] | None) -> Iterator[JsonLines]:
    """The service's loggers and uvicorn's write JSON lines."""
    lines = JsonLines(stream or open(2, "wb", buffering=0, closefd=False))  # noqa: SIM115
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(lines)
        logger.setLevel(logging.INFO if logger.name.startswith("s2mlp") else logging.WARNING)
        logger.propagate = False
    try:
        yield lines
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(lines)
            logger.setLevel(level)
            logger.propagate = propagate
        lines.close()


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """The socket of HTTP, bound before anything is loaded.

    Raises:
        InputError: It cannot be bound.
    """
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, number)
    except (OSError, UnicodeError) as error:
        raise InputError(f"there is no address {host!r}: {error}", where="--host", fix="--host 127.0.0.1") from error
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(address)
        except (OSError, OverflowError) as error:
            raise InputError(
                f"the address cannot be used: {getattr(error, 'strerror', None) or error}",
                where=f"{host}:{port}",
                fix="choose another with --host and --port, or end whoever listens there",
            ) from error
        sock.listen(_BACKLOG)  # From here on whoever connects is served, if a moment later.
        sock.setblocking(False)
        yield sock


def _allow_connections() -> None:
    """As many open files as this user may have: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(65_536, hard)
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
