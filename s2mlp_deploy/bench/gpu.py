"""Timing engines of a GPU with CUDA events. Written against the documented API: it has never run on a GPU."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from s2mlp_deploy.bench.timing import Run
from s2mlp_deploy.engines import cuda
from s2mlp_deploy.engines.tensorrt.runtime import TensorRTEngine


class Launches:
    """Runs of an engine whose work is queued on a stream.

    Args:
        engine: What is timed.
        feeds: Its inputs.
    """

    def __init__(self, engine: TensorRTEngine, feeds: Mapping[str, NDArray[Any]]) -> None:
        self._engine, self._feeds = engine, feeds
        self._start, self._end = cuda.Event(), cuda.Event()

    def once(self) -> Run:
        """See :class:`~s2mlp_deploy.bench.timing.Timed`: with both copies between host and device."""
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        self._engine.upload(self._feeds)
        enqueue = self._queue(1)
        self._engine.download()
        wall, cpu = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
        return Run(wall / 1e6, cpu / 1e6, self._end.milliseconds_since(self._start), enqueue)

    def many(self, count: int) -> Run:
        """See :class:`~s2mlp_deploy.bench.timing.Timed`: inputs lie on the device, and nothing waits in between."""
        self._engine.upload(self._feeds)
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        enqueue = self._queue(count)
        self._end.wait()
        wall, cpu = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
        gpu = self._end.milliseconds_since(self._start)
        return Run(wall / count / 1e6, cpu / count / 1e6, gpu / count, enqueue / count)

    def _queue(self, count: int) -> float:
        """Milliseconds that queueing takes."""
        self._start.record(self._engine.stream)
        begin = time.perf_counter_ns()
        for _ in range(count):
            self._engine.launch()
        took = (time.perf_counter_ns() - begin) / 1e6
        self._end.record(self._engine.stream)
        return took
