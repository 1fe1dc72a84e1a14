"""``s2mlp-deploy doctor``."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from s2mlp_deploy import __version__, api
from s2mlp_deploy.cli.console import Json, emit
from s2mlp_deploy.cli.engine_tables import print_diagnosis, print_health
from s2mlp_deploy.cli.options import RunEngine, RunPrecision, examples, given_options, refuse_options
from s2mlp_deploy.errors import CheckFailedError


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command(epilog=examples("doctor", "doctor build/cifar10", "doctor build/cifar10 --json"))
    def doctor(
        context: typer.Context,
        directory: Annotated[
            Path | None, typer.Argument(metavar="[DIR]", help="An artifact: what would run of it here, and why.")
        ] = None,
        precision: RunPrecision = None,
        engine: RunEngine = None,
        as_json: Json = False,
    ) -> None:
        """Show which engines can be used on this machine, what the others lack, and which GPUs there are.

        Of an artifact also what would run of it here and why, and what would make it slow.
        """
        given = given_options(context)
        if directory is None:
            refuse_options([given[name] for name in ("precision", "engine") if name in given], "no artifact is named")
        found = None if directory is None else api.diagnose(directory, precision=precision, engine=engine)
        health = api.doctor()
        machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
        document = {"s2mlp_deploy": __version__, "machine": machine, **msgspec.to_builtins(health)}
        if found is not None:
            document["artifact"] = msgspec.to_builtins(found, enc_hook=str)

        def render(console: Console) -> None:
            print_health(console, health, machine)
            if found is not None:
                print_diagnosis(console, found, str(directory))

        emit(document, as_json=as_json, render=render)
        if found is not None and found.plan is None:
            raise CheckFailedError(found.refusal, where=str(directory), fix=found.fix)
