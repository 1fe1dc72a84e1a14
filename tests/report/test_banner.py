"""What the top of a report says: verdicts in words, and races with what to do about them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from report_samples import FILE, INT8, on_noise, quantized_manifest, report
from report_samples import manifest as described
from two_files import evidence, int8

from s2mlp_deploy.artifact import Hazard
from s2mlp_deploy.evidence.parity import GraphProof, OutputParity, ParityReport
from s2mlp_deploy.report.banner import parity_verdict, race_warning

RACE = Hazard("race", "net.py:18", "x[1:] = x[:-1]", 1, 72, {"1": 1.25, "2": None})


def test_images_speak_for_a_file_and_noise_is_not_counted_with_them() -> None:
    verdict = parity_verdict(described(), evidence(report(), on_noise()), "out")
    assert (verdict.tone, verdict.headline) == ("good", "Parity holds")
    (sentence,) = verdict.sentences
    assert "over held-out digits (1,000 images): largest difference 7.63e-06" in sentence
    assert "noise" not in sentence


def test_a_quantized_file_that_fails_on_noise_alone_is_told_and_not_condemned() -> None:
    bad = report(max_abs=3.1)
    noise = int8(replace(on_noise(), outputs=bad.outputs, failures=bad.failures))
    verdict = parity_verdict(quantized_manifest(), evidence(report(), int8(report()), noise), "out")
    assert (verdict.tone, verdict.headline) == ("warn", "Parity holds on images and FAILS on noise")
    assert verdict.failures[0].startswith(f"{INT8} on 16 samples of seeded Gaussian noise (seed 0): output 'logits'")
    assert "outside the ranges that were calibrated" in verdict.sentences[-1]
    # On noise alone it fails.
    verdict = parity_verdict(quantized_manifest(), evidence(report(), noise), "out")
    assert (verdict.tone, verdict.headline) == ("bad", "Parity FAILS")
    assert f"Do not deploy {INT8}" in verdict.sentences[0]


def test_a_failure_says_on_which_engine_where_there_are_several() -> None:
    bad = int8(report(max_abs=3.1))
    there = replace(bad, candidate="openvino 2026.4.1 (CPU)")
    verdict = parity_verdict(quantized_manifest(), evidence(report(), int8(report()), there), "out")
    assert verdict.headline == "Parity FAILS on openvino"
    assert verdict.sentences[:2] == (
        f"Do not deploy {INT8} on openvino: the outputs differ from the reference by more than allowed.",
        f"Parity of {INT8} holds on onnxruntime.",
    )
    assert verdict.failures[0].startswith(f"{INT8} on openvino, held-out digits (1,000 images): output 'logits'")
    # What is wrong with the graph is wrong everywhere.
    assert there.proof is None
    wrong = replace(there, proof=GraphProof(0, 1, ("a constant is another",)), failures=("a constant is another",))
    verdict = parity_verdict(quantized_manifest(), evidence(report(), int8(report()), wrong), "out")
    assert verdict.headline == "Parity FAILS"
    alone = parity_verdict(quantized_manifest(), evidence(report(), bad), "out")
    assert alone.headline == "Parity FAILS"
    assert alone.failures[0].startswith(f"{INT8} on held-out digits (1,000 images): output 'logits'")


def test_one_runtime_is_named_once() -> None:
    told = (replace(report(), candidate="openvino 2026.4.1 (CPU)"), replace(report(), candidate="openvino (CPU)"))
    (sentence,) = parity_verdict(described(), evidence(*told), "out").sentences
    assert f"{FILE} on openvino 2026.4.1 (CPU) computes" in sentence


def test_evidence_with_other_weights_neither_holds_nor_fails() -> None:
    other = replace(report(max_abs=3.1), weights=None)
    other = replace(other, weights=replace(report().weights or other.weights, sha256="0" * 64))
    verdict = parity_verdict(described(), evidence(other), "out")
    assert (verdict.tone, verdict.headline) == ("warn", "Parity was not measured yet")
    assert "with --checkpoint PATH where " in verdict.sentences[-1]
    assert parity_verdict(described(), evidence(other, report()), "out").tone == "good"


def eager(functional: float | None, run: float | None) -> tuple[OutputParity, ...]:
    (output,) = report(max_abs=2.5).outputs
    assert output.ranks is not None
    ranks = replace(output.ranks, top1_agreement=0.75, reference_accuracy=functional, candidate_accuracy=run)
    return (replace(output, ranks=ranks),)


def race(*reports: ParityReport, **changes: Any) -> str:
    found = race_warning(described(hazards=(RACE,), **changes), evidence(*reports), "out")
    assert found is not None
    assert found.tone == "warn"
    return "\n".join((*found.sentences, *found.commands))


def test_without_a_race_nothing_is_said() -> None:
    assert race_warning(described(hazards=(replace(RACE, kind="compiler"),)), evidence(), "out") is None


def test_a_race_is_told_with_what_is_known_of_it() -> None:
    text = race()
    assert text.startswith("net.py, line 18: a tensor is copied onto itself with overlap")
    assert "On the example inputs eager differs from that by 1.25 with 1 thread, - with 2 threads." in text
    assert "measure both on labelled images" in text
    assert text.endswith("\ns2mlp-deploy parity s2mlpv2_nano out")


def test_lines_of_a_file_are_named_together() -> None:
    where = ("a.py:15", "a.py:16", "b.py:3", "a.py:15", "", "<string>")
    races = tuple(replace(RACE, where=item) for item in where)
    found = race_warning(described(hazards=races), evidence(), "out")
    assert found is not None
    assert found.sentences[0].startswith("a.py, lines 15 and 16; b.py, line 3; an unknown line and <string>: a tensor")


def test_what_was_measured_on_data_says_more_than_the_example() -> None:
    text = race(replace(report(), eager=eager(None, None)))
    assert "On held-out digits (1,000 images), eager differs from that by up to 2.5, where outputs reach 18.4" in text
    assert "the same first class on 75.00 %" in text
    assert "1.25" not in text


def test_the_advice_follows_the_accuracy_of_both() -> None:
    better = race(replace(report(), eager=eager(0.9, 0.4)))
    assert "score no worse (90.00 % against 40.00 % of eager): deploy them" in better
    worse = race(replace(report(), eager=eager(0.4, 0.9)))
    assert "eager scores better, the weights fit the race" in worse
    assert "fine-tune with that line written without overlap" in worse
    assert "s2mlp-deploy" not in better + worse
