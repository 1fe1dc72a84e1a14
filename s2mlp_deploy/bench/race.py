"""Racing: many candidates in turn, each in a process of its own, until one of each group is the fastest.

As F-Race does it (Birattari et al., 2002): all run in the same rounds, and after each round those whose time lies above
the best one's by more than chance are out, so that most of the time goes to those that are hard to tell apart.
"""

from __future__ import annotations

import contextlib
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from s2mlp_deploy.bench.candidates import shapes_of
from s2mlp_deploy.bench.options import BenchOptions
from s2mlp_deploy.bench.statistics import paired_ratio
from s2mlp_deploy.bench.track import Track
from s2mlp_deploy.evidence.bench import Ratio

FEWEST_ROUNDS = 5
"""Before anybody is out: with fewer, an interval says little."""

Clock = Literal["cpu", "wall"]


@dataclass
class Runner:
    """A candidate in a race.

    Attributes:
        track: Its file, engine and settings.
        group: What it competes with: the runners of the same group.
        name: What ratios call it.
        pace: Whether it stays to the end: what all times are a share of.
        behind: How far behind the best of its group it was when it went out; None where it did not.
        ratio: Time over the pace maker's; None for that one, and where it was not measured.
    """

    track: Track
    group: str
    name: str
    pace: bool = False
    behind: Ratio | None = None
    ratio: Ratio | None = None
    times: list[float] = field(default_factory=list)

    @property
    def running(self) -> bool:
        """Whether it still takes part."""
        return self.track.alive and self.behind is None

    @property
    def ms(self) -> float | None:
        """Median of its rounds."""
        return statistics.median(self.times) if self.times else None

    def against(self, other: Runner) -> Ratio:
        """Time over another one's, in the rounds that both ran."""
        rounds = min(len(self.times), len(other.times))
        # A clock that is too coarse may have counted nothing.
        mine, theirs = ([max(time, 1e-6) for time in item.times[:rounds]] for item in (self, other))
        return paired_ratio([mine], [theirs], over=other.name)


def race(
    runners: Sequence[Runner],
    options: BenchOptions,
    *,
    clock: Clock,
    go_on: Callable[[], bool] = lambda: True,
    on_ready: Callable[[Runner], str] = lambda _: "",
    on_step: Callable[[str], None] = lambda _: None,
) -> None:
    """Measures runners; what they measured stands in them afterwards.

    Args:
        runners: The first of those that set the pace is what the times of all are a share of. At least one does.
        options: How: ``rounds`` at most, in one process of each.
        clock: What counts.
        go_on: Asked after each round whether there is time for another one.
        on_ready: Called once a runner is warm, and may say why it is to be left out.
        on_step: Told what is being done.

    Raises:
        S2MLPDeployError: Files do not belong together, or an engine refuses one as wrong input.
    """
    generator = random.Random(options.seed)
    with contextlib.ExitStack() as stack:
        for runner in runners:
            on_step(f"loading {runner.track.job.path.name} on {runner.track.job.engine}")
            runner.track.start(stack)
        loaded = [runner.track for runner in runners if runner.track.alive]
        if not loaded:
            return
        shapes = shapes_of([track.graph for track in loaded], [track.job.batch for track in loaded], options.shapes)
        for track, own in zip(loaded, shapes, strict=True):
            track.shapes = own
        for runner in runners:
            runner.track.warm_up()
            if runner.track.alive and (reason := on_ready(runner)):
                runner.track.failure = reason
            if not runner.track.alive:
                runner.track.end()
        for number in range(options.rounds):
            on_step(f"round {number + 1}, {sum(runner.running for runner in runners)} left")
            for runner in generator.sample(runners, len(runners)):
                if runner.running:
                    runner.track.run_round()
            for runner in runners:
                if runner.running:
                    runner.times = [getattr(run, clock) for run in runner.track.rounds]
            _compare(runners)
            if number + 1 >= FEWEST_ROUNDS:
                _drop(runners)
                # Those that set the pace alone measure nothing more.
                if not go_on() or not any(runner.running and not runner.pace for runner in runners):
                    break


def _compare(runners: Sequence[Runner]) -> None:
    """Each one's time as a share of the pace maker's, in the rounds that both ran."""
    first = next((runner for runner in runners if runner.pace and runner.track.alive), None)
    if first is None:
        return
    for runner in runners:
        if runner is not first and runner.running and runner.times:
            runner.ratio = runner.against(first)


def _drop(runners: Sequence[Runner]) -> None:
    """Ends those that are slower than the best of their group by more than chance."""
    for group in {runner.group for runner in runners}:
        there = [runner for runner in runners if runner.group == group and runner.running and runner.times]
        if not there:
            continue
        best = min(there, key=lambda runner: statistics.median(runner.times))
        for runner in there:
            if runner is not best and not runner.pace and (ratio := runner.against(best)).low > 1:
                runner.behind = ratio
                runner.track.end()
