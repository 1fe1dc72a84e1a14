"""The tile of each file: verdict, score, latency, size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from report_samples import (
    FILE,
    INT8,
    SHA,
    Page,
    accuracy,
    artifact,
    bench,
    manifest,
    page_of,
    quantized_manifest,
    report,
)

from s2mlp_deploy.artifact import FileRecord


def test_a_tile_for_each_file(tmp_path: Path) -> None:
    files = (*manifest().files, FileRecord("model.int8.onnx", "int8", "b" * 64, 9, 600))
    page = page_of(artifact(tmp_path, manifest(files=files), parity_a=report()))
    tiles = [text for text in page.of("section") if text.startswith(("fp32", "int8"))]
    assert tiles[0].startswith(
        "fp32 holds held-out digits (1,000 images) Max abs7.63e-06allowed 0.0184 Same top-199.95"
    )
    assert f"Accuracy97.10 %reference 97.20 % Size18 bytes {FILE}sha256 {SHA[:12]}" in tiles[0]
    assert tiles[1].startswith("int8 not measured Size9 bytes50 % of fp32")


def test_tiles_of_one_precision_are_told_apart(tmp_path: Path) -> None:
    tuned = replace(quantized_manifest().files[1], path="model.int8-tuned.onnx", sha256="c" * 64)
    files = (*quantized_manifest().files, tuned)
    page = page_of(artifact(tmp_path, replace(quantized_manifest(), files=files)))
    heads = [text for text in page.of("p") if text.endswith(" not measured")]
    assert heads == ["fp32 not measured", "int8 not measured", "int8 tuned not measured"]


def test_a_tile_names_the_engine_where_evidence_is_of_several(tmp_path: Path) -> None:
    good = replace(report(), file=INT8, precision="int8", file_sha256="b" * 64)
    bad = replace(report(max_abs=3.1), file=INT8, precision="int8", file_sha256="b" * 64, candidate="openvino (CPU)")
    page = page_of(artifact(tmp_path, quantized_manifest(), parity_a=good, parity_b=bad, accuracy_a=accuracy()))
    tile = next(text for text in page.of("section") if text.startswith("int8"))
    assert tile.startswith("int8 FAILS held-out digits (1,000 images) on openvino holds on onnxruntime Max abs3.1")
    assert "drop +0.10, onnxruntime" in tile
    assert "FAILSon openvino" in page.of("td")


def latencies(page: Page) -> list[str]:
    return [text.partition("Latency")[2].split(" Size")[0] for text in page.of("section") if "Latency" in text]


def test_a_tile_tells_the_latency_of_the_bytes_that_are_there(tmp_path: Path) -> None:
    quantized = quantized_manifest()
    page = page_of(artifact(tmp_path / "a", quantized, bench_single_stream=bench()))
    assert latencies(page) == ["2 msbatch 1, onnxruntime, doubtful", "1 msbatch 1, onnxruntime, doubtful"]
    trusted = replace(bench(), warnings=())
    first, _, crashed = trusted.results
    assert first.latency is not None
    larger = replace(first, candidate=replace(first.candidate, batch=8), latency=replace(first.latency, p50=1.0))
    trusted = replace(trusted, results=(larger, first, crashed))
    page = page_of(artifact(tmp_path / "b", quantized, bench_single_stream=trusted))
    assert latencies(page) == ["2 msbatch 1, onnxruntime"]
    # Too few runs for percentiles.
    short = replace(trusted, results=(replace(first, latency=None),))
    page = page_of(artifact(tmp_path / "e", quantized, bench_single_stream=short))
    assert latencies(page) == ["2 msbatch 1, onnxruntime"]
    # Measured later on another engine, which is slower.
    latency = replace(first.latency, p50=3.0)
    slower = replace(first, candidate=replace(first.candidate, engine="openvino"), latency=latency)
    later = replace(trusted, results=(slower,), environment=replace(trusted.environment, time="2027"))
    page = page_of(artifact(tmp_path / "d", quantized, bench_single_stream=later, bench_speed_onnxruntime=trusted))
    assert latencies(page) == ["2 msbatch 1, onnxruntime"]
    titles = [text for text in page.of("h3") if text.startswith("single-stream")]
    assert titles == ["single-stream on openvino", "single-stream on onnxruntime"]
    files = (replace(quantized.files[0], sha256="9" * 64), quantized.files[1])
    page = page_of(artifact(tmp_path / "c", replace(quantized, files=files), bench_single_stream=trusted))
    assert latencies(page) == []
