"""A race drops who is slower by more than chance, and nobody else."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.bench.candidates import Graph, Job
from s2mlp_deploy.bench.options import BenchOptions
from s2mlp_deploy.bench.race import FEWEST_ROUNDS, Runner, race
from s2mlp_deploy.bench.timing import Run

OPTIONS = BenchOptions(rounds=12, launches=1)
NOISE = (1.0, 1.01, 0.99, 1.02, 0.98)


@dataclass
class FakeTrack:
    """A candidate whose times are known."""

    name: str
    ms: float
    failure: str = ""
    ended: bool = False
    shapes: dict = field(default_factory=dict)
    rounds: tuple = ()
    graph = Graph("a", (TensorInfo("input", "float32", ("batch", 4)),), (), "")

    @property
    def job(self) -> Job:
        return Job(Path(self.name), "", "onnxruntime", None)

    @property
    def alive(self) -> bool:
        return not self.failure

    def start(self, _: contextlib.ExitStack) -> None:
        pass

    def warm_up(self) -> None:
        pass

    def run_round(self) -> None:
        assert not self.ended
        ms = self.ms * NOISE[len(self.rounds) % len(NOISE)]
        self.rounds += (Run(ms * 2, ms),)

    def end(self) -> None:
        self.ended = True


def runner(name: str, ms: float, group: str = "fp32", **changes) -> Runner:
    return Runner(FakeTrack(name, ms, changes.pop("failure", "")), group, name, **changes)  # type: ignore[arg-type]


def test_the_slower_ones_are_out_early_and_the_best_runs_to_the_end():
    first, best, slow = runner("first", 2.0, pace=True), runner("best", 1.0), runner("slow", 3.0)
    race([first, best, slow], OPTIONS, clock="cpu")
    assert [len(item.times) for item in (first, best, slow)] == [12, 12, FEWEST_ROUNDS]
    assert slow.track.ended
    assert slow.behind.over == "best"
    assert slow.behind.value == 3.0
    assert first.behind is None, "who sets the pace stays, however slow"
    assert (best.ratio.over, best.ratio.value) == ("first", 0.5)
    assert first.ratio is None
    assert abs(best.ms - 1.0) < 0.02


def test_wall_time_counts_where_that_is_asked_for():
    first, other = runner("first", 2.0, pace=True), runner("other", 1.0)
    race([first, other], OPTIONS, clock="wall")
    assert other.times[0] == 2.0


def test_groups_do_not_compete():
    first, int8 = runner("first", 1.0, pace=True), runner("int8", 5.0, "int8")
    race([first, int8], OPTIONS, clock="cpu")
    assert int8.running
    assert int8.ratio.value == 5.0


def test_equals_stay():
    first, same = runner("first", 1.0, pace=True), runner("same", 1.0)
    race([first, same], OPTIONS, clock="cpu")
    assert same.running
    assert not same.ratio.differs


def test_who_is_refused_or_fails_runs_no_round():
    first, wrong, broken = runner("first", 1.0, pace=True), runner("wrong", 0.1), runner("broken", 0.1, failure="dead")
    race(
        [first, wrong, broken],
        OPTIONS,
        clock="cpu",
        on_ready=lambda item: "it differs" if item is wrong else "",
    )
    assert (wrong.track.failure, broken.track.failure) == ("it differs", "dead")
    assert wrong.times == broken.times == []
    assert wrong.track.ended
    assert len(first.times) == FEWEST_ROUNDS, "nobody is left to race against"


def test_time_that_is_up_ends_it_after_the_fewest_rounds():
    first, other = runner("first", 1.0, pace=True), runner("other", 0.9)
    race([first, other], OPTIONS, clock="cpu", go_on=lambda: False)
    assert len(other.times) == FEWEST_ROUNDS
