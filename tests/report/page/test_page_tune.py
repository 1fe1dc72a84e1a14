"""What tune tried, on the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from report_samples import Page, artifact, page_of, quantized_manifest, tune


def test_every_trial_is_told_with_its_reason_and_a_long_table_is_folded(tmp_path: Path) -> None:
    page = page_of(artifact(tmp_path / "few", quantized_manifest(), tune=tune()))
    every = page.of("td")
    cells = every[every.index("1") :]
    assert [cells[start : start + 6] for start in (0, 18)] == [
        ["1", "fp32", "channels-last", "slice-concat", "onnxruntime", "1 thread"],
        ["3", "int8-trt", "channels-first", "slice-concat", "openvino", "1 thread"],
    ]
    assert cells[24:27] == ["1", "0.500 (0.480 to 0.520)", "WONthe fastest"]
    assert "not equalit differs by 0.3" in cells
    assert "no time" in cells, "and nothing more"
    assert "int8: model.int8.onnx on openvino, 1 thread, 2.00 times as fast" in page.of("p")
    assert "fp32: model.fp32-tuned.onnx on openvino, 1 thread, 1.23 times as fast (of an older file)" in page.of("p")
    assert "Fp16 is not tried on a processor." in page.of("p")
    assert folded(page) == [False]
    many = replace(tune(), trials=(*tune().trials, *tune().trials))
    assert folded(page_of(artifact(tmp_path / "many", quantized_manifest(), tune=many))) == [True]


def folded(page: Page) -> list[bool]:
    return ["open" not in attrs for tag, attrs in page.elements if tag == "details"][:1]
