"""``s2mlp-deploy export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from s2mlp_deploy import api
from s2mlp_deploy.cli.console import Json, emit, progress
from s2mlp_deploy.cli.options import (
    CalibrationCache,
    Checkpoint,
    EvalData,
    EvalSamples,
    HalfIo,
    MaxDrop,
    Method,
    Preprocess,
    Samples,
    Seed,
    Settings,
    Source,
    output_path,
    parse_settings,
)


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
        precision: Annotated[
            list[str] | None,
            typer.Option(help="fp32 (always written), fp16, int8 or fp8; may be repeated."),
        ] = None,
        calibration_data: Annotated[
            str | None,
            typer.Option(help="What int8 and fp8 are calibrated on: pictures in a folder or archive, .npy, .npz."),
        ] = None,
        method: Method = api.CALIBRATION_METHOD,
        samples: Samples = api.CALIBRATION_SAMPLES,
        max_drop: MaxDrop = None,
        eval_data: EvalData = None,
        eval_samples: EvalSamples = api.EVAL_SAMPLES,
        calibration_cache: CalibrationCache = None,
        half_io: HalfIo = False,
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
                precision=api.PrecisionOptions(
                    precisions=precision or ["fp32"],
                    data=calibration_data,
                    method=method,
                    samples=samples,
                    max_drop=max_drop,
                    eval_data=eval_data,
                    eval_samples=eval_samples,
                    cache=calibration_cache,
                    half_io=half_io,
                    seed=seed,
                ),
                progress=report,
            )

        def render(console: Console) -> None:
            from s2mlp_deploy.evidence.accuracy import AccuracyReport
            from s2mlp_deploy.evidence.store import read_record
            from s2mlp_deploy.report.accuracy import print_accuracy
            from s2mlp_deploy.report.terminal import print_manifest, print_next

            print_manifest(console, manifest, output)
            scores = read_record(output, AccuracyReport)
            # A folder may hold evidence of an artifact that was deleted by hand.
            if scores is not None and not scores.outdated(manifest):
                print_accuracy(console, scores)
            print_next(console, manifest, output, checkpoint)

        emit(manifest, as_json=as_json, render=render)
