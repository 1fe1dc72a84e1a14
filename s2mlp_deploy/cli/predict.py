"""``s2mlp-deploy predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from s2mlp_deploy import api
from s2mlp_deploy.cli.console import Json, emit


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command()
    def predict(
        directory: Annotated[Path, typer.Argument(metavar="DIR", help="An artifact.")],
        images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
        precision: Annotated[str, typer.Option(help="Which of the artifact's files.")] = "fp32",
        top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 5,
        provider: Annotated[str, typer.Option(help="ONNX Runtime's execution provider.")] = "CPUExecutionProvider",
        as_json: Json = False,
    ) -> None:
        """Classify images with an artifact. Needs no torch."""
        predictions = api.predict(directory, images, precision=precision, top=top, provider=provider)

        def render(console: Console) -> None:
            for item in predictions:
                console.print(item.image, style="bold", highlight=False, markup=False)
                for name, probability in zip(item.classes, item.probabilities, strict=True):
                    console.print(f"  {probability:7.2%}  {name}", highlight=False, markup=False)

        emit(predictions, as_json=as_json, render=render)
