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
from two_files import BOTH, TUNED, tuned_on_noise, with_tuned

from s2mlp_deploy.artifact import FileRecord
from s2mlp_deploy.evidence.accuracy import AGREEMENT
from s2mlp_deploy.evidence.parity import Tolerances


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
    assert latencies(page) == [
        "2 msbatch 1, 1 thread, onnxruntime, doubtful",
        "1 msbatch 1, 1 thread, onnxruntime, doubtful",
    ]
    trusted = replace(bench(), warnings=())
    first, _, crashed = trusted.results
    assert first.latency is not None
    larger = replace(first, candidate=replace(first.candidate, batch=8), latency=replace(first.latency, p50=1.0))
    trusted = replace(trusted, results=(larger, first, crashed))
    page = page_of(artifact(tmp_path / "b", quantized, bench_single_stream=trusted))
    assert latencies(page) == ["2 msbatch 1, 1 thread, onnxruntime"]
    # Too few runs for percentiles.
    short = replace(trusted, results=(replace(first, latency=None),))
    page = page_of(artifact(tmp_path / "e", quantized, bench_single_stream=short))
    assert latencies(page) == ["2 msbatch 1, 1 thread, onnxruntime"]
    # Measured later on another engine, which is slower.
    latency = replace(first.latency, p50=3.0)
    slower = replace(first, candidate=replace(first.candidate, engine="openvino"), latency=latency)
    later = replace(trusted, results=(slower,), environment=replace(trusted.environment, time="2027"))
    page = page_of(artifact(tmp_path / "d", quantized, bench_single_stream=later, bench_speed_onnxruntime=trusted))
    assert latencies(page) == ["2 msbatch 1, 1 thread, onnxruntime"]
    files = (replace(quantized.files[0], sha256="9" * 64), quantized.files[1])
    page = page_of(artifact(tmp_path / "c", replace(quantized, files=files), bench_single_stream=trusted))
    assert latencies(page) == []


def test_a_file_that_tune_made_tells_whose_scores_are_known(tmp_path: Path) -> None:
    known = {"parity_a": BOTH[0], "parity_b": BOTH[1], "parity_c": tuned_on_noise(), "accuracy_a": accuracy()}
    page = page_of(artifact(tmp_path / "a", with_tuned(), **known))
    (tile,) = [text for text in page.of("section") if text.startswith("int8 tuned")]
    assert f"Accuracynot scored{INT8}, which it was compared with: 82.90 %, drop +0.10" in tile
    assert "on noise alone" in tile
    cells = page.of("td")
    assert cells[cells.index(f"{TUNED}compared with {INT8} alone") + 1] == "not scored"
    assert f"against {tuned_on_noise().reference}" in tile
    alone = artifact(tmp_path / "c", with_tuned(), **{name: known[name] for name in ("parity_c", "accuracy_a")})
    (tile,) = [text for text in page_of(alone).of("section") if text.startswith("int8 tuned not measured")]
    assert f"it rests on {FILE}, whose parity was not measured" in tile
    assert f"Accuracynot scored{INT8}" in tile
    # Measured on labelled images it has an accuracy of its own.
    known["parity_d"] = replace(BOTH[1], file=TUNED, file_sha256="d" * 64)
    page = page_of(artifact(tmp_path / "b", with_tuned(), **known))
    (tile,) = [text for text in page.of("section") if text.startswith("int8 tuned")]
    assert "Accuracy97.10 %reference 97.20 %" in tile
    assert "not scored" not in tile
    assert f"{TUNED}its accuracy stands under Parity" in page.of("td")


def test_a_figure_stands_beside_the_limit_of_its_own_output(tmp_path: Path) -> None:
    (scores,) = report(max_abs=0.001, sqnr=49.0).outputs
    assert scores.tolerances is not None
    strict = replace(scores, tolerances=replace(scores.tolerances, atol=0.002, rtol=0.0, min_sqnr=38.0))
    metrics = replace(scores.metrics, max_abs=0.03, sqnr=39.0)
    features = replace(
        strict, name="map", metrics=metrics, tolerances=replace(strict.tolerances, atol=0.2, min_sqnr=20.0)
    )
    page = page_of(artifact(tmp_path, parity_a=replace(report(), outputs=(strict, features))))
    (tile,) = [text for text in page.of("section") if text.startswith("fp32")]
    assert "Max abs0.001allowed 0.002, logits SQNR49.0 dBat least 38.0 dB, logits" in tile


def test_a_tile_says_what_was_scored(tmp_path: Path) -> None:
    def labels(metric: str) -> list[list[str]]:
        scored = artifact(tmp_path / metric[:5], quantized_manifest(), accuracy_a=replace(accuracy(), metric=metric))
        tiles = [text for text in page_of(scored).of("section") if text.startswith(("fp32", "int8"))]
        return [[word for word in ("Accuracy", "Agreement", "Score") if word in tile] for tile in tiles]

    assert labels("top-1 accuracy") == [["Accuracy"], ["Accuracy"]]
    assert labels("my own: F1") == [["Score"], ["Score"]]
    # float32 agrees with itself, which says nothing.
    assert labels(AGREEMENT) == [[], ["Agreement"]]


def test_a_limit_of_sqnr_stands_beside_the_figure_and_one_that_limits_nothing_nowhere(tmp_path: Path) -> None:
    (output,) = report(sqnr=31.5).outputs
    limits = Tolerances(0.0, 2.0, -1, 0, min_sqnr=28.25)
    judged = replace(report(), outputs=(replace(output, tolerances=limits),))
    page = page_of(artifact(tmp_path / "a", parity_a=judged))
    (tile,) = [text for text in page.of("section") if text.startswith("fp32")]
    assert "Max abs7.63e-06 SQNR31.5 dBat least 28.2 dB Same" in tile
    assert "31.5 dBat least 28.2 dB" in page.of("td")
    assert "Limits for fp32: atol 0, rtol 2, min SQNR 28.2 dB" in page.of("p")
    over = replace(output, metrics=replace(output.metrics, sqnr=20.0), tolerances=limits)
    page = page_of(artifact(tmp_path / "b", parity_a=replace(judged, outputs=(over,))))
    assert "20.0 dBunder 28.2 dB" in page.of("td")
