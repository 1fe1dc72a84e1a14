"""``s2mlp-deploy doctor``."""

from __future__ import annotations

import platform

import typer
from rich.console import Console

from s2mlp_deploy import __version__, api
from s2mlp_deploy.cli.console import Json, emit


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command()
    def doctor(as_json: Json = False) -> None:
        """Show which engines can be used on this machine and what the others lack."""
        statuses = api.doctor()
        machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"

        def render(console: Console) -> None:
            from s2mlp_deploy.report.terminal import print_table

            console.print(f"s2mlp-deploy {__version__} on {machine}", highlight=False)
            rows = [
                (
                    status.name,
                    "yes" if status.available else "no",
                    status.version or "",
                    "\n".join(part for part in (status.detail, status.missing, status.install_hint) if part),
                )
                for status in statuses
            ]
            print_table(console, "Engines", ("engine", "usable", "version", "detail"), rows)

        emit(
            {"s2mlp_deploy": __version__, "machine": machine, "engines": statuses},
            as_json=as_json,
            render=render,
        )
