"""``s2mlp-deploy tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from s2mlp_deploy import api
from s2mlp_deploy.api.tune_options import MINUTES
from s2mlp_deploy.cli.console import Json, emit, progress
from s2mlp_deploy.cli.options import complete_graph_engine, examples, refuse_options
from s2mlp_deploy.errors import CheckFailedError
from s2mlp_deploy.evidence.store import document_of
from s2mlp_deploy.text import command_line


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command(
        epilog=examples("tune out", "tune out --minutes 10 --threads 1", "tune out --engine onnxruntime --json")
    )
    def tune(
        directory: Annotated[Path, typer.Argument(metavar="DIR", help="An artifact.")],
        minutes: Annotated[
            float, typer.Option(help="The time that it may take; an interrupted one goes on.")
        ] = MINUTES,
        engine: Annotated[
            list[str] | None,
            typer.Option(
                metavar="ENGINE",
                autocompletion=complete_graph_engine,
                help="onnxruntime[:PROVIDER] or openvino[:DEVICE]; repeat. Default: all that are installed.",
            ),
        ] = None,
        threads: Annotated[
            int | None,
            typer.Option(help="Within an operator. Default: one, and as many as there are processors."),
        ] = None,
        batch: Annotated[int | None, typer.Option(help="Samples in a run. Default: the file's own, or 1.")] = None,
        shape: Annotated[
            list[str] | None,
            typer.Option(metavar="NAME:1x3x224x224", help="Of an input with free sizes besides the batch; repeat."),
        ] = None,
        seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the noise and the order of rounds.")] = 0,
        verbose: Annotated[
            bool, typer.Option("--verbose", "-v", help="Say of every trial why it did not win.")
        ] = False,
        quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say only what won.")] = False,
        as_json: Json = False,
    ) -> None:
        """Find the fastest file, engine and settings on this machine. Exit status 1 where nothing could be measured."""
        refuse_options(["--quiet"] if quiet and verbose else [], "--verbose asks for the opposite")
        # It brings onnx and the room of benchmarks, which --help does not need.
        from s2mlp_deploy.engines.profiles import parse_shapes
        from s2mlp_deploy.report.tune import print_tune, print_winners

        shapes: dict[str, tuple[int, ...]] = {}
        for text in shape or []:
            shapes |= {name: tuple(map(int, sizes)) for name, sizes in parse_shapes(text).items()}
        options = api.TuneOptions(
            minutes=minutes, engines=engine or (), threads=threads, batch=batch, shapes=shapes, seed=seed
        )
        with progress() as report:
            found = api.tune(directory, options, progress=report)

        def render(console: Console) -> None:
            if quiet:
                print_winners(console, found)
            else:
                print_tune(console, found, reasons=verbose)

        emit(document_of(found), as_json=as_json, render=render)
        if not found.winners:
            raise CheckFailedError(
                "nothing could be measured: every candidate failed",
                where=str(directory),
                fix=f"`{command_line('tune', directory, '--verbose')}` says why; "
                "`s2mlp-deploy doctor` what is installed",
            )
