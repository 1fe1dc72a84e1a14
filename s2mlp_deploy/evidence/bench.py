"""Benchmarks: how long files take on engines, measured side by side, and how far the figures can be believed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from s2mlp_deploy.evidence.machine import Environment
from s2mlp_deploy.evidence.notebook import ShownInNotebooks
from s2mlp_deploy.evidence.profile import Profile

QUANTILE_RUNS = 100
"""Runs from which on the 99th percentile is another one than the slowest."""

NO_DIFFERENCE = "no difference measured"
"""What is said of two candidates whose interval holds a ratio of 1: there is no winner inside the noise."""


@dataclass(frozen=True)
class Candidate:
    """What is measured: a file on an engine, with a batch.

    Attributes:
        file: The file, as the user named it; in an artifact's evidence its name.
        sha256: Of the file.
        precision: Of the file, as its own description says; empty where it says nothing.
        engine: What runs it, as on the command line: ``onnxruntime``, ``onnxruntime:cuda``, ``openvino``,
            ``tensorrt-rtx``.
        runtime: What opened it, with its version; empty where nothing could.
        batch: Samples in a run; 0 where that was never settled.
        threads: Threads within an operator; 0 where the runtime chooses.
        inputs: Shapes of the inputs, in the graph's order.
        flush_denormals: Whether subnormal numbers counted as 0.
    """

    file: str
    sha256: str
    precision: str
    engine: str
    runtime: str
    batch: int
    threads: int
    inputs: tuple[tuple[int, ...], ...] = ()
    flush_denormals: bool = False

    @property
    def name(self) -> str:
        """File, engine and batch, in words."""
        return f"{self.file} on {self.engine}, batch {self.batch}"


@dataclass(frozen=True)
class Launch:
    """One process of a candidate. Of each round, in order, the median of its runs; of ``offline`` their mean.

    Attributes:
        load_seconds: Wall time until the engine was ready to run.
        peak_bytes: Largest resident memory of the process.
        base_bytes: Its resident memory before the engine was loaded: Python and this package.
        wall_ms: Milliseconds a run took by the clock.
        cpu_ms: Milliseconds of processor time that all threads of the process took.
        gpu_ms: Milliseconds on the GPU between two CUDA events; empty where no engine of a GPU ran.
        enqueue_ms: Milliseconds the host took to queue that work.
    """

    load_seconds: float
    peak_bytes: int
    base_bytes: int
    wall_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...]
    gpu_ms: tuple[float, ...] = ()
    enqueue_ms: tuple[float, ...] = ()


@dataclass(frozen=True)
class Latency:
    """Wall time of single runs, over all rounds and processes.

    Attributes:
        runs: How many.
        min: The shortest, in ms.
        mean: In ms.
        p50: Median, in ms.
        p90: 90 % took no longer, in ms.
        p99: 99 % took no longer, in ms.
    """

    runs: int
    min: float
    mean: float
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True)
class RateTrial:
    """Queries that arrived at one rate.

    Attributes:
        rate: Queries a second, on average.
        queries: How many were answered; a trial that cannot hold any more ends early.
        late: How many took longer than the bound.
        p99: 99 % took no longer, in ms, from the moment a query was to be sent.
        holds: Whether 99 % of all queries kept the bound.
    """

    rate: float
    queries: int
    late: int
    p99: float
    holds: bool


@dataclass(frozen=True)
class ServerResult:
    """The highest rate of Poisson arrivals that keeps a bound of the latency.

    Attributes:
        bound_ms: 99 % of the queries must be answered within it.
        rates: The highest rate that held in each process, in queries a second; 0 where none did.
        trials: Everything that was tried, in order.
    """

    bound_ms: float
    rates: tuple[float, ...]
    trials: tuple[RateTrial, ...] = ()

    @property
    def rate(self) -> float | None:
        """The median of the processes' rates; None where most of them held none."""
        # The lower one of the middle two: a mean with 0 would be a rate that was never measured.
        return statistics.median_low(self.rates) or None if self.rates else None


