"""A benchmark on a terminal: who was measured, who is faster, who failed, and why to doubt it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from report_samples import Page, artifact, bench, quantized_manifest
from rich.console import Console

from s2mlp_deploy.evidence.bench import NO_DIFFERENCE, BenchReport, Ratio, ServerResult
from s2mlp_deploy.report.bench import candidate_names, print_bench
from s2mlp_deploy.report.html import write_report


def shown(report: BenchReport, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_bench(console, report)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_figures_ratios_failures_and_doubts_are_shown():
    text = shown(bench())
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "model.fp32.onnx, onnxruntime 2 2.1 2.2 2 500 0.25 90.0 MB" in lines
    assert any(
        "2.00 times as fast 0.500 (0.480 to 0.520) 0.500 (0.480 to 0.520)" in line
        and line.startswith("model.int8.onnx, onnxruntime model.fp32.onnx, onnxruntime")
        for line in lines
    )
    assert "FAILED model.fp32.onnx, tensorrt-rtx: it was ended by SIGSEGV" in lines
    assert "DOUBT other programs kept 1.5 processors busy" in lines
    assert "DOUBT model.int8.onnx, onnxruntime: the rounds spread by 3.0 %" in lines


def test_a_doubt_of_several_candidates_is_told_once():
    first, second, _ = bench().results
    few, spread = "too few rounds", "the rounds spread by 3.0 %"
    pair = (replace(first, warnings=(few,)), replace(second, warnings=(few, spread)))
    doubts = [line for line in shown(replace(bench(), results=pair, warnings=())).splitlines() if "DOUBT" in line]
    assert doubts == [f"DOUBT  each of them: {few}", f"DOUBT  model.int8.onnx: {spread}"]
    third = replace(second, candidate=replace(second.candidate, file="model.fp16.onnx"), warnings=())
    doubts = shown(replace(bench(), results=(*pair, third)))
    assert f"DOUBT  model.fp32.onnx; model.int8.onnx: {few}" in doubts


def test_where_the_time_goes_is_shown_with_what_is_of_no_module():
    lines = [" ".join(line.split()) for line in shown(bench()).splitlines()]
    assert "Where the time goes in model.fp32.onnx, onnxruntime" in lines
    assert "fc1 1 1.500 75.0 % 100 %" in lines
    assert "BiasGelu 1 0.500 25.0 % 0 %" in lines
    assert "not GEMM or Conv 25.0 %: BiasGelu" in lines
    assert any(line.startswith("of no module 25.0 %") for line in lines)


def test_inside_the_noise_nobody_is_called_faster():
    first, second, _ = bench().results
    close = replace(second, ratio=Ratio(first.candidate.name, 0.99, 0.97, 1.01))
    text = shown(replace(bench(), results=(first, close)))
    assert NO_DIFFERENCE in text
    assert "times as fast" not in text


def test_names_tell_apart_what_differs_and_no_more():
    first, second, _ = bench().results
    assert candidate_names([first, second]) == ["model.fp32.onnx", "model.int8.onnx"]
    assert candidate_names([first, first]) == ["model.fp32.onnx (1)", "model.fp32.onnx (2)"]
    larger = replace(first, candidate=replace(first.candidate, batch=8))
    assert candidate_names([first, larger]) == ["model.fp32.onnx, batch 1", "model.fp32.onnx, batch 8"]
    apart = [replace(first, candidate=replace(first.candidate, file=f"/some/place/{name}/m.onnx")) for name in "ab"]
    assert candidate_names(apart) == ["a/m.onnx", "b/m.onnx"]


@pytest.mark.parametrize("scenario", ["offline", "server"])
def test_other_scenarios_have_columns_of_their_own(scenario: str):
    first = replace(bench().results[0], latency=None, change=Ratio("the run of yesterday", 1.5, 1.4, 1.6))
    if scenario == "server":
        first = replace(first, server=ServerResult(5.0, (0.0, 0.0)), throughput=None)
    text = shown(replace(bench(), scenario=scenario, results=(first,)))
    assert ("none holds" in text) == (scenario == "server")
    assert "the run of yesterday" in text
    assert "1.50 times as slow" in text


def test_a_benchmark_of_failures_alone_is_shown():
    text = shown(replace(bench(), results=bench().results[2:]))
    assert "FAILED" in text
    assert "p50" not in text


def test_other_peoples_text_is_no_markup_and_no_command():
    failed = replace(bench().results[2], failure="[bold]\x1b[2J")
    text = shown(replace(bench(), results=(failed,)))
    assert "[bold]\\x1b[2J" in text


def test_a_page_shows_benchmarks_with_what_is_old_failed_or_doubtful(tmp_path: Path):
    pytest.importorskip("jinja2")
    changed = replace(bench().results[1].candidate, sha256="0" * 64)
    report = replace(
        bench(), results=(bench().results[0], replace(bench().results[1], candidate=changed), bench().results[2])
    )
    page = Page(write_report(artifact(tmp_path / "a", quantized_manifest(), bench_single_stream=report)).read_text())
    assert not page.mistakes
    assert "Speed" in page.of("h2")
    cells = page.of("td")
    assert "model.fp32.onnx, onnxruntime" in cells
    assert "model.int8.onnx, onnxruntimeof an older file" in cells
    assert "2.00 times as fast0.500 (0.480 to 0.520)" in cells
    assert "model.fp32.onnx, tensorrt-rtxfailed: it was ended by SIGSEGV" in cells
    assert "Doubtful: other programs kept 1.5 processors busy." in page.of("p")


def test_other_peoples_text_is_escaped_on_a_page(tmp_path: Path):
    pytest.importorskip("jinja2")
    failed = replace(bench().results[2], failure="<script>alert(1)</script>")
    report = replace(bench(), scenario="<b>", warnings=("<i>",), results=(failed,))
    text = write_report(artifact(tmp_path / "a", bench_single_stream=report)).read_text()
    assert "<script>alert(1)" not in text
    assert "<b></h3>" not in text
    assert "<i>." not in text
