"""Benchmarks as a terminal shows them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from s2mlp_deploy.evidence.bench import BenchReport, BenchResult, Candidate, MeasuredElsewhere, Ratio
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.profile import print_profile
from s2mlp_deploy.report.tables import print_pairs, print_table, print_words, visible_text

ELSEWHERE = "measured elsewhere"
NOT_OF_ONE_RUN = "not of one run"

_COLUMNS = {
    "single-stream": ("p50 ms", "p90 ms", "p99 ms"),
    "offline": ("ms a run",),
    "server": ("ms alone", "p99 bound ms", "queries/s"),
}


def candidate_names(results: Sequence[BenchResult]) -> list[str]:
    """What to call the candidates of a benchmark: files without the folder that all lie in, and what differs besides.

    Args:
        results: Of one benchmark.
    """
    candidates = [result.candidate for result in results]
    folders = [Path(candidate.file).absolute().parent for candidate in candidates]
    common = Path(*_common_parts(folders))
    names = []
    for candidate, folder in zip(candidates, folders, strict=True):
        words = [str((folder / Path(candidate.file).name).relative_to(common))]
        words += [candidate.engine] * (len({other.engine for other in candidates}) > 1)
        words += [f"batch {candidate.batch}"] * (len({other.batch for other in candidates}) > 1)
        names.append(", ".join(words))
    return numbered(names)


def numbered(names: Sequence[str]) -> list[str]:
    """Names that are told apart: those of which there are several get a number.

    >>> numbered(["fp32", "int8", "fp32"])
    ['fp32 (1)', 'int8', 'fp32 (2)']
    """
    counted = ((name, names[:index].count(name) + 1) for index, name in enumerate(names))
    return [f"{name} ({number})" if names.count(name) > 1 else name for name, number in counted]


def _common_parts(folders: Sequence[Path]) -> list[str]:
    parts = []
    for level in zip(*(folder.parts for folder in folders), strict=False):
        if len(set(level)) > 1:
            break
        parts.append(level[0])
    return parts


def print_bench(console: Console, report: BenchReport) -> None:
    """Prints a benchmark: where it was made, the figures, who is faster, and why they may not be trusted.

    Args:
        console: Where to.
        report: What was measured.
    """
    names = candidate_names(report.results)
    machine = report.environment.machine
    first = report.results[0].candidate
    cores = machine.usable_cores
    print_words(console, visible_text(console, f"Bench, {report.scenario}", "bold"))
    print_pairs(
        console,
        [
            (
                "machine",
                f"{machine.processor.name or machine.processor.architecture}, {cores or 0:g} processors usable",
            ),
            *(("GPU", gpu.name) for gpu in machine.gpus),
            ("runtime", runtimes_of(report) or fmt.MISSING),
            ("threads", fmt.integer(first.threads) if first.threads else "as the runtime chooses"),
            *([("subnormal", "numbers count as 0")] if first.flush_denormals else []),
            ("inputs", f"{inputs_of(report) or fmt.MISSING}; {report.data}"),
            ("measured", rounds_of(report)),
        ],
    )
    measured = [(name, result) for name, result in zip(names, report.results, strict=True) if not result.failure]
    beside = [f"{Path(item.file).name} ({ELSEWHERE})" for item in report.elsewhere]
    if measured or beside:
        columns, rows = figures(report.scenario, [result for _, result in measured], report.elsewhere)
        print_table(
            console,
            None,
            ("candidate", *columns),
            [(name, *row) for name, row in zip([*(name for name, _ in measured), *beside], rows, strict=True)],
        )
    for name, result in zip(names, report.results, strict=True):
        if result.failure:
            print_words(console, visible_text(console, f"FAILED  {name}: {result.failure}", "red"))
    _print_ratios(console, report, names)
    for name, result in zip(names, report.results, strict=True):
        if result.profile is not None:
            print_profile(console, name, result.profile)
    for item in report.elsewhere:
        if item.profile is not None:
            print_profile(console, Path(item.file).name, item.profile)
    for warning in report.warnings:
        print_words(console, visible_text(console, f"DOUBT  {warning}", "yellow"))
    # What holds for several is said once: every row of a loaded machine is in doubt for the same reason.
    doubted: dict[str, list[str]] = {}
    for name, result in zip(names, report.results, strict=True):
        for warning in result.warnings:
            doubted.setdefault(warning, []).append(name)
    for warning, whose in doubted.items():
        every = len(whose) == len(report.measured) > 1
        told = "each of them" if every else "; ".join(whose)
        print_words(console, visible_text(console, f"DOUBT  {told}: {warning}", "yellow"))
    for item in report.elsewhere:
        print_words(console, visible_text(console, f"DOUBT  {Path(item.file).name}: {item.doubt}", "yellow"))


def runtimes_of(report: BenchReport) -> str:
    """What ran the candidates, with versions; empty where nothing was measured."""
    return ", ".join(dict.fromkeys(result.candidate.runtime for result in report.measured))


def inputs_of(report: BenchReport, cross: str = "x") -> str:
    """The shapes of the inputs, all different ones; empty where nothing was measured.

    Args:
        report: What was measured.
        cross: Between two sizes.
    """
    shapes = (", ".join(fmt.shape(shape, cross) for shape in r.candidate.inputs) for r in report.measured)
    return "; ".join(dict.fromkeys(shapes))


def rounds_of(report: BenchReport) -> str:
    """``in turn, 5 processes of 8 rounds each``."""
    launches = max((len(result.launches) for result in report.measured), default=0)
    rounds = f" of {fmt.count(report.rounds, 'round')}" if report.scenario != "server" else ""
    return f"in turn, {fmt.count(launches, 'process', 'processes')}{rounds} each"


def threads_in_words(candidate: Candidate) -> str:
    """``2 threads``."""
    return fmt.count(candidate.threads, "thread") if candidate.threads else "threads as the runtime chooses"


def figures(
    scenario: str, measured: Sequence[BenchResult], elsewhere: Sequence[MeasuredElsewhere] = ()
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings, and the figures of each candidate in words.

    Args:
        scenario: Of the benchmark.
        measured: Candidates that did not fail.
        elsewhere: What other runs measured; their rows are the last.
    """
    on_gpu = bool(elsewhere) or any(result.gpu_ms is not None for result in measured)
    columns = _COLUMNS.get(scenario, _COLUMNS["offline"])
    rows = []
    for result in measured:
        latency, server = result.latency, result.server
        if latency is not None and scenario == "single-stream":
            own = tuple(fmt.milliseconds(value) for value in (latency.p50, latency.p90, latency.p99))
        elif server is not None and scenario == "server":
            rate = fmt.rate(server.rate) if server.rate is not None else "none holds"
            own = (fmt.milliseconds(result.wall_ms), f"{server.bound_ms:g}", rate)
        else:
            # Of a damaged record too, every column has something.
            own = (fmt.milliseconds(result.wall_ms), *[fmt.MISSING] * (len(columns) - 1))
        rows.append(
            (
                *own,
                fmt.milliseconds(result.cpu_ms),
                *([fmt.milliseconds(result.gpu_ms)] if on_gpu else []),
                fmt.rate(result.throughput) if result.throughput is not None else fmt.MISSING,
                f"{result.load_seconds:.2f}" if result.load_seconds is not None else fmt.MISSING,
                fmt.size(result.peak_bytes),
            )
        )
    for item in elsewhere:
        times = [fmt.milliseconds(value) for value in (item.p50, item.p90, item.p99)]
        own = tuple(times if scenario == "single-stream" else [times[0], *[fmt.MISSING] * (len(columns) - 1)])
        rows.append((*own, fmt.MISSING, fmt.milliseconds(item.gpu_ms), *[fmt.MISSING] * 3))
    gpu = ("GPU ms",) if on_gpu else ()
    return (*columns, "CPU ms", *gpu, "samples/s", "load s", "memory"), rows


def _print_ratios(console: Console, report: BenchReport, names: Sequence[str]) -> None:
    by_candidate: dict[str, str] = {}
    for name, result in zip(names, report.results, strict=True):
        by_candidate.setdefault(result.candidate.name, name)
    rows: list[tuple[str, ...]] = []
    for name, result in zip(names, report.results, strict=True):
        for ratio in (result.ratio, result.change):
            if ratio is not None:
                over = by_candidate.get(ratio.over, ratio.over)
                cpu = result.cpu_ratio if ratio is result.ratio else None
                rows.append((name, over, ratio.verdict, interval(ratio), interval(cpu)))
    for item in report.elsewhere:
        if item.ratio is not None:
            over = by_candidate.get(item.over, item.over)
            rows.append((Path(item.file).name, over, NOT_OF_ONE_RUN, f"{item.ratio:.3f}", fmt.MISSING))
    if rows:
        print_table(console, "Time, as a share of another", ("candidate", "over", "verdict", "wall", "CPU"), rows)


def interval(ratio: Ratio | None) -> str:
    """A ratio and where the true one lies."""
    return f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})" if ratio is not None else fmt.MISSING
