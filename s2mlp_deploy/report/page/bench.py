"""Benchmarks as a page shows them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from s2mlp_deploy.artifact import Manifest
from s2mlp_deploy.evidence.bench import BenchReport, BenchResult
from s2mlp_deploy.evidence.choice import file_of
from s2mlp_deploy.evidence.standing import hashes_of
from s2mlp_deploy.evidence.store import Evidence
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.bench import ELSEWHERE, NOT_OF_ONE_RUN, candidate_names, figures, interval
from s2mlp_deploy.report.environment import time_in_words
from s2mlp_deploy.report.page.cells import Cell, Table
from s2mlp_deploy.report.verdict import STATES
from s2mlp_deploy.text import join_names


@dataclass(frozen=True)
class TimeBar:
    """The time of a candidate as a bar; lengths are shares of the drawing, in percent.

    Attributes:
        name: Of the candidate.
        words: Its time and the interval.
        length: Of the bar: the median.
        low: Where the interval begins: the fastest round.
        high: Where it ends: the slowest.
        old: Whether the file was replaced since.
    """

    name: str
    words: str
    length: float
    low: float
    high: float
    old: bool


@dataclass(frozen=True)
class BenchView:
    """One benchmark.

    Attributes:
        title: What was measured, and on which engines where the page has several.
        conditions: How, in words.
        bars: The time of each candidate that was measured; none of ``server``, which is about rates.
        table: A row for each candidate.
        doubts: Why figures are not to be trusted.
    """

    title: str
    conditions: str
    bars: tuple[TimeBar, ...]
    table: Table
    doubts: tuple[str, ...]


def view_benches(manifest: Manifest, evidence: Evidence) -> tuple[BenchView, ...]:
    """The saved benchmarks of an artifact's files."""
    present = hashes_of(manifest, evidence)
    reports = [item.record for item in evidence.of(BenchReport)]
    several = len({engine for report in reports for engine in _engines(report)}) > 1
    return tuple(_view(report, present, several=several) for report in reports)


def _engines(report: BenchReport) -> tuple[str, ...]:
    return tuple(dict.fromkeys(result.candidate.engine for result in report.measured))


def _view(report: BenchReport, present: dict[str, str], *, several: bool) -> BenchView:
    names = candidate_names(report.results)
    old = [present.get(file_of(result)) != result.candidate.sha256 for result in report.results]
    columns, rows = figures(report.scenario, report.measured, report.elsewhere)
    told = iter(rows)
    cells = []
    for name, result, stale in zip(names, report.results, old, strict=True):
        first = Cell(name, note=STATES["stale"] if stale else "", tone="warn" if stale else "")
        if result.failure:
            cells.append(
                (Cell(name, note=f"failed: {result.failure}", tone="bad"), *map(Cell, [""] * len(columns)), Cell(""))
            )
        else:
            cells.append((first, *map(Cell, next(told)), _ratio(result)))
    for item in report.elsewhere:
        ratio = "" if item.ratio is None else f"{item.ratio:.3f}"
        share = Cell(ratio, note=NOT_OF_ONE_RUN if ratio else "", tone="warn")
        cells.append((Cell(item.file, note=ELSEWHERE, tone="warn"), *map(Cell, next(told)), share))
    threads = report.results[0].candidate.threads
    flushed = "subnormal numbers count as 0" if report.results[0].candidate.flush_denormals else ""
    conditions = [f"{threads} thread{'s' if threads != 1 else ''}" if threads else "", report.data, flushed]
    doubts = [*report.warnings]
    doubts += [
        f"{name}: {text}" for name, result in zip(names, report.results, strict=True) for text in result.warnings
    ]
    doubts += [f"{item.file}: {item.doubt}" for item in report.elsewhere]
    engines = join_names(_engines(report)) if several else ""
    return BenchView(
        f"{report.scenario} on {engines}" if engines else report.scenario,
        f"{', '.join(filter(None, conditions))}; {time_in_words(report.environment)}",
        () if report.scenario == "server" else _bars(names, report.results, old),
        Table(("Candidate", *columns, "Time over the first"), tuple(cells), frozenset(range(1, len(columns) + 1))),
        tuple(doubts),
    )


def _bars(names: Sequence[str], results: Sequence[BenchResult], old: Sequence[bool]) -> tuple[TimeBar, ...]:
    found = []
    for name, result, stale in zip(names, results, old, strict=True):
        time = result.latency.p50 if result.latency is not None else result.wall_ms
        rounds = [value for launch in result.launches for value in launch.wall_ms]
        if not result.failure and time is not None:
            found.append((name, time, min([*rounds, time]), max([*rounds, time]), stale))
    longest = max((high for *_, high, _ in found), default=0.0)
    # A damaged record may hold times that make no drawing; its table shows them.
    if not 0 < longest < math.inf:
        return ()

    def share(time: float) -> float:
        return round(100 * max(time, 0.0) / longest, 2)

    return tuple(
        TimeBar(
            name,
            f"{fmt.milliseconds(time)} ms ({fmt.milliseconds(low)} to {fmt.milliseconds(high)})",
            share(time),
            share(low),
            share(high),
            stale,
        )
        for name, time, low, high, stale in found
    )


def _ratio(result: BenchResult) -> Cell:
    return Cell(result.ratio.verdict, note=interval(result.ratio)) if result.ratio is not None else Cell("")
