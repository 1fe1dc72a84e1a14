"""``s2mlp-deploy bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from s2mlp_deploy import api
from s2mlp_deploy.choices import Scenario
from s2mlp_deploy.cli.console import Json, emit, progress
from s2mlp_deploy.cli.options import Seed, choices, complete_engine, examples, given_options, refuse_options
from s2mlp_deploy.errors import CheckFailedError, InputError
from s2mlp_deploy.evidence.store import document_of
from s2mlp_deploy.text import join_names

_OF_SERVER = ("queries",)
_OF_ROUNDS = ("rounds",)


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command(
        epilog=examples(
            "bench out",
            "bench out model.onnx --batch 1 --batch 8 --csv times.csv",
            "bench out times.json --scenario offline",
            "bench out --scenario server --p99 20",
            "bench out --compare before.json --max-slowdown 1.05",
        )
    )
    def bench(
        context: typer.Context,
        files: Annotated[
            list[Path],
            typer.Argument(
                metavar="FILE|DIR...",
                help="ONNX files, engine files, artifacts for all their graphs; beside them .json that trtexec's "
                "--exportTimes or --exportProfile wrote.",
            ),
        ],
        engine: Annotated[
            list[str] | None,
            typer.Option(
                metavar="ENGINE",
                autocompletion=complete_engine,
                help="onnxruntime[:PROVIDER], openvino[:DEVICE], tensorrt or tensorrt-rtx; repeat. "
                "Default: what fits the file.",
            ),
        ] = None,
        batch: Annotated[
            list[int] | None, typer.Option(min=1, help="Samples in a run; repeat. Default: the file's own, or 1.")
        ] = None,
        scenario: Annotated[
            Scenario,
            typer.Option(
                **choices(
                    Scenario, "single-stream: latency. offline: throughput. server: the highest rate that keeps --p99."
                ),
            ),
        ] = "single-stream",
        p99: Annotated[
            float | None, typer.Option(metavar="MS", help="What 99 % of the queries of --scenario server must keep.")
        ] = None,
        threads: Annotated[int, typer.Option(min=0, help="Within an operator; 0 lets the runtime choose.")] = 1,
        shape: Annotated[
            list[str] | None,
            typer.Option(
                metavar="NAME:1x3x224x224", help="Of an input whose sizes besides the batch are free; repeat."
            ),
        ] = None,
        launches: Annotated[int, typer.Option(min=1, help="Processes of each candidate, one after the other.")] = 5,
        rounds: Annotated[
            int, typer.Option(min=1, help="Rounds in each process, of a tenth of a second or one run.")
        ] = 8,
        queries: Annotated[int, typer.Option(min=1, help="At each rate of --scenario server, at least.")] = 200,
        per_module: Annotated[
            bool,
            typer.Option("--per-module", help="Tell where the time goes, by module and operator (on a CPU)."),
        ] = False,
        flush_denormals: Annotated[
            bool, typer.Option("--flush-denormals", help="Take numbers below the smallest normal float32 for 0.")
        ] = False,
        warmup: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Before anything counts.")] = 0.2,
        time_limit: Annotated[
            float,
            typer.Option(metavar="SECONDS", help="For loading, warm-up or a round: what takes longer has failed."),
        ] = 120.0,
        seed: Seed = 0,
        csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the figures as a table.")] = None,
        save: Annotated[
            Path | None, typer.Option(metavar="FILE", help="Save the run, to compare later ones with.")
        ] = None,
        compare: Annotated[
            Path | None, typer.Option(metavar="SAVED", help="Compare with a saved run of this machine.")
        ] = None,
        max_slowdown: Annotated[
            float | None,
            typer.Option(
                metavar="FACTOR", help="Exit status 1 where the time is more than so many times the saved one."
            ),
        ] = None,
        as_json: Json = False,
    ) -> None:
        """Time files and engines side by side. Exit status 1 where all failed, or one is slower than --max-slowdown."""
        # It brings the room of benchmarks, which --help does not need.
        from s2mlp_deploy.api.benchmarking import check_csv, check_save
        from s2mlp_deploy.engines.profiles import parse_shapes

        given = given_options(context)
        unused, reason = (
            (_OF_ROUNDS, "the server scenario has trials instead of rounds")
            if scenario == "server"
            else (_OF_SERVER, f"{scenario} has no queries that arrive")
        )
        refuse_options([given[name] for name in unused if name in given], reason)
        _check_factor(max_slowdown, compare)
        shapes: dict[str, Any] = {}
        for text in shape or []:
            shapes |= parse_shapes(text)
        options = api.BenchOptions(
            scenario=scenario,
            threads=threads,
            launches=launches,
            rounds=rounds,
            warmup=warmup,
            time_limit=time_limit,
            bound_ms=p99,
            queries=queries,
            shapes=shapes,
            per_module=per_module,
            flush_denormals=flush_denormals,
            seed=seed,
        )
        for place, check in ((save, check_save), (csv, check_csv)):
            if place is not None:
                check(place)
        with progress() as report:
            result = api.bench(
                files, engines=engine or [], batches=batch or [], options=options, compare=compare, progress=report
            )

        def render(console: Console) -> None:
            from s2mlp_deploy.report.bench import print_bench

            print_bench(console, result)

        emit(document_of(result), as_json=as_json, render=render)
        if save is not None:
            api.save_bench(result, save)
        if csv is not None:
            api.save_bench_csv(result, csv)
        _judge(result, max_slowdown)


def _check_factor(factor: float | None, compare: Path | None) -> None:
    if factor is None:
        return
    if compare is None:
        raise InputError("--max-slowdown has nothing to compare with", fix="--compare SAVED, which --save FILE writes")
    if not 1 <= factor < float("inf"):
        raise InputError(
            f"--max-slowdown {factor} is no factor of at least 1", fix="--max-slowdown 1.05 allows 5 % more"
        )


def _judge(report: api.BenchReport, factor: float | None) -> None:
    """Ends a command whose figures are printed and saved.

    Raises:
        CheckFailedError: Nothing could be measured, or something is slower than allowed.
    """
    if not report.measured:
        raise CheckFailedError(
            "no candidate could be measured",
            where="; ".join(f"{result.candidate.name}: {result.failure}" for result in report.results),
            fix="`s2mlp-deploy doctor` shows what runs here; a larger --time-limit helps where it was too short",
        )
    found = report.slower(factor) if factor is not None else ()
    if found:
        told = [
            f"{item.candidate.name}: {item.change.value:.3f} ({item.change.low:.3f} to {item.change.high:.3f})"
            for item in found
            if item.change is not None
        ]
        raise CheckFailedError(
            f"slower than {factor:g} times {found[0].change.over if found[0].change else ''}: {join_names(told)}",
            fix="measure again on a quiet machine before you look for the cause; or both files in one run",
        )
