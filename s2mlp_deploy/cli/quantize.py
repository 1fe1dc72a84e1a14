"""``s2mlp-deploy quantize``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from s2mlp_deploy import api
from s2mlp_deploy.api.refusals import check_quantize, check_quantize_file
from s2mlp_deploy.choices import Precision
from s2mlp_deploy.cli import options
from s2mlp_deploy.cli.console import Json, emit, progress
from s2mlp_deploy.report.accuracy import print_accuracy
from s2mlp_deploy.report.speed import print_speed
from s2mlp_deploy.report.tables import print_words, visible_text
from s2mlp_deploy.report.terminal import can_build, print_next

_OF_FILES = ("output", "settings", "preprocess", "force")


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command(
        epilog=options.examples(
            "quantize out --data images",
            "quantize out --data data.zip --precision fp16,int8 --max-drop 1",
            "quantize vendor.onnx --data images --preprocess pre.json -o out",
        )
    )
    def quantize(
        context: typer.Context,
        target: Annotated[
            Path,
            typer.Argument(
                metavar="DIR|FILE.onnx",
                help="An artifact with model.fp32.onnx, or a float32 file of anybody's, which becomes one.",
            ),
        ],
        data: Annotated[
            str,
            typer.Option(help="What to calibrate on: a folder or archive of images, .npy or .npz, a saved data set."),
        ],
        output: Annotated[
            Path | None,
            typer.Option("--output", "-o", metavar="DIR", help="Of FILE.onnx: where it goes."),
        ] = None,
        settings: Annotated[
            list[str] | None,
            typer.Option("--set", metavar="NAME=SIZE", help="Of FILE.onnx: fix a free size; repeat."),
        ] = None,
        preprocess: Annotated[
            Path | None,
            typer.Option(metavar="FILE.json", help="Of FILE.onnx: how an image becomes the input."),
        ] = None,
        precision: Annotated[
            list[str] | None,
            typer.Option(
                **options.choices(Precision, "Separated by commas, or repeated. Default: int8.", several=True)
            ),
        ] = None,
        method: options.Method = api.CALIBRATION_METHOD,
        samples: options.Samples = api.CALIBRATION_SAMPLES,
        max_drop: options.MaxDrop = None,
        min_cosine: options.MinCosine = None,
        min_top1: options.MinTop1 = None,
        limits: options.LimitsFile = None,
        metric: options.Metric = None,
        score_output: options.ScoreOutput = None,
        eval_data: options.EvalData = None,
        eval_samples: options.EvalSamples = api.EVAL_SAMPLES,
        exclude: options.Exclude = None,
        exclude_op: options.ExcludeOp = None,
        reduce_range: options.ReduceRange = False,
        calibration_cache: options.CalibrationCache = None,
        half_io: options.HalfIo = False,
        no_speed_check: options.NoSpeedCheck = False,
        min_speedup: options.MinSpeedup = None,
        force: Annotated[
            bool, typer.Option("--force", help="Of FILE.onnx: replace an artifact that is there.")
        ] = False,
        seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of drawn samples.")] = 0,
        as_json: Json = False,
    ) -> None:
        """Add float16 and quantized files to an artifact (int8 by default), and score them.

        An ONNX file is exported to an artifact first, with the same steps as `export`.
        """
        precisions = options.separated(precision, "int8")
        options.refuse_unused_calibration(context, precisions, data)
        options.refuse_unused_speed(no_check=no_speed_check, min_speedup=min_speedup)
        wanted = api.PrecisionOptions(
            precisions=precisions,
            data=data,
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
        result: api.Quantized | api.ExportResult
        # Refused before onnx is imported.
        if target.suffix == ".onnx":
            place = check_quantize_file(target, output, wanted, preprocess=preprocess, force=force)
            with progress() as report:
                result = api.export(
                    str(target),
                    place,
                    overrides=options.parse_settings(settings),
                    preprocess=preprocess,
                    force=force,
                    precision=wanted,
                    progress=report,
                )
        else:
            given = options.given_options(context)
            unused = [given[name] for name in _OF_FILES if name in given]
            options.refuse_options(
                unused,
                "only for FILE.onnx. What is made of an artifact goes into it, with its own preprocessing, and "
                "replaces the files of these precisions",
            )
            place = target
            check_quantize(target, wanted)
            with progress() as report:
                result = api.quantize(target, wanted, progress=report)

        def render(console: Console) -> None:
            if result.accuracy is not None:
                print_accuracy(console, result.accuracy)
            if result.speed is not None:
                print_speed(console, result.speed, str(place), data=data, reduced=reduce_range)
            print_words(console, visible_text(console, f"Written into {place}"))
            print_next(
                console, result.manifest, place, data=eval_data or data, samples=eval_samples, can_build=can_build()
            )

        told = {"manifest": result.manifest, "accuracy": result.accuracy, "speed": result.speed}
        emit(told, as_json=as_json, render=render)
        options.refuse_poor_files(result.accuracy)
        options.refuse_slow_files(result.speed)
