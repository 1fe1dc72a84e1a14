"""Timing with CUDA events, on an engine and events that only note what is asked of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from s2mlp_deploy.bench import gpu
from s2mlp_deploy.bench.engines import is_timed_on_gpu
from s2mlp_deploy.bench.timing import Calls


class Recorder:
    """A stand-in for an engine and its stream."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.stream = object()

    def upload(self, _: Any) -> None:
        self.asked.append("upload")

    def launch(self) -> None:
        self.asked.append("launch")

    def download(self) -> dict[str, Any]:
        self.asked.append("download")
        return {}


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()

    class Event:
        def record(self, stream: object) -> None:
            assert stream is recorder.stream
            recorder.asked.append("event")

        def wait(self) -> None:
            recorder.asked.append("wait")

        def milliseconds_since(self, start: Any) -> float:
            assert start is not self
            return 6.0

    monkeypatch.setattr(gpu.cuda, "Event", Event)
    return recorder


def test_a_run_alone_has_its_copies_in_the_wall_time_and_not_between_the_events(engine: Recorder):
    run = gpu.Launches(engine, {"x": np.zeros(1)}).once()  # type: ignore[arg-type]
    assert engine.asked == ["upload", "event", "launch", "event", "download"]
    assert run.gpu == 6.0
    assert run.enqueue is not None
    assert 0 < run.enqueue <= run.wall


def test_many_runs_are_queued_behind_each_other_and_waited_for_once(engine: Recorder):
    run = gpu.Launches(engine, {"x": np.zeros(1)}).many(3)  # type: ignore[arg-type]
    assert engine.asked == ["upload", "event", "launch", "launch", "launch", "event", "wait"]
    assert run.gpu == 2.0


def test_engines_with_a_stream_are_timed_by_it():
    assert is_timed_on_gpu(Recorder())
    assert not is_timed_on_gpu(Calls(lambda: None))
