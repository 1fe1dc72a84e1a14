"""``s2mlp-deploy serve``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated

import typer

from s2mlp_deploy import api
from s2mlp_deploy.choices import EnginePool
from s2mlp_deploy.cli.options import (
    AllowUnproven,
    FlushDenormals,
    NoSpin,
    RunEngine,
    RunPrecision,
    Threads,
    choices,
    examples,
)
from s2mlp_deploy.errors import InputError, OutputError
from s2mlp_deploy.files import make_below, no_empty_parents

_TOKEN = "S2MLP_TOKEN"
_TOKEN_BYTES = 65_536
_MIB = 2**20


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command(
        epilog=examples(
            "serve out",
            "serve models/digits models/flowers --port 8080",
            "serve models/digits --instances 2 --threads 1",
            "serve models/digits --engine-pool ray --max-instances 4",
        )
    )
    def serve(
        artifacts: Annotated[
            list[Path],
            typer.Argument(metavar="ARTIFACT...", help="Artifacts, or folders with one for each version: digits/1."),
        ],
        host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
        port: Annotated[int, typer.Option(min=0, max=65535, help="Of HTTP; 0: any that is free.")] = 8000,
        grpc_port: Annotated[
            int | None, typer.Option(min=0, max=65535, help="Of gRPC; 0: any that is free. Default: no gRPC.")
        ] = None,
        precision: RunPrecision = None,
        engine: RunEngine = None,
        threads: Threads = None,
        no_spin: NoSpin = False,
        flush_denormals: FlushDenormals = False,
        allow_unproven: AllowUnproven = False,
        instances: Annotated[int, typer.Option(min=1, help="Processes for each model; of Ray at least so many.")] = 1,
        max_instances: Annotated[
            int | None, typer.Option(min=1, help="Of Ray at most so many. Default: one for each core there is.")
        ] = None,
        engine_pool: Annotated[EnginePool, typer.Option(**choices(EnginePool, "Who runs the engines."))] = "process",
        address: Annotated[
            str | None, typer.Option(metavar="ADDRESS", help="Of a Ray cluster. Default: Ray starts on this machine.")
        ] = None,
        max_batch: Annotated[int, typer.Option(min=1, help="Samples in one run; 1: no batching.")] = 8,
        max_delay: Annotated[float, typer.Option(min=0, help="Milliseconds a request waits for others.")] = 2.0,
        queue: Annotated[int, typer.Option(min=1, help="Requests that may wait for a model.")] = 128,
        timeout: Annotated[float, typer.Option(help="Seconds for a request.")] = 30.0,
        body_timeout: Annotated[float, typer.Option(help="Seconds for a request's head, and for its body.")] = 20.0,
        max_body: Annotated[int, typer.Option(min=1, help="MiB of a request.")] = 32,
        max_pixels: Annotated[int, typer.Option(min=1, help="Of an image.")] = 50_000_000,
        token_file: Annotated[
            Path | None, typer.Option(metavar="FILE", help=f"Holds the bearer token. Default: ${_TOKEN}, else none.")
        ] = None,
        reload_every: Annotated[float, typer.Option(min=0, help="Seconds between looks for new files.")] = 5.0,
        drain: Annotated[float, typer.Option(help="Seconds for running requests when it ends.")] = 30.0,
        log_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Log there, not on stderr.")] = None,
    ) -> None:
        """Serve artifacts over HTTP and gRPC: the Open Inference Protocol (KServe v2), and images. Needs no torch."""
        options = api.ServeOptions(host, port, grpc_port, _token(token_file), reload_every)
        opened = api.EngineOptions(
            precision=precision,
            engine=engine,
            threads=threads,
            spin=False if no_spin else None,
            flush_denormals=flush_denormals,
            allow_unproven=allow_unproven,
            instances=instances,
            engine_pool=engine_pool,
            address=address,
            max_instances=max_instances,
        )
        limits = api.ServiceLimits(
            max_batch=max_batch,
            max_delay=max_delay / 1000,
            queue=queue,
            timeout=timeout,
            body_timeout=body_timeout,
            max_body=max_body * _MIB,
            max_pixels=max_pixels,
            drain=drain,
        )
        with contextlib.nullcontext() if log_file is None else _opened(log_file) as log:
            api.serve(artifacts, options=options, engine=opened, limits=limits, log=log)


def _token(file: Path | None) -> str | None:
    """The token, from a file or the environment: on the command line everybody on the machine could read it.

    Raises:
        InputError: There is nothing that can be sent in a header.
    """
    if file is None:
        if _TOKEN not in os.environ:
            return None
        where, text = f"${_TOKEN}", os.environ[_TOKEN]
    else:
        try:
            where = str(file)
            with file.open("rb") as stream:  # It may be a pipe; a device never ends.
                raw = stream.read(_TOKEN_BYTES + 1)
            text = raw.decode()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"the token cannot be read: {getattr(error, 'strerror', None) or error}",
                where=str(file),
                fix="write it there: openssl rand -hex 32 > token",
            ) from error
        if len(raw) > _TOKEN_BYTES:
            raise InputError(
                f"the token is longer than {_TOKEN_BYTES:,} bytes: this is another file",
                where=where,
                fix="openssl rand -hex 32 > token",
            )
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(
            "the token is empty, or has characters that no header takes",
            where=where,
            fix="openssl rand -hex 32 > token",
        )
    return token


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    """The log, to be added to. One that is new goes again where nothing came into it: what is refused leaves none.

    Raises:
        OutputError: It cannot be written.
    """
    with no_empty_parents(file):
        new = not os.path.lexists(file)
        try:
            stream = make_below(file.parent, lambda: file.open("ab", buffering=0))
        except OSError as error:
            raise OutputError(
                f"the log cannot be written: {error.strerror}", where=str(file), fix="choose another with --log-file"
            ) from error
        try:
            with stream:
                yield stream
        finally:
            with contextlib.suppress(OSError):
                if new and not file.stat().st_size:
                    file.unlink()
