"""``s2mlp-deploy inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from s2mlp_deploy import api
from s2mlp_deploy.cli.console import Json, emit
from s2mlp_deploy.cli.options import Checkpoint, Preprocess, Settings, parse_settings


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command()
    def inspect(
        target: Annotated[
            str,
            typer.Argument(metavar="SOURCE|FILE.onnx", help="A model as `export` takes it, or an ONNX file."),
        ],
        checkpoint: Checkpoint = None,
        settings: Settings = None,
        preprocess: Preprocess = None,
        as_json: Json = False,
    ) -> None:
        """Show the shifts of a model, or what an ONNX file holds. Writes nothing."""
        result: api.FileInspection | api.SourceInspection
        if target.endswith(".onnx"):
            result = api.inspect_file(target)
        else:
            result = api.inspect_source(
                target, checkpoint=checkpoint, overrides=parse_settings(settings), preprocess=preprocess
            )

        def render(console: Console) -> None:
            from s2mlp_deploy.report.inspection import print_file_inspection, print_source_inspection

            document = msgspec.to_builtins(result)
            if isinstance(result, api.FileInspection):
                print_file_inspection(console, document, Path(target))
            else:
                print_source_inspection(console, document)

        emit(result, as_json=as_json, render=render)
