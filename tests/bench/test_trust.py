"""Why a result is not to be trusted is said, and only then."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from report_samples import bench

from s2mlp_deploy.bench.options import BenchOptions
from s2mlp_deploy.bench.trust import doubts
from s2mlp_deploy.evidence.bench import Launch, ServerResult

ROUNDS = (1.0, 1.01, 0.99, 1.0)
STEADY = Launch(0.1, 1, 1, ROUNDS, ROUNDS)


def told(launches: int = 3, queries: int = 200, **changes: Any) -> tuple[str, ...]:
    launch = replace(STEADY, **{key: value for key, value in changes.items() if hasattr(STEADY, key)})
    others = {key: value for key, value in changes.items() if not hasattr(STEADY, key)}
    result = replace(bench().results[0], launches=(launch,) * launches, **others)
    server = result.server is not None
    options = BenchOptions(scenario="server", bound_ms=5.0, queries=queries) if server else BenchOptions()
    return doubts(result, options)


def test_a_steady_result_is_trusted():
    assert told() == ()
    assert told(server=ServerResult(5.0, (10.0,) * 3)) == ()
    assert doubts(bench().results[2], BenchOptions()) == ()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"launches": 2}, "too few rounds for an interval (8, of --launches 2)"),
        ({"wall_ms": (1.0, 1.2, 1.1, 0.9), "cpu_ms": (1.0, 1.2, 1.1, 0.9)}, "the rounds spread by"),
        ({"cpu_ms": (0.5, 0.5, 0.5, 0.5)}, "it waited 50 % of the time for a processor"),
        ({"gpu_ms": ROUNDS, "enqueue_ms": ROUNDS}, "enqueue-bound"),
        ({"latency": replace(bench().results[0].latency, runs=40)}, "p99 of 40 runs is the slowest"),
        ({"server": ServerResult(5.0, (0.0,) * 3)}, "no rate keeps 5 ms: a query alone takes 1 ms"),
        ({"server": ServerResult(5.0, (9.0,) * 3), "queries": 100}, "300 queries at a rate tell little"),
        ({"server": ServerResult(5.0, (9.0,) * 2), "launches": 2, "queries": 500}, "too few processes"),
    ],
)
def test_what_speaks_against_a_result_is_told(changes: dict[str, Any], says: str):
    (doubt,) = told(**changes)
    assert says in doubt


def test_a_gpu_that_works_longer_than_the_host_queues_is_trusted():
    assert told(gpu_ms=ROUNDS, enqueue_ms=(0.1,) * 4, cpu_ms=(0.1,) * 4) == ()
