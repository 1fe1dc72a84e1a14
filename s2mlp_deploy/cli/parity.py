"""``s2mlp-deploy parity``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from s2mlp_deploy import api
from s2mlp_deploy.api.refusals import check_parity, check_source
from s2mlp_deploy.choices import GRAPH_ENGINE
from s2mlp_deploy.cli.console import Json, emit, progress
from s2mlp_deploy.cli.options import (
    Checkpoint,
    Engine,
    Preprocess,
    Settings,
    examples,
    given_options,
    parse_settings,
    refuse_options,
)
from s2mlp_deploy.errors import CheckFailedError, InputError
from s2mlp_deploy.evidence.layers import LayersReport
from s2mlp_deploy.evidence.store import document_of

_NOISE = "; quantized files hold only near what they were calibrated on: give such --data instead of noise"

_OTHER_DATA = "; a file's own figures hold for data like that which it was made on"


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command(
        epilog=examples(
            "parity s2mlpv2_nano out",
            "parity net.py:make out --data images --samples 200",
            "parity net.py:make model.onnx --checkpoint w.pt --atol 1e-4",
            "parity s2mlpv2_nano out --per-layer --save layers",
            "parity s2mlpv2_nano out --engine openvino",
            "parity --from layers --rtol 1e-4",
        )
    )
    def parity(
        context: typer.Context,
        source: Annotated[
            str,
            typer.Argument(
                metavar="SOURCE",
                help="A zoo model (see `models`), module:function, file.py:function or model.pt2.",
                show_default=False,
            ),
        ] = "",
        files: Annotated[
            list[Path] | None,
            typer.Argument(metavar="FILE|DIR...", help="ONNX or engine files to compare with it, or artifacts."),
        ] = None,
        checkpoint: Checkpoint = None,
        settings: Settings = None,
        preprocess: Preprocess = None,
        data: Annotated[
            Path | None,
            typer.Option(
                metavar="PATH",
                help="Images (a folder, an archive, archive/folder) or arrays (.npz, .npy). Without it: seeded noise.",
            ),
        ] = None,
        samples: Annotated[int | None, typer.Option(min=1, help="At most this many images.")] = None,
        batch: Annotated[int, typer.Option(min=1, help="Images per run.")] = 8,
        atol: Annotated[
            list[str] | None,
            typer.Option(
                metavar="[OUTPUT=]VALUE",
                help="Allowed absolute difference, of all outputs or of one; repeat. Default: by the file's precision.",
            ),
        ] = None,
        rtol: Annotated[
            list[str] | None,
            typer.Option(metavar="[OUTPUT=]VALUE", help="Allowed difference relative to the reference's peak; repeat."),
        ] = None,
        per_layer: Annotated[
            bool,
            typer.Option(
                "--per-layer", help="Compare what leaves each module instead, and show where a file departs first."
            ),
        ] = False,
        bisect: Annotated[
            bool,
            typer.Option(
                "--bisect", help="Like --per-layer, and try what mends the first layer that departs, and measure it."
            ),
        ] = False,
        save: Annotated[
            Path | None,
            typer.Option(metavar="DIR", help="With --per-layer: keep the tensors of all layers in a new folder."),
        ] = None,
        saved: Annotated[
            Path | None,
            typer.Option(
                "--from", metavar="DIR", help="Judge what --save kept, without SOURCE and files; nothing is run."
            ),
        ] = None,
        engine: Engine = GRAPH_ENGINE,
        seed: Annotated[
            int | None,
            typer.Option(
                min=0, max=2**32 - 1, help="Of random weights, noise and drawn samples. Default: the artifact's."
            ),
        ] = None,
        as_json: Json = False,
    ) -> None:
        """Compare ONNX or engine files with the PyTorch model they come from. Exit status 1 where they differ."""
        from s2mlp_deploy.parity.tolerances import parse_limits

        absolute, relative = parse_limits(atol or [], "--atol"), parse_limits(rtol or [], "--rtol")
        if saved is not None:
            given = given_options(context)
            rest = [option for name, option in given.items() if name not in ("saved", "atol", "rtol", "as_json")]
            refuse_options(rest, "--from runs nothing: it takes --atol, --rtol and --json")
            _show_layers(api.rejudge_layers(saved, atol=absolute, rtol=relative), as_json=as_json)
            return
        if not source or not files:
            raise InputError(
                f"Missing argument '{'FILE|DIR...' if source else 'SOURCE'}'.",
                where=context.command_path,
                fix=f"{context.command_path} --help",
            )
        per_layer = per_layer or bisect
        if save is not None and not per_layer:
            refuse_options(["--save"], "it keeps the tensors of layers; add --per-layer")
        # Before torch is imported.
        check_source(source, checkpoint=checkpoint, preprocess=preprocess)
        check_parity(files, data)
        with progress() as report:
            common: dict[str, Any] = {
                "checkpoint": checkpoint,
                "overrides": parse_settings(settings),
                "preprocess": preprocess,
                "data": data,
                "samples": samples,
                "batch": batch,
                "atol": absolute,
                "rtol": relative,
                "engine": engine,
                "seed": seed,
                "progress": report,
            }
            if per_layer:
                layers = api.parity_per_layer(source, files, save=save, bisect=bisect, **common)
            else:
                reports = api.parity(source, files, **common)
        if per_layer:
            _show_layers(layers, as_json=as_json)
            return

        def render(console: Console) -> None:
            from s2mlp_deploy.report.terminal import print_parity

            for item in reports:
                print_parity(console, item)

        emit([document_of(item) for item in reports], as_json=as_json, render=render)
        failures = [f"{item.file}: {failure}" for item in reports for failure in item.failures]
        if failures:
            raise CheckFailedError(
                "parity does not hold\n    " + "\n    ".join(failures),
                fix="check that source, checkpoint and preprocessing are those of the export"
                + _NOISE * (data is None and any(item.precision not in ("fp32", "fp16") for item in reports))
                + _OTHER_DATA * (data is not None and any(item.failures and item.own_limits for item in reports)),
            )


def _show_layers(reports: tuple[LayersReport, ...], *, as_json: bool) -> None:
    """Prints layers and ends with 1 where one is past its tolerance."""

    def render(console: Console) -> None:
        from s2mlp_deploy.report.layers import print_layers

        for item in reports:
            print_layers(console, item)

    emit([document_of(item) for item in reports], as_json=as_json, render=render)
    failing = [(item, item.first) for item in reports if item.first is not None]
    if not failing:
        return
    failures = [f"{item.file}: {layer.path}: {layer.failures[0]}" for item, layer in failing]
    # What is quantized clips what lies outside of the ranges that it was calibrated on, and noise does.
    clipped = any(item.noise and item.precision.startswith(("int8", "fp8")) for item, _ in failing)
    raise CheckFailedError(
        "layers are past their tolerance; the first of each file\n    " + "\n    ".join(failures),
        fix=(
            "--data PATH, like what it was calibrated on: noise lies outside of those ranges. Then " if clipped else ""
        )
        + "look at the first: what enters it is within its limits. --atol and --rtol set others",
    )
