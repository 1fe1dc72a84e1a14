"""``s2mlp-deploy parity``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    complete_source,
    examples,
    given_options,
    parse_settings,
    refuse_options,
)
from s2mlp_deploy.errors import CheckFailedError, InputError
from s2mlp_deploy.evidence.layers import LayersReport
from s2mlp_deploy.evidence.store import document_of
from s2mlp_deploy.text import command_line, join_names

if TYPE_CHECKING:
    from s2mlp_deploy.api import EnginePieces

_NOISE = "; quantized files hold only near what they were calibrated on: give such --data instead of noise"

_DEFAULT_PIECES = 4
_PIECES = "pieces.json"
"""What a folder has that an engine in pieces is kept in."""

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
            "parity model.onnx other.onnx --per-layer",
            "parity --from layers --rtol 1e-4",
        )
    )
    def parity(
        context: typer.Context,
        source: Annotated[
            str,
            typer.Argument(
                metavar="SOURCE",
                autocompletion=complete_source,
                help="What is right: a zoo model (see `models`), module:function, file.py:function, .pt2 or .onnx.",
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
        pieces: Annotated[
            int | None,
            typer.Option(
                min=2,
                help="With --bisect of an engine: how many pieces it is cut into.",
                show_default=str(_DEFAULT_PIECES),
            ),
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
        """Compare ONNX or engine files with their model, or with another file. Exit status 1 where they differ."""
        from s2mlp_deploy.api.opening import check_built_by, is_engine
        from s2mlp_deploy.parity.tolerances import parse_limits

        absolute, relative = parse_limits(atol or [], "--atol"), parse_limits(rtol or [], "--rtol")
        if saved is not None:
            given = given_options(context)
            rest = [option for name, option in given.items() if name not in ("saved", "atol", "rtol", "as_json")]
            refuse_options(rest, "--from runs nothing: it takes --atol, --rtol and --json")
            if (saved / _PIECES).is_file():
                limits = [option for name, option in given.items() if name in ("atol", "rtol")]
                refuse_options(limits, "the pieces of an engine are judged by what their layers may add")
                _show_layers((api.judge_pieces(saved),), as_json=as_json)
            else:
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
        against_file = source.endswith(".onnx")
        if against_file:
            given = given_options(context)
            unfit = [option for name, option in given.items() if name in ("checkpoint", "settings")]
            refuse_options(unfit, "an ONNX file has its weights and sizes in it")
        else:
            check_source(source, checkpoint=checkpoint, preprocess=preprocess)
        check_parity(files, data)
        if "engine" in given_options(context):
            for file in files:
                check_built_by(file, engine)
        cuts = bisect and any(is_engine(path) for path in files)
        if cuts and (save is None or len(files) > 1 or against_file):
            raise InputError(
                "an engine has no layers that can be looked at without changing it; it is built again in pieces",
                where=", ".join(map(str, files)),
                fix="name the model, one engine and --save DIR, a folder for the pieces",
            )
        if not cuts and pieces is not None:
            refuse_options(["--pieces"], "an engine alone is cut into pieces, with --bisect --save")
        with progress() as report:
            common: dict[str, Any] = {
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
            if not against_file:
                common |= {"checkpoint": checkpoint, "overrides": parse_settings(settings)}
            if cuts:
                unused = ("batch", "atol", "rtol", "engine")
                made = api.engine_pieces(
                    source,
                    files[0],
                    save or "",
                    pieces=pieces or _DEFAULT_PIECES,
                    **{name: value for name, value in common.items() if name not in unused},
                )
            elif per_layer:
                # An ONNX file as the reference needs no torch.
                of_layers = api.layers_against_file if against_file else api.parity_per_layer
                layers = of_layers(source, files, save=save, bisect=bisect, **common)
            else:
                of_outputs = api.parity_against_file if against_file else api.parity
                reports = of_outputs(source, files, **common)
        if cuts:
            _show_pieces(made, save, as_json=as_json)
            return
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
                fix=_where_to_look([item.candidate for item in reports if item.failures])
                + _NOISE * (data is None and any(item.precision not in ("fp32", "fp16") for item in reports))
                + _OTHER_DATA * (data is not None and any(item.failures and item.own_limits for item in reports)),
            )


def _where_to_look(candidates: list[str]) -> str:
    """What to do about files that differ, given the names of the engines that they differ on."""
    ours = "check that source, checkpoint and preprocessing are those of the export"
    others = list(dict.fromkeys(name.split()[0] for name in candidates if not name.startswith(GRAPH_ENGINE)))
    if not others:
        return ours
    return (
        f"compare the ONNX files with --engine {GRAPH_ENGINE} too: where they hold there, it is {join_names(others)} "
        f"that computes something else, and where they do not, {ours}"
    )


def _show_pieces(made: EnginePieces, directory: Path | None, *, as_json: bool) -> None:
    """Says what was built and what remains to be done: a piece runs on its GPU alone."""
    command = command_line("parity", "--from", directory)

    def render(console: Console) -> None:
        console.print(f"{made.file} in {len(made.pieces)} pieces, for {', '.join(made.targets) or 'the GPU here'}:")
        for piece in made.pieces:
            console.print(f"  {piece.engine}  {', '.join(piece.modules)}", markup=False)
        console.print("They were built and not run: each runs on its GPU alone. Copy the folder there and type")
        console.print(f"  {command}", markup=False, soft_wrap=True)
        console.print("which says what piece departs first; no model and no torch are needed for it.")

    emit(made, as_json=as_json, render=render)


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
    clipped = any(
        item.noise and layer.kind == "output" and item.precision.startswith(("int8", "fp8")) for item, layer in failing
    )
    raise CheckFailedError(
        "layers are past their tolerance; the first of each file\n    " + "\n    ".join(failures),
        fix=(
            "--data PATH, like what it was calibrated on: noise lies outside of those ranges. Then " if clipped else ""
        )
        + "look at the first: it is wrong of its own, whatever entered it. --atol and --rtol judge the distance from "
        "the model instead",
    )
