"""What Prometheus reads: a registry of the service's own, so that tests and other users of the library do not meet."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector

from s2mlp_deploy.serving.service.batcher import Phases
from s2mlp_deploy.serving.service.repository import Repository

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters and histograms.

    Args:
        repository: Whose queues and states are read when somebody asks.
        lost_lines: How many lines of the log could not be written.
    """

    def __init__(self, repository: Repository, lost_lines: Callable[[], int] = lambda: 0) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "s2mlp_requests", "Requests by how they ended.", ("route", "model", "status"), registry=self._registry
        )
        self._phases = Histogram(
            "s2mlp_request_seconds",
            "Seconds of a request by phase: receive, queue, prepare, infer, total.",
            ("route", "model", "phase"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._rows = Histogram(
            "s2mlp_batch_rows", "Samples in the batch of a request.", ("model",), buckets=_ROWS, registry=self._registry
        )
        self._restarts = Counter("s2mlp_worker_restarts", "Worker processes that died.", registry=self._registry)
        self._registry.register(_States(repository, lost_lines))
        ProcessCollector(registry=self._registry)

    def answered(self, route: str, model: str, status: int, seconds: float) -> None:
        """Counts a request. ``model`` is one that is served, or empty: nobody's text becomes a time series."""
        self._requests.labels(route, model, str(status)).inc()
        self._phases.labels(route, model, "total").observe(seconds)

    def phase(self, route: str, model: str, phase: str, seconds: float) -> None:
        """Counts a phase of a request."""
        self._phases.labels(route, model, phase).observe(seconds)

    def ran(self, route: str, model: str, phases: Phases) -> None:
        """Counts what a batch took."""
        for phase in ("queue", "prepare", "infer"):
            self.phase(route, model, phase, getattr(phases, phase))
        self._rows.labels(model).observe(phases.rows)

    def restarted(self) -> None:
        """Counts a worker that died."""
        self._restarts.inc()

    def text(self) -> bytes:
        """Everything, in Prometheus's format."""
        return generate_latest(self._registry)


class _States:
    """What is read when somebody asks."""

    def __init__(self, repository: Repository, lost_lines: Callable[[], int]) -> None:
        self._repository, self._lost_lines = repository, lost_lines

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        labels = ("model", "version")
        waiting = GaugeMetricFamily("s2mlp_queue_requests", "Requests that wait.", labels=labels)
        ready = GaugeMetricFamily("s2mlp_model_ready", "1 where a version answers.", labels=labels)
        workers = GaugeMetricFamily("s2mlp_workers", "Worker processes that can be asked.", labels=labels)
        for slot in self._repository.slots:
            own = (slot.name, slot.version)
            ready.add_metric(own, float(slot.state == "ready"))
            if slot.served is not None:
                waiting.add_metric(own, slot.served.batcher.waiting)
                workers.add_metric(own, slot.served.workers.alive)
        yield from (waiting, ready, workers)
        yield GaugeMetricFamily(
            "s2mlp_load_failures", "Artifacts that could not be loaded, so far.", value=self._repository.failures
        )
        yield GaugeMetricFamily(
            "s2mlp_log_lines_lost", "Lines of the log that could not be written, so far.", value=self._lost_lines()
        )
