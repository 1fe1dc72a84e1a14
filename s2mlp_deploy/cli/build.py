"""``s2mlp-deploy build``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from s2mlp_deploy import api
from s2mlp_deploy.cli.console import Json, emit, progress
from s2mlp_deploy.cli.options import output_path

_SHAPES = "NAME:1x3x224x224"


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command()
    def build(
        file: Annotated[Path, typer.Argument(metavar="FILE.onnx", help="The graph to build.")],
        engine: Annotated[str, typer.Option(help="tensorrt-rtx.")] = "tensorrt-rtx",
        target: Annotated[
            list[str] | None, typer.Option(help="Compute capability, for example sm89; may be repeated.")
        ] = None,
        min_shapes: Annotated[
            list[str] | None,
            typer.Option(metavar=_SHAPES, help="Smallest shape of an input; default batch 1."),
        ] = None,
        opt_shapes: Annotated[
            list[str] | None, typer.Option(metavar=_SHAPES, help="Shape to tune for; default batch 8.")
        ] = None,
        max_shapes: Annotated[
            list[str] | None,
            typer.Option(metavar=_SHAPES, help="Largest shape of an input; default batch 32."),
        ] = None,
        output: Annotated[
            Path | None,
            typer.Option(
                "--output", "-o", metavar="FILE", parser=output_path, help="Default: <stem>.<engine>.<targets>.engine."
            ),
        ] = None,
        as_json: Json = False,
    ) -> None:
        """Build an engine file from an ONNX file. No GPU is needed."""
        from s2mlp_deploy.engines.profiles import parse_shapes

        with progress() as report:
            report("building", 0, None)
            record = api.build(
                file,
                engine=engine,
                targets=target or [],
                output=output,
                min_shapes=parse_shapes(min_shapes or []),
                opt_shapes=parse_shapes(opt_shapes or []),
                max_shapes=parse_shapes(max_shapes or []),
            )

        def render(console: Console) -> None:
            from s2mlp_deploy.report.terminal import print_build

            print_build(console, msgspec.to_builtins(record))

        emit(record, as_json=as_json, render=render)
