"""Figures of a comparison in words, the worst of several outputs, and whether parity holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from report_samples import report

from s2mlp_deploy.evidence.parity import GraphProof
from s2mlp_deploy.evidence.standing import state_of
from s2mlp_deploy.report.figures import closest_to_its_limit, data_in_words, limit_of, measured, psnr, worst_of

OUTPUT = report().outputs[0]


def output(**metrics: Any) -> Any:
    return replace(OUTPUT, metrics=replace(OUTPUT.metrics, **metrics))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("held-out digits", "held-out digits (1,000 images)"),
        ("1000 images of img", "1000 images of img"),
        ("1,000 images of img", "1,000 images of img"),
        ("folder10000", "folder10000 (1,000 images)"),
    ],
)
def test_the_number_of_images_is_said_once(data: str, says: str) -> None:
    assert data_in_words(replace(report(), data=data)) == says


def test_the_worst_of_several_outputs_is_taken_figure_by_figure() -> None:
    other = replace(output(max_abs=0.5, psnr=150.0), ranks=replace(OUTPUT.ranks, top1_agreement=0.5))
    worst = worst_of([OUTPUT, other])
    assert (worst.max_abs, worst.psnr, worst.top1) == ("0.5", "139.2 dB", "50.00 %")
    assert not worst.equal
    assert worst_of([OUTPUT, output(max_abs=None)]).max_abs == "not finite"


def test_nothing_measured_is_a_dash_and_equal_tensors_are_equal() -> None:
    assert (worst_of([]).max_abs, worst_of([]).psnr, worst_of([]).equal) == ("-", "-", False)
    same = output(max_abs=0.0, max_rel=0.0, psnr=None)
    assert worst_of([same]).psnr == psnr(same.metrics) == "equal"
    assert worst_of([same, OUTPUT]).psnr == "139.2 dB"
    assert psnr(output(psnr=None).metrics) == "not finite"
    assert measured(None) == "not finite"


def test_an_output_over_a_limit_above_its_peak_is_shown_before_all_within_theirs() -> None:
    assert OUTPUT.tolerances is not None
    over = replace(output(max_abs=0.02, peak=0.001), name="tiny", tolerances=replace(OUTPUT.tolerances, atol=0.01))
    assert closest_to_its_limit([OUTPUT, over]) is over
    assert limit_of(over) == over.allowed
    within = replace(over, metrics=replace(over.metrics, max_abs=1e-6))
    assert closest_to_its_limit([OUTPUT, within]) is OUTPUT
    assert limit_of(within) is None


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "holds"),
        ({"failures": ("x",)}, "fails"),
        ({"outputs": ()}, "unclear"),
        ({"outputs": (replace(OUTPUT, tolerances=None),)}, "unclear"),
        ({"images": 0}, "unclear"),
        ({"proof": GraphProof(1, failures=("a shift moves other elements",))}, "unclear"),
        ({"proof": GraphProof(2, constants=3)}, "holds"),
        ({"outputs": (output(max_abs=None),)}, "unclear"),
        ({"outputs": (output(not_finite=1),)}, "unclear"),
        ({"outputs": (OUTPUT, output(max_abs=9.0))}, "unclear"),
        ({"outputs": (output(cosine=0.1),)}, "unclear"),
        ({"outputs": (output(cosine=None),)}, "unclear"),
        ({"outputs": (output(reference_not_finite=1),)}, "unclear"),
        ({"outputs": (replace(OUTPUT, ranks=replace(OUTPUT.ranks, top1_agreement=0.1)),)}, "unclear"),
    ],
)
def test_parity_holds_only_where_every_output_was_judged_and_is_within_its_limits(
    changes: dict[str, Any], state: str
) -> None:
    assert state_of(replace(report(), **changes)) == state
