"""``s2mlp-deploy inspect``."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from s2mlp_deploy import api
from s2mlp_deploy.api.inspection_tables import print_artifact, print_file_inspection, print_source_inspection
from s2mlp_deploy.api.opening import is_engine
from s2mlp_deploy.api.refusals import check_source
from s2mlp_deploy.cli.console import Json, emit, progress
from s2mlp_deploy.cli.engine_tables import print_engine_inspection
from s2mlp_deploy.cli.options import (
    Checkpoint,
    Preprocess,
    Settings,
    complete_source,
    examples,
    parse_settings,
    refuse_options,
)
from s2mlp_deploy.errors import CheckFailedError, InputError
from s2mlp_deploy.report.engine_layers import print_layers, print_times
from s2mlp_deploy.report.profile import print_profile
from s2mlp_deploy.report.tables import print_words, visible_text


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command(
        epilog=examples(
            "inspect net.py:make",
            "inspect out",
            "inspect out/model.fp32.onnx",
            "inspect s2mlpv2_nano --set dims=64,64",
            "inspect layers.json --profile profile.json",
            "inspect layers.json --profile profile.json --artifact out",
        )
    )
    def inspect(
        target: Annotated[
            str,
            typer.Argument(
                metavar="SOURCE|DIR|FILE",
                autocompletion=complete_source,
                help="A model as `export` takes it, an artifact, an ONNX or engine file, or .json of a "
                "runtime: a profile, an engine's layers, trtexec's times.",
            ),
        ],
        checkpoint: Checkpoint = None,
        settings: Settings = None,
        preprocess: Preprocess = None,
        profile: Annotated[
            Path | None,
            typer.Option(metavar="FILE", help="Of an engine's layers: what trtexec --exportProfile wrote of it."),
        ] = None,
        artifact: Annotated[
            Path | None,
            typer.Option(
                metavar="DIR", help="Keep an engine's layers as evidence of this artifact, whose report draws them."
            ),
        ] = None,
        engine: Annotated[
            str | None,
            typer.Option(
                metavar="FILE", help="With --artifact: which of its engines they are of. Default: the only one."
            ),
        ] = None,
        as_json: Json = False,
    ) -> None:
        """Show the shifts of a model, or what an artifact, an ONNX or an engine file holds.

        Writes nothing, unless --artifact asks for it.
        """
        # A model of the zoo is a model, whatever folder has its name: ./NAME is the folder.
        directory = Path(target).is_dir() and target not in {entry.name for entry in api.models()}
        graph = target.endswith(".onnx")
        nothing_made = directory or is_engine(target) or target.endswith(".json")
        if checkpoint and graph:
            raise InputError("an ONNX file has its weights inside", where=target, fix="leave --checkpoint out")
        if nothing_made and (checkpoint or preprocess or settings):
            raise InputError("--checkpoint, --set and --preprocess are for models", where=target, fix="leave them out")
        if profile is not None and (directory or not target.endswith(".json")):
            raise InputError(
                "--profile gives the layers of an engine their times",
                where=target,
                fix="name the file of layers (.json)",
            )
        if artifact is not None and not (target.endswith(".json") and not directory):
            raise InputError(
                "--artifact keeps the layers of an engine",
                where=target,
                fix="name the file of layers: inspect LAYERS.json --artifact DIR",
            )
        if engine is not None and artifact is None:
            refuse_options(["--engine"], "it says which engine of --artifact the layers are of")
        result: (
            api.ArtifactInspection
            | api.FileInspection
            | api.SourceInspection
            | api.EngineInspection
            | api.EngineLayers
            | api.RunTimes
            | api.Profile
        )
        if directory:
            result = api.inspect_artifact(target)
        elif is_engine(target):
            result = api.inspect_engine(target)
        elif graph:
            overrides = parse_settings(settings)
            result = api.inspect_file(target)
            if result.metadata:
                given = (("--set", settings), ("--preprocess", preprocess))
                refuse_options([option for option, value in given if value], "the file says all of that itself")
            if not (result.metadata or result.problem) and importlib.util.find_spec("torch") is not None:
                with progress() as report:
                    result = api.inspect_graph(target, overrides=overrides, preprocess=preprocess, progress=report)
        elif target.endswith(".json"):
            result = (
                api.inspect_json(target, profile=profile)
                if artifact is None
                else api.keep_layers(target, artifact, profile=profile, engine=engine)
            )
        else:
            check_source(target, checkpoint=checkpoint, preprocess=preprocess)  # Before torch is imported.
            with progress() as report:
                result = api.inspect_source(
                    target,
                    checkpoint=checkpoint,
                    overrides=parse_settings(settings),
                    preprocess=preprocess,
                    progress=report,
                )

        def render(console: Console) -> None:
            from s2mlp_deploy.api.evidence import has_own_report

            if isinstance(result, api.ArtifactInspection):
                print_artifact(console, result, Path(target))
            elif isinstance(result, api.EngineInspection):
                print_engine_inspection(console, result, Path(target))
            elif isinstance(result, api.EngineLayers):
                print_layers(console, result)
                if artifact is not None:
                    of = f"of {result.engine}" if result.engine else "of an engine that is not in it"
                    page = ": report.html" if has_own_report(artifact) else ""
                    print_words(console, visible_text(console, f"Kept in {artifact} as evidence {of}{page}"))
            elif isinstance(result, api.RunTimes):
                print_times(console, result)
            elif isinstance(result, api.Profile):
                print_profile(console, Path(target).name, result)
            elif isinstance(result, api.FileInspection):
                print_file_inspection(console, result, Path(target))
                if result.found is not None:
                    print_source_inspection(console, result.found)
            else:
                print_source_inspection(console, result)

        emit(result, as_json=as_json, render=render)
        if isinstance(result, api.ArtifactInspection) and result.problems:
            told = [f"{name}: {problem}" for name, problem in result.problems.items()]
            raise CheckFailedError(
                "files of the artifact are not the ones that its manifest describes\n    " + "\n    ".join(told),
                where=target,
                fix="export again with --force",
            )
