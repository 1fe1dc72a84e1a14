"""The short benchmark looks into files that are not fast enough, and into no others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_speed import speed_report

from s2mlp_deploy.bench import speed
from s2mlp_deploy.bench.trust import doubts


@pytest.mark.parametrize(
    ("ratio", "speedup", "looked_into"),
    [(1.5, 1.0, [0, 1]), (1.02, 1.0, []), (0.6, 1.0, []), (0.6, 2.0, [0, 1]), (1.5, 0.5, [0, 1])],
)
def test_nodes_are_timed_where_a_file_is_slow(
    monkeypatch: pytest.MonkeyPatch,
    perceptron: Callable[..., Path],
    ratio: float,
    speedup: float,
    looked_into: list[int],
):
    files = [perceptron(name) for name in ("model.fp32.onnx", "model.int8.onnx", "model.fp16.onnx")]
    report = speed_report(files, {"int8": ratio})
    given: dict[str, Any] = {}

    def measure(jobs: Any, options: Any, **others: Any) -> Any:
        given.update(others, jobs=jobs, options=options)
        return report

    monkeypatch.setattr(speed, "measure", measure)
    assert speed.measure_speed(files, "onnxruntime", {"input": (1, 8)}, speedup=speedup) is report
    assert [job.path for job in given["jobs"]] == files
    assert given["look_into"](report.results) == looked_into
    options = given["options"]
    assert options.shapes == {"input": (1, 8)}
    # As few processes and rounds as an interval can be made of, and no runs for quantiles.
    assert options.launches * options.rounds <= 12
    assert options.runs_for(20.0) == 5
    times = (1.0,) * options.rounds
    launches = (replace(report.results[1].launches[0], wall_ms=times, cpu_ms=times),) * options.launches
    assert doubts(replace(report.results[1], launches=launches, latency=None), options) == ()