@dataclass(frozen=True)
class Ratio:
    """Time over another measurement's time, with an interval that holds the true one in 95 of 100 cases.

    Attributes:
        over: The other measurement: a candidate, or the saved run of the same one.
        value: Below 1 is faster.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    over: str
    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not (0 < self.value < math.inf and self.low <= self.value <= self.high):
            raise ValueError(f"the ratio {self.value} in {self.low} to {self.high} is none")

    @property
    def differs(self) -> bool:
        """Whether the whole interval lies on one side of 1."""
        return self.high < 1 or self.low > 1

    @property
    def verdict(self) -> str:
        """``1.25 times as fast``, ``1.10 times as slow`` or :data:`NO_DIFFERENCE`."""
        if not self.differs:
            return NO_DIFFERENCE
        return f"{1 / self.value:.2f} times as fast" if self.value < 1 else f"{self.value:.2f} times as slow"


@dataclass(frozen=True)
class BenchResult:
    """What was measured of a candidate.

    Attributes:
        candidate: Which.
        failure: Why it could not be measured; empty where it was.
        launches: Its processes.
        latency: Of single runs; None for other scenarios than ``single-stream``, and where there were too few.
        throughput: Samples a second; of ``server`` at the highest rate that held.
        server: The search of ``server``.
        ratio: To the first candidate of the same batch that was measured; None for that one itself.
        cpu_ratio: The same of processor time.
        change: To the saved run that was compared with; None where there is none.
        warnings: Why its figures are not to be trusted.
        profile: Where the time of a run goes; None where that was not asked for, or the engine cannot tell.
    """

    candidate: Candidate
    failure: str = ""
    launches: tuple[Launch, ...] = ()
    latency: Latency | None = None
    throughput: float | None = None
    server: ServerResult | None = None
    ratio: Ratio | None = None
    cpu_ratio: Ratio | None = None
    change: Ratio | None = None
    warnings: tuple[str, ...] = ()
    profile: Profile | None = None

    @property
    def wall_ms(self) -> float | None:
        """Median of the rounds by the clock; of ``server`` that of a query alone."""
        return _median(time for launch in self.launches for time in launch.wall_ms)

    @property
    def cpu_ms(self) -> float | None:
        """Median of the rounds' processor time."""
        return _median(time for launch in self.launches for time in launch.cpu_ms)

    @property
    def gpu_ms(self) -> float | None:
        """Median of the rounds' time on the GPU."""
        return _median(time for launch in self.launches for time in launch.gpu_ms)

    @property
    def load_seconds(self) -> float | None:
        """Median of the processes."""
        return _median(launch.load_seconds for launch in self.launches)

    @property
    def peak_bytes(self) -> int:
        """The largest of the processes."""
        return max((launch.peak_bytes for launch in self.launches), default=0)

    @property
    def base_bytes(self) -> int:
        """Memory before the engine was loaded, of the process with the most."""
        return max((launch.base_bytes for launch in self.launches), default=0)


@dataclass(frozen=True)
class MeasuredElsewhere:
    """What ``trtexec`` wrote of runs of its own. On which machine, with which batch and when, its files do not tell.

    Attributes:
        file: The file, as the user named it; in an artifact's evidence its name.
        sha256: Of it.
        runs: How many it holds.
        p50: Median time of a run with its copies, in ms; of a profile the layers together.
        p90: 90 % took no longer, in ms; None of a profile.
        p99: 99 % took no longer, in ms; None of a profile.
        gpu_ms: Of that the median of computing.
        over: The candidate that ``ratio`` is to; empty where there is none.
        ratio: Its time over that candidate's. Not of one run, so it has no interval: it may be the machines'.
        profile: The times of its layers, where it tells them.
        of: What ``ratio`` compares: ``runs`` with their copies, or ``computing`` on the GPU; empty where there is none.
    """

    file: str
    sha256: str
    runs: int
    p50: float
    p90: float | None
    p99: float | None
    gpu_ms: float
    over: str = ""
    ratio: float | None = None
    profile: Profile | None = None
    of: str = ""

    @property
    def doubt(self) -> str:
        """Why its figures are not to be compared like the others."""
        how = "a sum of layers that were timed one by one, " if self.profile is not None else ""
        told = {"": "", "runs": "; the ratio is of runs with their copies"}.get(self.of, "; the ratio is of computing")
        few = (
            f"; p99 of {self.runs} runs is the slowest of them"
            if self.p99 is not None and self.runs < QUANTILE_RUNS
            else ""
        )
        return (
            f"{how}measured by trtexec in a run of its own; its file tells no machine, no batch and no time{told}{few}"
        )


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return statistics.median(known) if known else None


@dataclass(frozen=True)
class BenchReport(ShownInNotebooks):
    """A benchmark: candidates that were measured in turn, on one machine.

    Attributes:
        scenario: ``single-stream``, ``offline`` or ``server``, as MLPerf Inference names them.
        environment: Where and when.
        data: What the inputs were.
        rounds: Rounds in each process.
        results: Of every candidate, in the order of the command.
        warnings: Why no figure is to be trusted.
        compared_with: When the saved run was measured that ``change`` speaks of; empty where there is none.
        elsewhere: What was measured in other runs, and is shown beside.
    """

    scenario: str
    environment: Environment
    data: str
    rounds: int
    results: tuple[BenchResult, ...]
    warnings: tuple[str, ...] = ()
    compared_with: str = ""
    elsewhere: tuple[MeasuredElsewhere, ...] = ()

    def __post_init__(self) -> None:
        if not self.results:
            raise ValueError("it has no result")

    @property
    def measured(self) -> tuple[BenchResult, ...]:
        """The results of candidates that did not fail."""
        return tuple(result for result in self.results if not result.failure)

    def slower(self, factor: float) -> tuple[BenchResult, ...]:
        """The results that are slower than in the saved run by more than a factor, and not by noise alone."""
        return tuple(
            result
            for result in self.results
            if result.change is not None and result.change.low > 1 and result.change.value > factor
        )
