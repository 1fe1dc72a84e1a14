"""One candidate on its way through a benchmark: its process, what it measured, and what becomes of that."""

from __future__ import annotations

import contextlib
import functools
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from s2mlp_deploy.bench import messages
from s2mlp_deploy.bench.arrivals import RateSearch, queries_for
from s2mlp_deploy.bench.candidates import Graph, Job, Shape, graph_of
from s2mlp_deploy.bench.engines import can_profile
from s2mlp_deploy.bench.options import PROFILED_RUNS, BenchOptions
from s2mlp_deploy.bench.process import WorkerFailedError, WorkerProcess
from s2mlp_deploy.bench.profile import read_profile
from s2mlp_deploy.bench.statistics import latency_of
from s2mlp_deploy.bench.timing import Run, median_of
from s2mlp_deploy.evidence.bench import BenchResult, Candidate, Launch, RateTrial, ServerResult
from s2mlp_deploy.evidence.tune import EngineSettings
from s2mlp_deploy.text import first_line_of

A = TypeVar("A")


class Track:
    """A candidate. What its process cannot do makes it a failed one, and nothing more is asked of it.

    Args:
        job: What is measured.
        options: How.
    """

    def __init__(self, job: Job, options: BenchOptions) -> None:
        self.job = job
        self.failure: str = ""
        self.shapes: dict[str, Shape] = {}
        self.search: RateSearch | None = None
        self._options = options
        self._process: WorkerProcess | None = None
        self._opened: messages.Opened | None = None
        self._per_round = 1
        self._rounds: list[Run] = []
        self._singles: list[float] = []
        self._launches: list[Launch] = []
        self._trials: list[RateTrial] = []
        self._rates: list[float] = []

    @property
    def alive(self) -> bool:
        """Whether it has not failed."""
        return not self.failure

    @property
    def settings(self) -> EngineSettings:
        """How its engine is opened."""
        # Idle threads that spin for work would take the processor from the engine whose turn it is.
        return self.job.settings or EngineSettings(
            self._options.threads, spin=False, flush_denormals=self._options.flush_denormals
        )

    @property
    def rounds(self) -> tuple[Run, ...]:
        """What the process that is there has measured so far: of each round the median of its runs."""
        return tuple(self._rounds)

    @functools.cached_property
    def graph(self) -> Graph:
        """What the file, or its sidecar, says of itself.

        Raises:
            ArtifactError: It cannot be read.
            InputError: Its limits are damaged.
        """
        return graph_of(self.job)

    def start(self, stack: contextlib.ExitStack) -> None:
        """Loads the file in a new process, which ends with the block of a stack."""
        self._process = stack.enter_context(WorkerProcess(self._options.time_limit))
        command = messages.Open(
            str(self.job.path.absolute()),
            self.job.engine,
            self.settings,
            throughput=self._options.scenario == "offline",
        )
        self._opened = self._ask(command, messages.Opened) or self._opened

    def warm_up(self) -> None:
        """Runs that do not count, and from them how many make a round."""
        command = messages.Warm(self.shapes, self._options.seed, self._options.warmup)
        if warmed := self._ask(command, messages.Ran):
            # The first runs allocate.
            settled = median_of(warmed.runs[len(warmed.runs) // 2 :])
            self._per_round = self._options.runs_for(settled.wall)
            if self._options.scenario == "server":
                self._rounds = [settled]
                self.search = RateSearch(1e3 / max(settled.wall, 1e-3))

    def run_round(self) -> None:
        """One round."""
        alone = self._options.scenario == "single-stream"
        if ran := self._ask(messages.Round(self._per_round, alone), messages.Ran):
            self._rounds.append(median_of(ran.runs))
            self._singles += [run.wall for run in ran.runs] if alone else []

    def try_rate(self) -> None:
        """One trial of the search for the highest rate."""
        assert self.search is not None
        assert self._options.bound_ms is not None
        rate = self.search.next
        if rate is None:
            return
        seed = self._options.seed + len(self._trials)
        queries = queries_for(rate, self._options.bound_ms, self._options.queries)
        command = messages.Serve(rate, queries, self._options.bound_ms, seed)
        # Queries that are sent over minutes take minutes.
        if served := self._ask(command, messages.Served, longer=2 * queries / rate):
            self.search.add(served.trial)
            self._trials.append(served.trial)

    def save_outputs(self, path: Path) -> bool:
        """Saves what it computes of the inputs that it runs with; whether it did."""
        return self._ask(messages.Save(str(path)), messages.Written) is not None

    def end(self) -> None:
        """Ends its process, whose memory others can use."""
        if self._process is not None:
            self._process.close()

    def finish(self) -> None:
        """Keeps what the process measured."""
        used = self._ask(messages.Usage(), messages.Used)
        if used is None:
            return
        assert self._opened is not None
        rounds, self._rounds = self._rounds, []
        if self.search is not None:
            self._rates.append(self.search.rate)
        self._launches.append(
            Launch(
                load_seconds=self._opened.seconds,
                peak_bytes=used.peak_bytes,
                base_bytes=self._opened.base_bytes,
                wall_ms=tuple(run.wall for run in rounds),
                cpu_ms=tuple(run.cpu for run in rounds),
                gpu_ms=tuple(run.gpu for run in rounds if run.gpu is not None),
                enqueue_ms=tuple(run.enqueue for run in rounds if run.enqueue is not None),
            )
        )

    def with_nodes(self, result: BenchResult) -> BenchResult:
        """A result with the time of every node, measured in a process of its own: it disturbs no other figure.

        A process that fails at it fails nothing that was measured before.
        """
        if not self.alive or not can_profile(self.job.path, self.job.engine):
            return result
        with tempfile.TemporaryDirectory() as folder, WorkerProcess(self._options.time_limit) as process:
            opened = messages.Open(str(self.job.path.absolute()), self.job.engine, self.settings, folder)
            try:
                process.ask(opened, messages.Opened)
                warmed = process.ask(messages.Warm(self.shapes, self._options.seed, 0.0), messages.Ran)
                process.ask(messages.Round(PROFILED_RUNS, alone=True), messages.Ran)
                written = process.ask(messages.EndProfile(), messages.Profiled)
                profile = read_profile(Path(written.path).read_bytes(), warmup=len(warmed.runs))
            except (WorkerFailedError, OSError, ValueError) as error:
                doubt = f"its nodes could not be timed: {first_line_of(error)}"
                return replace(result, warnings=(*result.warnings, doubt))
        return replace(result, profile=profile)

    @property
    def versions(self) -> dict[str, str]:
        """Of what its process had loaded, by module; of one that failed early nothing is known."""
        return self._opened.versions if self._opened is not None else {}

    @property
    def candidate(self) -> Candidate:
        """What is measured, as far as it is known."""
        opened, shapes = self._opened, tuple(self.shapes.values())
        return Candidate(
            file=str(self.job.path),
            sha256=self.job.sha256,
            precision=self.graph.precision,
            engine=self.job.engine,
            runtime=opened.runtime if opened else "",
            batch=next((shape[0] for shape in shapes if shape), self.job.batch or 0),
            threads=self.settings.threads,
            inputs=shapes,
            flush_denormals=self.settings.flush_denormals,
        )

    def result(self) -> BenchResult:
        """What was measured, without what only others give: ratios and warnings."""
        candidate = self.candidate
        if self.failure:
            return BenchResult(candidate, self.failure)
        server, throughput, latency = None, None, None
        if self._options.bound_ms is not None:
            server = ServerResult(self._options.bound_ms, tuple(self._rates), tuple(self._trials))
            throughput = server.rate * candidate.batch if server.rate is not None else None
        else:
            middle = statistics.median(time for launch in self._launches for time in launch.wall_ms)
            latency = latency_of(self._singles) if self._singles and self._options.quantiles else None
            throughput = candidate.batch / (latency.p50 if latency is not None else middle) * 1e3
        return BenchResult(
            candidate,
            "",
            tuple(self._launches),
            latency,
            throughput,
            server,
            warnings=self._opened.notes if self._opened else (),
        )

    def _ask(self, command: messages.Command, kind: type[A], *, longer: float = 0.0) -> A | None:
        if not self.alive or self._process is None:
            return None
        try:
            return self._process.ask(command, kind, longer=longer)
        except WorkerFailedError as error:
            self.failure = str(error)
            return None
