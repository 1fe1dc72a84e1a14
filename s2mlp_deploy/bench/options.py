"""How a benchmark is made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from s2mlp_deploy.choices import Scenario
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.evidence.bench import QUANTILE_RUNS

ROUND_MS = 100.0
"""Milliseconds of a round at least: longer than what interrupts a process for a moment."""

MAX_RUNS = 2000
"""Runs in a round at most: each has a time of its own to tell."""

PROFILED_RUNS = 20
"""Runs in which every node is timed."""

MOST = 2**32 - 1
"""The largest number that an option may be. What is longer, neither JSON nor a clock takes."""

SLOW_MS = 100.0
"""From here on so many runs would take too long by default: a warning tells of it instead."""


@dataclass(frozen=True)
class BenchOptions:
    """How a benchmark is made.

    Raises:
        InputError: A number is out of range, or the server scenario has no bound.

    Attributes:
        scenario: ``single-stream``: one run after the other, each timed by itself. ``offline``: as fast as they go.
            ``server``: the highest rate of arrivals that keeps a bound.
        threads: Threads within an operator; 0 lets the runtime choose.
        launches: Processes of each candidate, one after the other.
        rounds: Rounds in each process; in a round every candidate runs for a tenth of a second or once.
        warmup: Seconds that a process runs before anything counts.
        time_limit: Seconds for one answer of a process: to load, to warm up, for a round.
        bound_ms: What 99 % of the queries of ``server`` must keep.
        queries: Of each rate that ``server`` tries, at least; a trial lasts fifty times the bound.
        shapes: By input, where sizes besides the batch are free.
        per_module: Whether every node is timed too, in a process of its own afterwards.
        flush_denormals: Whether subnormal numbers count as 0.
        quantiles: Whether ``single-stream`` tells quantiles of single runs, for which a round has more of them.
        seed: Of the noise, the arrivals, the order in rounds and the resampling.
    """

    scenario: Scenario = "single-stream"
    threads: int = 1
    launches: int = 5
    rounds: int = 8
    warmup: float = 0.2
    time_limit: float = 120.0
    bound_ms: float | None = None
    queries: int = 200
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    per_module: bool = False
    flush_denormals: bool = False
    quantiles: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.scenario not in get_args(Scenario):
            raise InputError(
                f"there is no scenario {self.scenario!r}", fix=f"choose from {', '.join(get_args(Scenario))}"
            )
        for name, value, least in (
            ("threads", self.threads, 0),
            ("launches", self.launches, 1),
            ("rounds", self.rounds, 1),
            ("queries", self.queries, 1),
            ("warmup", self.warmup, 0),
            ("seed", self.seed, 0),
        ):
            if not least <= value <= MOST:  # Which a NaN is not either.
                raise InputError(f"{name} is {value}", fix=f"give a number of at least {least}, at most {MOST:,}")
        for name, bound in (("time-limit", self.time_limit), ("p99", self.bound_ms)):
            if bound is not None and not 0 < bound <= MOST:
                raise InputError(f"{name} is {bound}", fix=f"give a number above 0, at most {MOST:,}")
        if (self.scenario == "server") != (self.bound_ms is not None):
            problem = (
                "the server scenario needs a bound of the latency"
                if self.scenario == "server"
                else f"{self.scenario} has no bound of the latency"
            )
            raise InputError(problem, fix="--p99 MS goes with --scenario server, and only with it")

    def runs_for(self, milliseconds: float) -> int:
        """Runs in a round of a candidate whose runs take so long."""
        runs = min(math.ceil(ROUND_MS / max(milliseconds, 1e-3)), MAX_RUNS)
        if self.scenario == "single-stream" and self.quantiles and milliseconds <= SLOW_MS:
            runs = max(runs, math.ceil(QUANTILE_RUNS / (self.launches * self.rounds)))
        return runs
