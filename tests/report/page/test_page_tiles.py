"""The tile of each file: verdict, score, latency, size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from report_samples import FILE, SHA, Page, artifact, bench, manifest, page_of, quantized_manifest, report

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
    files = (replace(quantized.files[0], sha256="9" * 64), quantized.files[1])
    page = page_of(artifact(tmp_path / "c", replace(quantized, files=files), bench_single_stream=trusted))
    assert latencies(page) == []
