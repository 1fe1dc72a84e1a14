"""Benchmarks on a page: what each is called, and how it was measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_samples import artifact, bench, page_of, quantized_manifest

from s2mlp_deploy.evidence.bench import BenchReport
from s2mlp_deploy.report.page.bench import titles_of


def changed(**candidate: Any) -> BenchReport:
    """A benchmark whose candidates differ in something."""
    found = bench()
    return replace(found, results=tuple(replace(r, candidate=replace(r.candidate, **candidate)) for r in found.results))


@pytest.mark.parametrize(
    ("other", "titles"),
    [
        (replace(bench(), scenario="offline"), ["single-stream", "offline"]),
        (changed(engine="openvino"), ["single-stream on onnxruntime", "single-stream on openvino"]),
        (changed(threads=2), ["single-stream, 1 thread", "single-stream, 2 threads"]),
        (changed(threads=0), ["single-stream, 1 thread", "single-stream, threads as the runtime chooses"]),
        (changed(batch=8, threads=4), ["single-stream, batch 1, 1 thread", "single-stream, batch 8, 4 threads"]),
        (changed(inputs=((1, 3, 9, 9),)), ["single-stream, 3×8×8", "single-stream, 3×9×9"]),
        (changed(flush_denormals=True), ["single-stream", "single-stream, subnormal numbers count as 0"]),
        (
            replace(bench(), environment=replace(bench().environment, time="2026-11-28T08:01:00Z")),
            ["single-stream, 2026-11-27 21:55 UTC", "single-stream, 2026-11-28 08:01 UTC"],
        ),
        (bench(), ["single-stream, 2026-11-27 21:55 UTC (1)", "single-stream, 2026-11-27 21:55 UTC (2)"]),
    ],
)
def test_benchmarks_are_called_by_what_differs_and_by_their_date_where_nothing_else_does(other, titles):
    assert titles_of([bench(), other]) == titles


def test_one_benchmark_is_called_by_its_scenario_whatever_it_held():
    first, second, _ = bench().results
    several = replace(second, candidate=replace(second.candidate, engine="openvino", batch=8))
    assert titles_of([replace(bench(), results=(first, several))]) == ["single-stream"]
    both = replace(bench(), results=(first, several))
    assert titles_of([both, bench()]) == [
        "single-stream on onnxruntime and openvino, batches 1 and 8",
        "single-stream on onnxruntime, batch 1",
    ]


def test_a_page_says_how_each_was_measured(tmp_path: Path):
    page = page_of(
        artifact(tmp_path, quantized_manifest(), bench_single_stream=changed(batch=8, inputs=((8, 3, 8, 8),)))
    )
    assert (
        "onnxruntime 1.32.0 (CPU); 1 thread; inputs 8×3×8×8, seeded Gaussian noise (seed 0); in turn, 3 processes of "
        f"{bench().rounds} rounds each; 2026-11-27 21:55 UTC" in page.of("p")
    )


def test_the_latency_of_single_runs_comes_first_and_the_newest_before_older_ones(tmp_path: Path):
    later = replace(bench(), environment=replace(bench().environment, time="2026-11-28T08:01:00Z"))
    page = page_of(
        artifact(
            tmp_path,
            quantized_manifest(),
            bench_offline=replace(later, scenario="offline"),
            bench_single_stream=bench(),
            bench_speed_onnxruntime=later,
        )
    )
    titles = [text for text in page.of("h3") if text.startswith(("single-stream", "offline"))]
    assert titles == ["single-stream, 2026-11-28 08:01 UTC", "single-stream, 2026-11-27 21:55 UTC", "offline"]


def test_a_doubt_of_several_candidates_is_told_once(tmp_path: Path):
    first, second, crashed = bench().results

    def doubts(*warnings: tuple[str, ...]) -> list[str]:
        both = [replace(r, warnings=w) for r, w in zip((first, second), warnings, strict=True)]
        report = replace(bench(), warnings=(), results=(*both, crashed))
        page = page_of(artifact(tmp_path, quantized_manifest(), bench_single_stream=report))
        return [text.removeprefix("Doubtful: ") for text in page.of("p") if text.startswith("Doubtful")]

    assert doubts(("few rounds",), ("few rounds", "a spread")) == [
        "few rounds.",
        "model.int8.onnx, onnxruntime: a spread.",
    ]
    assert doubts((), ()) == []


def test_what_was_not_measured_of_any_candidate_has_no_column(tmp_path: Path):
    short = replace(bench(), results=(replace(bench().results[0], latency=None),))
    page = page_of(artifact(tmp_path, quantized_manifest(), bench_single_stream=short))
    heads = page.of("th")
    assert "p50 ms" in heads
    assert not {"p90 ms", "Time over the first"} & set(heads)
