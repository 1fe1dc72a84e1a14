"""``s2mlp-deploy export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from s2mlp_deploy import api
from s2mlp_deploy.cli.console import Json, emit, progress
from s2mlp_deploy.cli.options import Checkpoint, Preprocess, Seed, Settings, Source, output_path, parse_settings


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command()
    def export(
        source: Source,
        output: Annotated[
            Path, typer.Option("--output", "-o", metavar="DIR", parser=output_path, help="Where the artifact goes.")
        ],
        checkpoint: Checkpoint = None,
        settings: Settings = None,
        preprocess: Preprocess = None,
        with_preprocessing: Annotated[
            bool,
            typer.Option(
                "--with-preprocessing",
                help="Let the graph resize, crop and normalise: its input is then uint8 pictures of any size.",
            ),
        ] = False,
        shift_form: Annotated[
            str, typer.Option(help="How shifts are written: auto, slice-concat, pad-slice, grouped-conv or gather.")
        ] = "auto",
        layout: Annotated[
            str, typer.Option(help="as-is, or channels-last or channels-first for a model of the zoo.")
        ] = "as-is",
        dynamic: Annotated[
            str, typer.Option(help="Axes whose size is free, separated by commas: batch, height, width.")
        ] = "batch",
        on_hazard: Annotated[
            str, typer.Option(help="What to do with code that eager PyTorch does not define: warn or error.")
        ] = "warn",
        opset: Annotated[int, typer.Option(help="ONNX opset, 18 to 25.")] = 20,
        force: Annotated[bool, typer.Option("--force", help="Replace an artifact that is there.")] = False,
        seed: Seed = 0,
        as_json: Json = False,
    ) -> None:
        """Export a model to ONNX with a manifest that describes it."""
        with progress() as report:
            manifest = api.export(
                source,
                output,
                checkpoint=checkpoint,
                overrides=parse_settings(settings) | ({} if layout == "as-is" else {"layout": layout}),
                preprocess=preprocess,
                with_preprocessing=with_preprocessing,
                shift_form=shift_form,
                opset=opset,
                dynamic=[name.strip() for name in dynamic.split(",") if name.strip()],
                on_hazard=on_hazard,
                force=force,
                seed=seed,
                progress=report,
            )

        def render(console: Console) -> None:
            from s2mlp_deploy.report.terminal import print_manifest

            print_manifest(console, manifest, output)

        emit(manifest, as_json=as_json, render=render)
