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
from s2mlp_deploy.report.bench import (
    ELSEWHERE,
    NOT_OF_ONE_RUN,
    candidate_names,
    figures,
    inputs_of,
    interval,
    numbered,
    rounds_of,
    runtimes_of,
    threads_in_words,
)
from s2mlp_deploy.report.environment import time_in_words
from s2mlp_deploy.report.page.cells import Cell, Table
from s2mlp_deploy.report.verdict import STATES
from s2mlp_deploy.text import join_names

_ORDER = {"single-stream": 0, "offline": 1, "server": 2}


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
        title: What was measured, with all that other benchmarks of the page were measured differently.
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
    reports = sorted(evidence.newest(BenchReport), key=lambda report: _ORDER.get(report.scenario, len(_ORDER)))
    return tuple(_view(report, title, present) for report, title in zip(reports, titles_of(reports), strict=True))


def titles_of(reports: Sequence[BenchReport]) -> list[str]:
    """What to call benchmarks: the scenario, what they do not all have in common, and when where nothing else differs.

    Args:
        reports: Of one page.
    """
    facts = [_facts(report) for report in reports]
    told = [index for index, values in enumerate(zip(*facts, strict=True)) if len(set(values)) > 1]
    titles = []
    for report, own in zip(reports, facts, strict=True):
        engines, *others = (own[index] if index in told else "" for index in range(len(own)))
        on = f"{report.scenario} on {engines}" if engines else report.scenario
        titles.append(", ".join(filter(None, (on, *others))))
    times = [time_in_words(report.environment) for report in reports]
    titles = [
        f"{title}, {time}" if titles.count(title) > 1 else title for title, time in zip(titles, times, strict=True)
    ]
    return numbered(titles)


def _facts(report: BenchReport) -> tuple[str, ...]:
    """Engines, batches, sizes, threads and the rest, in words: of what was measured, or else was to be."""
    candidates = [result.candidate for result in report.measured or report.results]
    batches = sorted({candidate.batch for candidate in candidates} - {0})
    sizes = dict.fromkeys(", ".join(fmt.shape(shape[1:], "×") for shape in item.inputs) for item in candidates)
    return (
        join_names(dict.fromkeys(candidate.engine for candidate in candidates)),
        f"batch{'es' * (len(batches) > 1)} {join_names(batches)}" if batches else "",
        join_names(filter(None, sizes)),
        join_names(dict.fromkeys(map(threads_in_words, candidates))),
        "subnormal numbers count as 0" if any(item.flush_denormals for item in candidates) else "",
    )


def _view(report: BenchReport, title: str, present: dict[str, str]) -> BenchView:
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
    candidate = report.results[0].candidate
    flushed = "subnormal numbers count as 0" if candidate.flush_denormals else ""
    inputs = ", ".join(filter(None, (inputs_of(report, "×"), report.data)))
    how = rounds_of(report) if report.measured else ""
    when = time_in_words(report.environment)
    conditions = [runtimes_of(report), threads_in_words(candidate), flushed, f"inputs {inputs}", how, when]
    doubts = [*report.warnings]
    doubts += _doubts(names, report.results)
    doubts += [f"{item.file}: {item.doubt}" for item in report.elsewhere]
    return BenchView(
        title,
        "; ".join(filter(None, conditions)),
        () if report.scenario == "server" else _bars(names, report.results, old),
        Table(
            ("Candidate", *columns, "Time over the first"), tuple(cells), frozenset(range(1, len(columns) + 1))
        ).filled,
        tuple(doubts),
    )


def _doubts(names: Sequence[str], results: Sequence[BenchResult]) -> list[str]:
    """Why figures are not to be trusted: each reason once, with the candidates that it is of."""
    whose: dict[str, list[str]] = {}
    for name, result in zip(names, results, strict=True):
        for text in result.warnings:
            whose.setdefault(text, []).append(name)
    measured = sum(not result.failure for result in results)
    return [
        text
        if len(found) == measured > 1
        else f"{join_names(found, separator='; ' if ', ' in found[0] else ', ')}: {text}"
        for text, found in whose.items()
    ]


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
