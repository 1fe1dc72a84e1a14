"""Measuring candidates side by side: each in a process of its own, in turn, several processes one after the other.

One process works at a time and the others wait without spinning, so candidates do not disturb each other; what changes
with the machine meanwhile falls on all of them alike. Their order within a round is drawn anew for every round.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from s2mlp_deploy.bench.candidates import Job, shapes_of
from s2mlp_deploy.bench.compare import check_comparable, with_changes
from s2mlp_deploy.bench.engines import check_opens
from s2mlp_deploy.bench.load import activity, disturbances, gpu_throttling
from s2mlp_deploy.bench.options import BenchOptions
from s2mlp_deploy.bench.statistics import gaps_of, paired_ratio
from s2mlp_deploy.bench.track import Track
from s2mlp_deploy.bench.trust import doubts
from s2mlp_deploy.evidence.bench import BenchReport, BenchResult
from s2mlp_deploy.evidence.machine import environment_here
from s2mlp_deploy.progress import ProgressCallback, no_progress


def measure(
    jobs: Sequence[Job],
    options: BenchOptions,
    *,
    saved: BenchReport | None = None,
    look_into: Callable[[Sequence[BenchResult]], Collection[int]] | None = None,
    progress: ProgressCallback = no_progress,
) -> BenchReport:
    """Measures candidates.

    A candidate whose process crashes, hangs or cannot run the graph is one that failed: the others go on.

    Args:
        jobs: What.
        options: How.
        saved: A run of the same machine to compare with.
        look_into: Chooses by their times the candidates whose nodes are timed too; all of them with ``per_module``.
        progress: Called with the rounds that are done.

    Raises:
        S2MLPDeployError: The user's input is wrong: sources or shapes do not belong together, an engine is not here.
    """
    tracks = [Track(job, options) for job in jobs]
    _settle(tracks, options, saved)
    generator = random.Random(options.seed)
    before, own = activity(), _own_seconds()
    launches = options.launches
    for launch in range(launches):
        with contextlib.ExitStack() as stack:
            for track in tracks:
                progress("loading", launch, launches)
                track.start(stack)
            for track in tracks:
                progress("warming up", launch, launches)
                track.warm_up()
            if options.scenario == "server":
                _serve(tracks, generator, functools.partial(progress, "searching rates", launch, launches))
            else:
                for number in range(options.rounds):
                    progress("measuring", launch * options.rounds + number, launches * options.rounds)
                    _in_turn(tracks, generator, Track.run_round)
            for track in tracks:
                track.finish()
    warnings = disturbances(before, activity(), _own_seconds() - own)
    results = _with_ratios([track.result() for track in tracks], options.seed)
    every = range(len(tracks))
    chosen = every if options.per_module else look_into(results) if look_into is not None else ()
    for number in chosen:
        progress("timing nodes", number, len(tracks))
        results[number] = tracks[number].with_nodes(results[number])
    if any(any(launch.gpu_ms for launch in result.launches) for result in results):
        warnings += gpu_throttling()
    environment = environment_here()
    for track in tracks:
        environment.versions.update(track.versions)
    cores = environment.machine.usable_cores
    if cores is not None and options.threads > cores:
        warnings += (f"{options.threads} threads on {cores:g} processors: use at most --threads {int(cores) or 1}",)
    report = BenchReport(
        options.scenario,
        environment,
        f"seeded Gaussian noise (seed {options.seed})",
        options.rounds,
        tuple(results),
        warnings,
    )
    report = replace(
        report,
        results=tuple(replace(result, warnings=doubts(result, options) + result.warnings) for result in report.results),
    )
    return with_changes(report, saved, options.seed) if saved is not None else report


def _own_seconds() -> float:
    """Processor time of this process and of all children that have ended, however they did."""
    return sum(os.times()[:4])


def _settle(tracks: Sequence[Track], options: BenchOptions, saved: BenchReport | None) -> None:
    """Decides the shapes of all inputs, and refuses what does not belong together, before anything is loaded."""
    for track in tracks:
        check_opens(track.job.path, track.job.engine, track.settings)
    shapes = shapes_of([track.graph for track in tracks], [track.job.batch for track in tracks], options.shapes)
    for track, own in zip(tracks, shapes, strict=True):
        track.shapes = own
    if saved is not None:
        check_comparable([track.candidate for track in tracks], saved)


def _in_turn(tracks: Sequence[Track], generator: random.Random, step: Callable[[Track], None]) -> None:
    """A step of every candidate, in an order of its own."""
    for track in generator.sample(tracks, len(tracks)):
        step(track)


def _serve(tracks: Sequence[Track], generator: random.Random, on_trial: Callable[[], None]) -> None:
    while any(track.alive and track.search is not None and track.search.next is not None for track in tracks):
        on_trial()
        _in_turn([track for track in tracks if track.alive], generator, Track.try_rate)


def _with_ratios(results: Sequence[BenchResult], seed: int) -> list[BenchResult]:
    """The results with their ratios to the first one of the same batch that was measured."""
    first: dict[int, BenchResult] = {}
    found = []
    for result in results:
        if not result.failure:
            baseline = first.setdefault(result.candidate.batch, result)
            result = result if baseline is result else _with_ratio(result, baseline, seed)
        found.append(result)
    return found


def _with_ratio(result: BenchResult, baseline: BenchResult, seed: int) -> BenchResult:
    over = baseline.candidate.name
    if result.server is not None and baseline.server is not None:
        gaps, others = gaps_of(result.server), gaps_of(baseline.server)
        return replace(result, ratio=paired_ratio(gaps, others, over=over, seed=seed) if gaps and others else None)
    wall, cpu = (
        [[getattr(launch, name) for launch in item.launches] for item in (result, baseline)]
        for name in ("wall_ms", "cpu_ms")
    )
    # Where the processor's clock is coarse, a round may have taken none of it.
    ticked = all(time > 0 for times in cpu for launch in times for time in launch)
    return replace(
        result,
        ratio=paired_ratio(*wall, over=over, seed=seed),
        cpu_ratio=paired_ratio(*cpu, over=over, seed=seed) if ticked else None,
    )
