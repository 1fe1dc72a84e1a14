"""``s2mlp-deploy batch``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from s2mlp_deploy import api
from s2mlp_deploy.choices import EnginePool
from s2mlp_deploy.cli.console import Json, emit, progress
from s2mlp_deploy.cli.options import (
    AllowUnproven,
    FlushDenormals,
    NoSpin,
    RunEngine,
    RunPrecision,
    ScoreOutput,
    Threads,
    choices,
    examples,
)
from s2mlp_deploy.errors import CheckFailedError
from s2mlp_deploy.report.format import count


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command(
        epilog=examples(
            "batch photos --model out --output classes",
            "batch photos.parquet --model out --output classes --column image",
            "batch list.txt --model out --output classes --engine-pool ray",
        )
    )
    def batch(
        source: Annotated[
            Path,
            typer.Argument(
                metavar="INPUT",
                help="A folder of images, a list of paths (.txt), or Parquet: a file, or a folder of them.",
            ),
        ],
        model: Annotated[Path, typer.Option("--model", "-m", metavar="DIR", help="The artifact.")],
        output: Annotated[
            Path,
            typer.Option(
                "--output",
                "-o",
                metavar="OUT",
                help="A folder for the results, a Parquet data set.",
            ),
        ],
        column: Annotated[
            str | None,
            typer.Option(metavar="NAME", help="Of Parquet: what holds the images. Default: the only column that can."),
        ] = None,
        top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 5,
        all_outputs: Annotated[
            bool, typer.Option("--all-outputs", help="Write all outputs too; of what is no classifier always.")
        ] = False,
        score_output: ScoreOutput = None,
        batch_size: Annotated[int, typer.Option("--batch", min=1, help="Images in a run.")] = 8,
        chunk: Annotated[
            int, typer.Option(min=1, help="Images in a file of the results: what is lost when it is stopped.")
        ] = 256,
        workers: Annotated[
            int | None, typer.Option(min=1, help="Processes or actors. Default: one for each core there is.")
        ] = None,
        engine_pool: Annotated[EnginePool, typer.Option(**choices(EnginePool, "Who works."))] = "process",
        address: Annotated[
            str | None, typer.Option(metavar="ADDRESS", help="Of a Ray cluster. Default: Ray starts on this machine.")
        ] = None,
        max_broken: Annotated[
            int | None, typer.Option(min=0, metavar="N", help="Exit with 1 where more images cannot be used.")
        ] = None,
        precision: RunPrecision = None,
        engine: RunEngine = None,
        threads: Threads = None,
        no_spin: NoSpin = False,
        flush_denormals: FlushDenormals = False,
        allow_unproven: AllowUnproven = False,
        as_json: Json = False,
    ) -> None:
        """Classify a collection of images into a Parquet data set. The same command goes on where it stopped."""
        with progress() as report:
            done = api.batch(
                source,
                model,
                output,
                column=column,
                precision=precision,
                engine=engine,
                threads=threads,
                spin=False if no_spin else None,
                flush_denormals=flush_denormals or None,
                allow_unproven=allow_unproven,
                score_output=score_output,
                top=top,
                all_outputs=all_outputs,
                batch_size=batch_size,
                chunk=chunk,
                workers=workers,
                engine_pool=engine_pool,
                address=address,
                progress=report,
            )

        def render(console: Console) -> None:
            lines = [f"{done.classified:,} of {done.images:,} images classified in {done.output}"]
            if done.before:
                lines.append(f"{done.before:,} of them before this run")
            if done.broken:
                lines.append(f"{done.broken:,} cannot be used: column error")
            by = f"{done.file} on {done.engine}, {count(done.workers, 'worker')}"
            # Nothing was left to do: no rate was measured.
            lines.append(f"{done.rate:,.1f} images a second, {by}" if done.before < done.images else by)
            for line in lines:
                console.print(line, highlight=False, markup=False, soft_wrap=True)

        document = msgspec.to_builtins(done) | {"classified": done.classified, "rate": done.rate}
        emit(document, as_json=as_json, render=render)
        _refuse_failures(done, max_broken)


def _refuse_failures(done: api.BatchReport, max_broken: int | None) -> None:
    """Ends a command whose results are not good enough, once they are written and printed.

    Images that cannot be used are rows that say why: among very many there are always some, so a limit is asked for.

    Raises:
        CheckFailedError: The model says of an image what is not finite; no image could be used; or too many not.
    """
    problem, fix = "", "look at the column `error` of the results"
    if done.failed:
        problem = f"of {done.failed:,} images the model says what is NaN or infinite"
        fix = "compare the file with its source (`parity`), or use the fp32 file"
    elif not done.classified:
        problem = "no image could be used"
    elif max_broken is not None and done.broken > max_broken:
        problem = f"{done.broken:,} images cannot be used, and {max_broken:,} are allowed"
    if problem:
        raise CheckFailedError(problem, where=done.output, fix=fix)
