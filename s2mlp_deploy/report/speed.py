"""New files beside float32 in the terminal: how fast they are, why where they are slower, and what to do then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from s2mlp_deploy.evidence.bench import BenchReport, BenchResult
from s2mlp_deploy.evidence.choice import file_of
from s2mlp_deploy.evidence.speed import CauseKind, SpeedCheck, causes, compared, misses, speed_in_words, time_over
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.bench import interval
from s2mlp_deploy.report.tables import print_table, print_words, visible_text
from s2mlp_deploy.report.terminal import can_build
from s2mlp_deploy.report.verdict import build_command
from s2mlp_deploy.text import command_line


def print_speed(
    console: Console, check: SpeedCheck, directory: str, *, data: str | None = None, reduced: bool = False
) -> None:
    """Prints how fast files are beside float32.

    Args:
        console: Where to.
        check: What was measured.
        directory: The artifact, as the user named it: commands repeat that.
        data: What was calibrated on, as the user named it.
        reduced: Whether the weights of int8 have 7 bits already.
    """
    for report in check.reports:
        _print_times(console, report)
    for report in check.reports:
        for result in compared(report):
            place = f"{file_of(result)} on {result.candidate.engine}"
            missed = any(failure.startswith(f"{place}: ") for failure in check.failures)
            slow = misses(result, 1.0)
            if not (slow or missed):
                continue
            head = f"{'SLOWER' if slow else 'TOO SLOW'}  {place}: {speed_in_words(result)}"
            print_words(console, visible_text(console, head, "red" if missed else "yellow"))
            for why, command in reasons(result, report, directory, data=data, reduced=reduced):
                print_words(console, visible_text(console, f"  {why}"))
                console.print(visible_text(console, f"    {command}"), soft_wrap=True)
            for warning in dict.fromkeys((*report.warnings, *result.warnings)):
                print_words(console, visible_text(console, f"  DOUBT  {warning}", "yellow"))
    for name in check.elsewhere:
        if name not in check.unmeasured:
            told = f"{name} is made for a GPU: what it takes on a processor is no reason to fail."
            print_words(console, visible_text(console, told))
    if check.unmeasured:
        told = "; ".join(f"{name} ({why})" for name, why in check.unmeasured.items())
        print_words(console, visible_text(console, f"Speed not measured: {told}."))
    if check.reports or check.unmeasured:
        console.print()


def reasons(
    result: BenchResult, report: BenchReport, directory: str, *, data: str | None, reduced: bool
) -> Iterator[tuple[str, str]]:
    """Why a file is not faster, each with a command that helps or shows more.

    Args:
        result: Of the file.
        report: What it is of: float32 is its first result.
        directory: The artifact, as the user named it.
        data: What was calibrated on, as the user named it.
        reduced: Whether the weights of int8 have 7 bits already.
    """
    found = [
        (cause.words, _command(cause.kind, result, directory, data))
        for cause in causes(result, report.results[0], report.environment.machine.processor)
        if cause.kind != "no-vnni" or not reduced
    ]
    # A command that fails says that the reason was told.
    yield from found or [("no known cause stands out", _command("unknown", result, directory, data))]


def _command(kind: CauseKind, result: BenchResult, directory: str, data: str | None) -> str:
    if kind == "no-vnni" and data is not None:
        return command_line("quantize", directory, "--data", data, "--reduce-range")
    if kind == "half":  # What it is made for.
        return build_command(directory, dry_run=not can_build())
    if kind == "small":
        return command_line("bench", directory, "--batch", 8)
    engine = result.candidate.engine
    on = [] if engine == "onnxruntime" else ["--engine", engine]
    return command_line("bench", Path(directory) / file_of(result), "--per-module", *on)


def _print_times(console: Console, report: BenchReport) -> None:
    first = report.results[0].candidate
    rows = []
    for result in report.measured:
        ratio = time_over(result)
        verdict = "" if ratio is None else ratio.verdict
        rows.append((file_of(result), fmt.milliseconds(result.cpu_ms), verdict, interval(ratio) if ratio else ""))
    runtime = next((result.candidate.runtime for result in report.measured), first.engine)
    threads = fmt.count(first.threads, "thread")
    title = f"Speed on {runtime}, {threads}, batch {first.batch}"
    print_table(console, title, ("File", "CPU ms", "Beside fp32", "Time over fp32"), rows)
