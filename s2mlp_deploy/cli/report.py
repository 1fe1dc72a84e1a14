"""``s2mlp-deploy report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from s2mlp_deploy import api
from s2mlp_deploy.cli.console import Json, emit
from s2mlp_deploy.cli.options import examples
from s2mlp_deploy.report.tables import print_words, visible_text


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command(epilog=examples("report out", "report out --output page.html"))
    def report(
        directory: Annotated[
            Path, typer.Argument(metavar="DIR", help="An artifact, or its manifest.json and evidence/ alone.")
        ],
        output: Annotated[
            Path | None,
            typer.Option("--output", "-o", metavar="FILE", help="The page; default is report.html in DIR."),
        ] = None,
        as_json: Json = False,
    ) -> None:
        """Write an artifact's page again from its manifest and evidence, and print its first paragraph."""
        written = api.report(directory, output)

        def render(console: Console) -> None:
            told = written.opening
            print_words(console, visible_text(console, told.headline, "bold"))
            print_words(console, visible_text(console, " ".join(told.sentences)))
            for failure in told.failures:
                print_words(console, visible_text(console, f"FAILS  {failure}", "red"))
            for command in told.commands:
                console.print(visible_text(console, f"  {command}"), soft_wrap=True)
            console.print(visible_text(console, f"Written to {written.path}"), soft_wrap=True)

        emit(written, as_json=as_json, render=render)
