"""``s2mlp-deploy predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from s2mlp_deploy import api
from s2mlp_deploy.cli.console import Json, emit
from s2mlp_deploy.cli.options import AllowUnproven, FlushDenormals, NoSpin, RunEngine, RunPrecision, Threads, examples
from s2mlp_deploy.errors import CheckFailedError, ImageError


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command(
        epilog=examples("predict out image.jpg", "predict out images --top 1", "predict out images --save all.npz")
    )
    def predict(
        directory: Annotated[Path, typer.Argument(metavar="DIR", help="An artifact.")],
        images: Annotated[
            list[Path], typer.Argument(metavar="IMAGE|FOLDER...", help="Image files, or folders of them.")
        ],
        precision: RunPrecision = None,
        output: Annotated[
            str | None,
            typer.Option(metavar="NAME", help="The output that holds the scores. Default: the one that looks like it."),
        ] = None,
        top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 5,
        save: Annotated[
            Path | None, typer.Option(metavar="FILE.npz", help="Save all outputs of all images for numpy.load.")
        ] = None,
        engine: RunEngine = None,
        threads: Threads = None,
        no_spin: NoSpin = False,
        flush_denormals: FlushDenormals = False,
        allow_unproven: AllowUnproven = False,
        as_json: Json = False,
    ) -> None:
        """Classify images with an artifact. Needs no torch."""
        predictions = api.predict(
            directory,
            images,
            precision=precision,
            output=output,
            top=top,
            save=save,
            engine=engine,
            threads=threads,
            spin=False if no_spin else None,
            flush_denormals=flush_denormals or None,
            allow_unproven=allow_unproven,
        )

        def render(console: Console) -> None:
            for item in predictions:
                if not (lines := _lines(item)):
                    continue  # Named on stderr.
                console.print(item.image, style="bold", highlight=False, markup=False, soft_wrap=True)
                for line in lines:
                    console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
            if save is not None:
                console.print(f"Saved: {save}", highlight=False, markup=False, soft_wrap=True)

        emit(predictions, as_json=as_json, render=render)
        _refuse_failures(predictions)


def _lines(item: api.Prediction) -> list[str]:
    """What is printed below an image's name; nothing of one that could not be used."""
    lines = [f"{share:7.2%}  {name}" for name, share in zip(item.classes, item.probabilities, strict=True)]
    for output in item.outputs:
        shape = "x".join(map(str, output.shape)) or "one number"
        values = "" if output.min is None or output.max is None else f"  {output.min:.6g} to {output.max:.6g}"
        broken = f"  {output.not_finite} NaN or infinite" if output.not_finite else ""
        lines.append(f"{output.name}: {output.dtype} {shape}{values}{broken}")
    return lines


def _refuse_failures(predictions: list[api.Prediction]) -> None:
    """Ends a command in which an image has no prediction, once the others are printed.

    Raises:
        ImageError: An image could not be used.
        CheckFailedError: All could be used, and the model says of one what is not finite.
    """
    failed = [(item.image, item.error) for item in predictions if item.error is not None]
    if not failed:
        return
    kind = ImageError if any(error.kind == "image" for _, error in failed) else CheckFailedError
    told = "".join(f"\n    {image}: {error.problem}" for image, error in failed)
    raise kind(
        f"{len(failed)} of {len(predictions)} images have no prediction{told}",
        fix="; ".join(dict.fromkeys(error.fix for _, error in failed if error.fix)),
    )
