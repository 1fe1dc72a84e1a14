"""Figures of measured times: intervals that hold what is true, and no winner inside the noise."""

from __future__ import annotations

import numpy as np
import pytest

from s2mlp_deploy.bench.statistics import gaps_of, latency_of, paired_ratio, spread, unpaired_ratio
from s2mlp_deploy.evidence.bench import NO_DIFFERENCE, Launch, Ratio, ServerResult


def rounds(generator: np.random.Generator, *, process: float, noise: float, mean: float = 1.0) -> list[list[float]]:
    """Times of 5 processes with 8 rounds: each process has a level of its own."""
    levels = generator.normal(0, process, (5, 1))
    return (mean * np.exp(levels + generator.normal(0, noise, (5, 8)))).tolist()


def launch(*wall: float) -> Launch:
    return Launch(0.1, 1, 1, wall, wall)


def test_quantiles_are_times_of_runs():
    latency = latency_of([float(value) for value in range(1, 101)])
    assert (latency.runs, latency.min, latency.p50, latency.p90, latency.p99) == (100, 1, 50, 90, 99)
    # Of few runs the slowest is the 99th percentile, and nothing between two runs is made up.
    assert latency_of([1.0, 5.0]).p99 == 5.0


def test_the_spread_is_no_matter_of_one_interrupted_round():
    steady = [launch(*[10.0] * 20, 90.0)]
    assert spread(steady) == 0.0
    assert spread([launch(9.0, 10.0, 11.0, 10.0, 9.5)]) == pytest.approx(0.05)


@pytest.mark.parametrize(("process", "noise"), [(0.0, 0.02), (0.01, 0.01)])
def test_equal_candidates_have_no_winner(process: float, noise: float):
    generator = np.random.default_rng(0)
    ratios = [
        paired_ratio(*(rounds(generator, process=process, noise=noise) for _ in range(2)), over="", seed=seed)
        for seed in range(100)
    ]
    # What an interval of 95 of 100 promises, with room for 5 processes being few and 100 tries being few.
    assert sum(ratio.verdict == NO_DIFFERENCE for ratio in ratios) >= 88


def test_a_real_difference_is_found_and_lies_in_the_interval():
    generator = np.random.default_rng(1)
    slow = rounds(generator, process=0.005, noise=0.01, mean=1.2)
    fast = rounds(generator, process=0.005, noise=0.01)
    for make in (paired_ratio, unpaired_ratio):
        ratio = make(slow, fast, over="fast")
        assert ratio.low < 1.2 < ratio.high
        assert ratio.verdict == "1.20 times as slow"
        assert make(fast, slow, over="slow").verdict == "1.20 times as fast"


def test_drift_that_falls_on_both_cancels_only_where_rounds_are_paired():
    generator = np.random.default_rng(2)
    drift = np.exp(generator.normal(0, 0.2, (5, 8)))
    one, other = (drift * 1.05).tolist(), drift.tolist()
    paired, unpaired = paired_ratio(one, other, over=""), unpaired_ratio(one, other, over="")
    assert (paired.low, paired.high) == pytest.approx((1.05, 1.05))
    assert paired.differs
    assert not unpaired.differs


def test_processes_are_resampled_and_not_only_rounds():
    # Rounds agree within a process and processes disagree: eight equal rounds are not eight measurements.
    ratio = paired_ratio([[1.0] * 8, [1.3] * 8, [1.0] * 8], [[1.0] * 8] * 3, over="")
    assert ratio.high >= 1.3


def test_the_same_seed_gives_the_same_interval_and_runs_may_have_other_numbers_of_rounds():
    generator = np.random.default_rng(3)
    one, other = rounds(generator, process=0.01, noise=0.01), rounds(generator, process=0.01, noise=0.01)[:2]
    assert unpaired_ratio(one, other, over="") == unpaired_ratio(one, other, over="")
    assert unpaired_ratio(one, other, over="") != unpaired_ratio(one, other, over="", seed=1)


def test_a_single_process_has_an_interval_too():
    ratio = paired_ratio([[1.1, 1.2]], [[1.0, 1.0]], over="")
    assert ratio.low <= ratio.value <= ratio.high


@pytest.mark.parametrize("bounds", [(0.9, 1.0), (1.0, 1.1), (0.9, 1.1)])
def test_an_interval_that_holds_1_is_no_difference(bounds: tuple[float, float]):
    assert Ratio("", 1.0, *bounds).verdict == NO_DIFFERENCE


def test_of_searches_without_a_rate_nothing_is_compared():
    assert gaps_of(ServerResult(5.0, (100.0, 200.0))) == [[10.0], [5.0]]
    assert gaps_of(ServerResult(5.0, (100.0, 0.0))) == []
    assert ServerResult(5.0, (100.0, 0.0, 0.0)).rate is None
    assert ServerResult(5.0, (100.0, 0.0, 50.0)).rate == 50.0
    assert ServerResult(5.0, ()).rate is None
