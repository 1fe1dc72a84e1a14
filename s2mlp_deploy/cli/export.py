"""``s2mlp-deploy export``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from s2mlp_deploy import api
from s2mlp_deploy.api.refusals import check_export, check_source, refuse_repair
from s2mlp_deploy.choices import (
    CALIBRATION_METHOD,
    CALIBRATION_SAMPLES,
    EVAL_SAMPLES,
    Layout,
    OnHazard,
    ShiftFormName,
)
from s2mlp_deploy.cli import options
from s2mlp_deploy.cli.console import Json, emit, progress
from s2mlp_deploy.report.accuracy import print_accuracy
from s2mlp_deploy.report.speed import print_speed
from s2mlp_deploy.report.terminal import can_build, print_manifest, print_next


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command(
        epilog=options.examples(
            "export s2mlpv2_nano --output out",
            "export net.py:make --checkpoint w.safetensors --output out",
            "export net.py:make -o out --precision int8 --calibration-data dir",
            "export net.py:make -o out --dynamic batch,height,width",
            "export vendor.onnx -o out --precision fp16",
        )
    )
    def export(
        context: typer.Context,
        source: options.Source,
        output: Annotated[
            Path,
            typer.Option("--output", "-o", metavar="DIR", help="Where the artifact goes."),
        ],
        checkpoint: options.Checkpoint = None,
        settings: options.Settings = None,
        preprocess: options.Preprocess = None,
        name: Annotated[
            str | None,
            typer.Option(help="What to serve it as. Default: the checkpoint's stem, or the model's name."),
        ] = None,
        with_preprocessing: Annotated[
            bool,
            typer.Option(
                "--with-preprocessing",
                help="Let the graph resize, crop and normalise: its input is then uint8 images of any size.",
            ),
        ] = False,
        shift_form: Annotated[
            ShiftFormName,
            typer.Option(
                **options.choices(ShiftFormName, "How shifts are written; auto: as `tune` found here, else by cost.")
            ),
        ] = "auto",
        layout: Annotated[
            Layout,
            typer.Option(
                **options.choices(Layout, "Inner layout, of models of the zoo; auto: as `tune` found, else as-is.")
            ),
        ] = "auto",
        dynamic: Annotated[
            str, typer.Option(help="Axes whose size is free, separated by commas: batch, depth, height, width.")
        ] = "batch",
        on_hazard: Annotated[
            OnHazard,
            typer.Option(**options.choices(OnHazard, "What to do with code that eager PyTorch does not define.")),
        ] = "warn",
        repair_smear: Annotated[
            bool,
            typer.Option(
                "--repair-smear",
                help="Of an ONNX file that holds what an overlapping copy left of a shift: export the shift that was "
                "meant. The numbers change.",
            ),
        ] = False,
        opset: Annotated[
            int | None,
            typer.Option(help="ONNX opset, 18 to 25; of an ONNX file its own where that is later.", show_default="20"),
        ] = None,
        precision: options.Precisions = None,
        calibration_data: Annotated[
            str | None,
            typer.Option(help="What int8 and fp8 are calibrated on: images in a folder or archive, .npy, .npz."),
        ] = None,
        method: options.Method = CALIBRATION_METHOD,
        samples: options.Samples = CALIBRATION_SAMPLES,
        max_drop: options.MaxDrop = None,
        min_cosine: options.MinCosine = None,
        min_top1: options.MinTop1 = None,
        limits: options.LimitsFile = None,
        metric: options.Metric = None,
        score_output: options.ScoreOutput = None,
        eval_data: options.EvalData = None,
        eval_samples: options.EvalSamples = EVAL_SAMPLES,
        exclude: options.Exclude = None,
        exclude_op: options.ExcludeOp = None,
        reduce_range: options.ReduceRange = False,
        calibration_cache: options.CalibrationCache = None,
        half_io: options.HalfIo = False,
        no_speed_check: options.NoSpeedCheck = False,
        min_speedup: options.MinSpeedup = None,
        flush_denormals: Annotated[
            bool,
            typer.Option(
                "--flush-denormals", help="Write 0 for weights below the smallest normal float32: they are slow."
            ),
        ] = False,
        force: Annotated[bool, typer.Option("--force", help="Replace an artifact that is there.")] = False,
        seed: options.Seed = 0,
        as_json: Json = False,
    ) -> None:
        """Export a model to ONNX with a manifest that describes it."""
        precisions = options.separated(precision, "fp32")
        options.refuse_unused_calibration(context, precisions, calibration_data)
        options.refuse_unused_speed(no_check=no_speed_check, min_speedup=min_speedup)
        wanted = api.PrecisionOptions(
            precisions=precisions,
            data=calibration_data,
            method=method,
            samples=samples,
            max_drop=max_drop,
            min_cosine=min_cosine,
            min_top1=min_top1,
            limits=api.read_limits(limits) if limits is not None else None,
            metric=api.load_metric(metric) if metric is not None else None,
            score_output=score_output,
            eval_data=eval_data,
            eval_samples=eval_samples,
            exclude=exclude or (),
            exclude_ops=exclude_op or (),
            reduce_range=reduce_range,
            cache=calibration_cache,
            half_io=half_io,
            speed_check=not no_speed_check,
            min_speedup=min_speedup,
            seed=seed,
        )
        # Before torch is imported.
        check_source(source, checkpoint=checkpoint, preprocess=preprocess)
        if repair_smear and not source.endswith(".onnx"):
            refuse_repair(source)
        check_export(output, force=force, opset=opset, precision=wanted)
        with progress() as report:
            result = api.export(
                source,
                output,
                checkpoint=checkpoint,
                overrides=options.parse_settings(settings),
                preprocess=preprocess,
                name=name,
                with_preprocessing=with_preprocessing,
                shift_form=shift_form,
                layout=layout,
                opset=opset,
                dynamic=options.parse_axes(dynamic),
                on_hazard=on_hazard,
                repair_smear=repair_smear,
                flush_denormals=flush_denormals,
                force=force,
                seed=seed,
                precision=wanted,
                progress=report,
            )

        def render(console: Console) -> None:
            # The manifest names files; a command that can be typed needs the paths.
            named = replace(
                result.manifest.source,
                reference=source,
                checkpoint=None if checkpoint is None else str(checkpoint),
                preprocess=None if preprocess is None else str(preprocess),
            )
            print_manifest(console, result.manifest, output)
            if result.accuracy is not None:
                print_accuracy(console, result.accuracy)
            if result.speed is not None:
                print_speed(console, result.speed, str(output), data=calibration_data, reduced=reduce_range)
            print_next(
                console,
                result.manifest,
                output,
                named,
                data=eval_data or calibration_data,
                samples=eval_samples,
                can_build=can_build(),
            )

        told = {"manifest": result.manifest, "accuracy": result.accuracy, "speed": result.speed}
        emit(told, as_json=as_json, render=render)
        options.refuse_poor_files(result.accuracy)
        options.refuse_slow_files(result.speed)
