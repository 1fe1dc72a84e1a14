"""Comparisons on a page: one table for each data set, in which everything is named once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from report_samples import FILE, artifact, manifest, on_noise, page_of, regions, report, tone


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


def test_limits_never_round_to_perfection_and_a_folder_called_images_is_a_folder(tmp_path: Path) -> None:
    (output,) = report().outputs
    assert output.tolerances is not None
    close = replace(output, tolerances=replace(output.tolerances, min_cosine=0.9999989, min_top1_agreement=0.9995))
    judged = replace(
        report(), outputs=(close,), limits="its own figures: 35.5 dB on 40 images of images when it was made"
    )
    page = page_of(artifact(tmp_path, parity_a=judged))
    (told,) = [text for text in page.of("p") if text.startswith("Limits for")]
    assert "min cosine 0.9999989, min top-1 agreement 99.95 % (its" in told
    assert told.endswith("on 40 images of the folder images when it was made)")


def test_files_stand_in_the_order_of_the_artifact(tmp_path: Path) -> None:
    half = replace(manifest().files[0], path="model.fp16.onnx", sha256="e" * 64)
    described = replace(manifest(), files=(*manifest().files, half))
    other = replace(report(), file=half.path, file_sha256=half.sha256, precision="fp16")
    cells = page_of(artifact(tmp_path, described, parity_a=other, parity_b=report())).of("td")
    names = [cell for cell in cells if cell.endswith("onnxruntime 1.22.0 (cpu)")]
    assert [name.partition(".onnx")[0] for name in names] == ["model.fp32", "model.fp16"]


def test_float16_that_was_computed_in_float32_is_told(tmp_path: Path) -> None:
    half = replace(report(), precision="fp16", candidate="onnxruntime (CPU)")
    told = [text for text in page_of(artifact(tmp_path / "a", parity_a=half)).of("p") if "float16's own" in text]
    assert len(told) == 1
    assert FILE in told[0]
    for name, other in (("b", replace(half, candidate="onnxruntime (CUDA)")), ("c", replace(half, precision="int8"))):
        assert "float16's own" not in page_of(artifact(tmp_path / name, parity_a=other)).body
