"""The open loop: latency counts from the intended send, and the search finds what a queue can hold."""

from __future__ import annotations

import numpy as np
import pytest

from s2mlp_deploy.bench.arrivals import RateSearch, arrival_times, queries_for, serve_arrivals
from s2mlp_deploy.evidence.bench import RateTrial


class Clock:
    """Time that passes only when somebody waits or works."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


def serve(service: float, rate: float, queries: int, *, bound_ms: float, seed: int = 0, stall: float = 0) -> RateTrial:
    """Serves with runs of one length, of which the tenth may take longer."""
    clock, runs = Clock(), iter(range(1, queries + 1))

    def run() -> None:
        clock.pass_by(service + (stall if next(runs) == 10 else 0))

    return serve_arrivals(run, rate, queries, bound_ms=bound_ms, seed=seed, clock=clock, sleep=clock.pass_by)


def test_arrivals_are_those_of_a_poisson_process():
    times = np.array(arrival_times(200.0, 20_000, seed=0))
    gaps = np.diff(times)
    assert gaps.mean() == pytest.approx(1 / 200, rel=0.03)
    # Of an exponential distribution, and of no other with this mean: it has no memory.
    assert gaps.std() == pytest.approx(1 / 200, rel=0.03)
    assert (gaps > 1 / 200).mean() == pytest.approx(np.exp(-1), abs=0.02)
    assert arrival_times(200.0, 5, seed=0) == arrival_times(200.0, 5, seed=0) != arrival_times(200.0, 5, seed=1)


def test_an_idle_engine_answers_in_its_own_time():
    trial = serve(0.001, 1.0, 50, bound_ms=2)
    assert (trial.queries, trial.late, trial.holds) == (50, 0, True)
    assert trial.p99 == pytest.approx(1.0)


def test_what_arrives_during_a_stall_is_late_too():
    # One run of a second. A closed loop would see one slow query in 500; some 500 were to be sent meanwhile.
    trial = serve(0.0005, 500.0, 500, bound_ms=100, stall=1.0)
    assert not trial.holds
    assert trial.late == 6  # One more than 1 % of 500: then it ends.
    assert trial.queries < 30
    assert trial.p99 == pytest.approx(1000, rel=0.1)


def test_the_search_finds_the_rate_of_a_queue_and_confirms_it():
    # One server with runs of 1 ms: above 1000 a second the queue grows for ever.
    for bound_ms, low, high in ((50.0, 850, 1010), (5.0, 350, 800)):
        search, trials = RateSearch(1000.0), []
        while (rate := search.next) is not None:
            queries = queries_for(rate, bound_ms, 500)
            trials.append(serve(0.001, rate, queries, bound_ms=bound_ms, seed=len(trials)))
            search.add(trials[-1])
        assert low < search.rate < high
        assert [trial.holds for trial in trials if trial.rate == search.rate][-1]
        assert len(trials) <= 12


def test_a_bound_that_no_rate_keeps_ends_the_search():
    search, tried = RateSearch(1000.0), 0
    while (rate := search.next) is not None:
        search.add(serve(0.001, rate, 100, bound_ms=0.5, seed=tried))
        tried += 1
    assert search.rate == 0.0
    assert tried < 10


def test_a_rate_that_does_not_hold_again_is_lowered():
    search = RateSearch(100.0, steps=1)
    search.add(RateTrial(search.next or 0, 10, 0, 1.0, holds=True))
    first = search.next
    assert first == search.low == 62.5
    search.add(RateTrial(first, 10, 10, 1.0, holds=False))
    assert search.rate == 0.0
    assert search.next == pytest.approx(0.95 * first)
    search.add(RateTrial(search.next, 10, 0, 1.0, holds=True))
    assert search.next is None
    assert search.rate == pytest.approx(0.95 * first)


def test_a_trial_lasts_long_enough_for_an_engine_to_fall_behind():
    assert queries_for(1000.0, 20.0, 200) == 1000
    assert queries_for(1.0, 20.0, 200) == 200
