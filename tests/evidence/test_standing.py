"""Which comparisons of a file count, and what they amount to together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_samples import FILE, INT8, SHA, build, manifest, on_noise, quantized_manifest, report
from two_files import evidence, int8

from s2mlp_deploy.evidence.parity import GraphProof, ParityReport, Weights
from s2mlp_deploy.evidence.standing import Standing, comparisons, standings


def standing(*reports: ParityReport, file: str = FILE) -> Standing:
    described = quantized_manifest()
    found = standings(described, comparisons(described, evidence(*reports)))
    return next(item for item in found if item.file == file)


def failing(whole: ParityReport, **metrics: Any) -> ParityReport:
    """The same comparison with figures that do not keep its limits."""
    bad = report(**({"max_abs": 3.1} | metrics))
    return replace(whole, outputs=bad.outputs, failures=bad.failures)


def test_images_outrank_noise() -> None:
    found = standing(on_noise(), report())
    assert (found.state, [item.report.noise for item in found.basis]) == ("holds", [False])
    assert not found.on_noise
    assert standing(on_noise()).on_noise


@pytest.mark.parametrize("order", [1, -1])
def test_a_file_that_fails_on_any_data_fails(order: int) -> None:
    for bad, good in ((failing(report()), on_noise()), (failing(on_noise()), report())):
        found = standing(*(bad, good)[::order])
        assert found.state == "fails"
        assert [item.report for item in found.basis] == [bad]


def test_noise_does_not_overrule_images_of_a_quantized_file_and_is_not_hidden() -> None:
    bad = int8(failing(on_noise()))
    found = standing(int8(report()), bad, file=INT8)
    assert (found.state, [item.report for item in found.excused]) == ("holds", [bad])
    # Without images that hold, noise is all there is.
    assert standing(bad, file=INT8).state == "fails"
    assert standing(bad, int8(failing(report())), file=INT8).state == "fails"


@pytest.mark.parametrize(
    "changes",
    [
        {"proof": GraphProof(1, failures=("shift1 moves other elements",)), "failures": ("shift1 moves ...",)},
        {"failures": ("zeros: output 'logits': 3 values are NaN",)},
    ],
)
def test_what_fails_without_the_noise_is_never_excused(changes: dict[str, Any]) -> None:
    bad = int8(failing(on_noise()))
    bad = replace(bad, failures=(*bad.failures, *changes["failures"]), proof=changes.get("proof"))
    assert standing(int8(report()), bad, file=INT8).state == "fails"


def test_a_file_on_an_engine_is_judged_by_what_was_compared_there() -> None:
    there = {"candidate": "openvino (CPU)"}
    held, wrong = report(), replace(failing(report()), **there)
    found = standing(held, wrong)
    assert [found.state, *(found.on(name).state for name in ("onnxruntime", "openvino", "tensorrt"))] == [
        *("fails", "holds", "fails", "fails")
    ]
    assert found.on("onnxruntime").engines == ("onnxruntime",)
    # Noise there does not outrank images elsewhere, and a graph that is wrong is wrong for every engine.
    assert standing(on_noise(), wrong).on("onnxruntime").state == "fails"
    assert standing(on_noise(), replace(failing(on_noise()), **there)).on("onnxruntime").state == "holds"
    proof = GraphProof(1, failures=("shift1 moves other elements",))
    assert standing(held, replace(wrong, proof=proof)).on("onnxruntime").state == "fails"


def test_a_comparison_with_a_file_rests_on_the_engine_that_ran_that_file() -> None:
    wrong = replace(failing(report()), candidate="openvino (CPU)")
    against = int8(report(), rests_on=((FILE, SHA),), reference=f"onnxruntime (CPU), {FILE}")
    assert standing(report(), wrong, against, file=INT8).state == "holds"
    assert standing(wrong, against, file=INT8).state == "fails"


def test_a_comparison_of_other_bytes_or_weights_does_not_count() -> None:
    for old, state in (
        (replace(report(), file_sha256="1" * 64), "stale"),
        (replace(report(), file_sha256=""), "stale"),
        (replace(report(), weights=Weights(seed=0)), "weights"),
    ):
        (item,) = comparisons(manifest(), evidence(old))
        assert (item.state, item.counts) == (state, False)
        assert standing(old) == Standing(FILE, "missing", superseded=True)
    same_under_another_name = replace(report(), weights=Weights("renamed.safetensors", "c0ffee" * 10))
    assert standing(same_under_another_name).state == "holds"


def test_an_engine_is_known_by_the_record_of_its_build() -> None:
    of_engine = replace(report(), file=build().engine, file_sha256=build().engine_sha256)
    older = replace(of_engine, file_sha256="9" * 64)
    found = {c.report.file_sha256: c.state for c in comparisons(manifest(), evidence(build(), of_engine, older))}
    assert found == {build().engine_sha256: "holds", "9" * 64: "stale"}


def test_a_file_beside_the_artifacts_own_has_a_standing_too() -> None:
    assert standing(replace(report(), file="copy.onnx"), file="copy.onnx").state == "holds"


def test_labels_are_readable_and_differ_where_the_question_does() -> None:
    whole = report()
    questions = [
        whole,
        on_noise(),
        on_noise(data="16 samples of seeded Gaussian noise (seed 1)"),
        replace(whole, file_sha256="1" * 64),
        replace(whole, data_sha256="2" * 64),
        replace(whole, weights=Weights(seed=3)),
        replace(whole, weights=None),
        replace(whole, candidate="onnxruntime (cuda)"),
        replace(whole, file="other.onnx"),
    ]
    labels = [item.label for item in questions]
    assert len(set(labels)) == len(labels)
    assert labels[0].startswith("model.fp32-held-out-digits-")
    assert labels[1].startswith("model.fp32-noise-")
    # The same question again, with another answer.
    assert replace(failing(whole), environment=None).label == whole.label


@pytest.mark.parametrize(
    ("data", "begins"),
    [
        ("64 images of photos", "model.fp32-photos-"),
        ("raw pixels of 1,000 images of set.tar.xz/test", "model.fp32-set.tar.xz-test-"),
        ("3 samples of ../../etc/passwd", "model.fp32-etc-passwd-"),
        ("5 images of Ünï côde: *?<>|", "model.fp32-n-c-de-"),
        ("7 images of " + "x" * 300, "model.fp32-" + "x" * 60 + "-"),
        ("", "model.fp32-data-"),
    ],
)
def test_labels_are_plain_file_names(data: str, begins: str, tmp_path: Path) -> None:
    label = replace(report(), data=data, file=rf"C:\there\{FILE}", file_sha256=SHA).label
    assert label.startswith(begins)
    (tmp_path / f"parity-{label}.json").write_text("")


def test_a_comparison_with_a_file_of_the_artifact_says_no_more_than_that_file_s() -> None:
    tuned = on_noise(file="tuned.onnx", file_sha256="d" * 64, rests_on=((FILE, SHA),))

    def state(*reports: ParityReport) -> str:
        return standing(tuned, *reports, file="tuned.onnx").state

    assert state() == "missing"
    assert state(report()) == "holds"
    assert state(failing(report())) == "fails"
    assert state(replace(report(), file_sha256="1" * 64)) == "missing"
    # What it was compared with has changed.
    other = replace(tuned, rests_on=((FILE, "1" * 64),))
    found = {item.report.file: item.state for item in comparisons(manifest(), evidence(other, report()))}
    assert found == {"tuned.onnx": "stale", FILE: "holds"}
    # A comparison with the source itself needs no other.
    assert state(failing(report()), replace(report(), file="tuned.onnx", file_sha256="d" * 64)) == "holds"
    # What fails by its own figures fails.
    assert standing(failing(tuned), report(), file="tuned.onnx").state == "fails"
