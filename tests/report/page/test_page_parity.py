"""Comparisons on a page: one table for each data set, in which everything is named once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from report_samples import artifact, on_noise, page_of, regions, report, tone


def test_the_eager_run_is_shown_once_and_not_judged(tmp_path: Path) -> None:
    whole = report()
    racing = replace(whole, eager=whole.outputs)
    page = page_of(artifact(tmp_path, parity_a=racing, parity_b=replace(racing, file="other.onnx")))
    assert tone(page) == "good"
    assert page.of("td").count("not judged") == 1


def test_figures_of_different_data_stand_in_different_tables_images_first(tmp_path: Path) -> None:
    int8 = replace(report(), file="model.int8.onnx", precision="int8")
    page = page_of(artifact(tmp_path, parity_a=on_noise(), parity_b=report(), parity_c=int8))
    assert regions(page, "Parity on") == [
        "Parity on held-out digits (1,000 images)",
        "Parity on 16 samples of seeded Gaussian noise (seed 0)",
    ]
    cells = page.of("td")
    # A file, its reference and its data are named once.
    assert cells.count("model.int8.onnxint8, onnxruntime 1.22.0 (cpu)") == 1
    assert page.of("dd").count("torch 2.13.0 (cpu)") == 2
    assert f"sha256 {'da' * 6}"[7:] in page.of("dd")


def test_further_outputs_of_a_file_do_not_name_it_again(tmp_path: Path) -> None:
    two = replace(report(), outputs=(*report().outputs, replace(report().outputs[0], name="features")))
    cells = page_of(artifact(tmp_path, parity_a=two)).of("td")
    assert cells[cells.index("features") - 2 : cells.index("features")] == ["", ""]


def test_limits_that_differ_within_a_precision_say_of_which_file(tmp_path: Path) -> None:
    other = replace(report(), file="copy.onnx", limits="its own")
    page = page_of(artifact(tmp_path, parity_a=report(), parity_b=other))
    told = [text.partition(":")[0] for text in page.of("p") if text.startswith("Limits for")]
    assert told == ["Limits for fp32 (model.fp32.onnx)", "Limits for fp32 (copy.onnx)"]
    page = page_of(artifact(tmp_path / "alone", parity_a=report(), parity_b=replace(other, limits="")))
    assert [text.partition(":")[0] for text in page.of("p") if text.startswith("Limits for")] == ["Limits for fp32"]
