"""``s2mlp-deploy doctor``."""

from __future__ import annotations

import platform

import msgspec
import typer
from rich.console import Console

from s2mlp_deploy import __version__, api
from s2mlp_deploy.cli.console import Json, emit
from s2mlp_deploy.cli.engine_tables import print_health
from s2mlp_deploy.cli.options import examples


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command(epilog=examples("doctor", "doctor --json"))
    def doctor(as_json: Json = False) -> None:
        """Show which engines can be used on this machine, what the others lack, and which GPUs there are."""
        health = api.doctor()
        machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
        document = {"s2mlp_deploy": __version__, "machine": machine, **msgspec.to_builtins(health)}

        def render(console: Console) -> None:
            print_health(console, health, machine)

        emit(document, as_json=as_json, render=render)
