"""What a file may differ by: limits by precision, by output, and on the command line."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from s2mlp_deploy.errors import InputError
from s2mlp_deploy.evidence.parity import OutputParity, ParityReport, Tolerances
from s2mlp_deploy.metrics import RankMetrics, TensorMetrics
from s2mlp_deploy.parity.tolerances import (
    PIXEL_RTOL,
    TOLERANCES,
    apply_tolerances,
    default_tolerances,
    parse_limits,
    tolerances_by_output,
)

LIMITS = Tolerances(atol=0.5, rtol=0.25, min_cosine=0.9, min_top1_agreement=0.75)
FINE = TensorMetrics(max_abs=1.0, peak=4.0, max_rel=0.25, cosine=0.95, psnr=20.0, elements=8)
RANKS = RankMetrics(images=4, top1_agreement=0.75, top5_agreement=1.0)


def report(*metrics: TensorMetrics, ranks: RankMetrics | None = RANKS) -> ParityReport:
    outputs = tuple(OutputParity(f"out{index}", item, ranks) for index, item in enumerate(metrics))
    return ParityReport("torch", "onnx", "model.onnx", "fp32", "noise", 4, outputs)


def failures(limits: Any = LIMITS, *, ranks: RankMetrics | None = RANKS, **changes: Any) -> tuple[str, ...]:
    return apply_tolerances(report(replace(FINE, **changes), ranks=ranks), limits).failures


def test_figures_at_their_limits_hold() -> None:
    assert failures(max_abs=1.5, cosine=0.9) == ()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"max_abs": 1.51}, "max abs difference 1.51 > 1.5 (atol 0.5 + rtol 0.25 x peak 4)"),
        ({"cosine": 0.89}, "cosine 0.8900000 < 0.9"),
        ({"not_finite": 2}, "2 of 8 values are NaN or infinite"),
        ({"reference_not_finite": 1}, "1 values of the reference are NaN or infinite"),
        ({"max_abs": None}, "the max abs difference is not finite"),
        ({"peak": None}, "the max abs difference is not finite"),
        ({"cosine": None}, "the cosine is not finite"),
        ({"ranks": replace(RANKS, top1_agreement=0.74)}, "top-1 agreement 0.7400 < 0.75"),
    ],
)
def test_one_figure_beyond_its_limit_is_one_failure_that_names_the_output(changes: dict[str, Any], says: str) -> None:
    assert failures(**changes) == (f"output 'out0': {says}",)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sqnr": 20.0}, None),
        ({"sqnr": 19.9}, "SQNR 19.9 dB < 20.0 dB"),
        ({"sqnr": None}, "the SQNR is not finite"),
        ({"sqnr": math.nan}, "SQNR nan dB < 20.0 dB"),
        # Equal tensors have none, and neither has a reference of zeros: what it may differ by stands in atol.
        ({"sqnr": None, "max_abs": 0.0}, None),
        ({"sqnr": None, "max_abs": 0.4, "peak": 0.0}, None),
    ],
)
def test_the_signal_over_the_error_is_a_limit(changes: dict[str, Any], says: str | None) -> None:
    assert failures(replace(LIMITS, min_sqnr=20.0), **changes) == ((f"output 'out0': {says}",) if says else ())


def test_accuracy_is_judged_instead_of_agreement_where_a_budget_and_labels_are_known() -> None:
    limits = replace(LIMITS, min_top1_agreement=0.9, max_drop=1.0)
    labelled = replace(RANKS, reference_accuracy=0.8, candidate_accuracy=0.79)
    assert failures(limits, ranks=labelled) == ()
    worse = replace(labelled, candidate_accuracy=0.7)
    assert failures(limits, ranks=worse) == ("output 'out0': accuracy is 10.00 points lower, > 1.00",)
    assert failures(limits, ranks=RANKS) == ("output 'out0': top-1 agreement 0.7500 < 0.9",)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_a_drop_that_is_no_number_is_no_limit(value: float) -> None:
    with pytest.raises(InputError, match="max_drop is"):
        replace(LIMITS, max_drop=value)
    if not math.isfinite(value):
        with pytest.raises(InputError, match="min_sqnr is"):
            replace(LIMITS, min_sqnr=value)


@pytest.mark.parametrize("images", range(1, 60))
def test_on_few_images_one_may_disagree_but_in_float32(images: int) -> None:
    assert default_tolerances("fp16", images=images).min_top1_agreement == min(0.98, (images - 1) / images)
    assert default_tolerances("fp32", images=images) == TOLERANCES["fp32"]


def test_an_output_without_ranks_has_no_agreement_to_keep() -> None:
    assert failures(replace(LIMITS, min_top1_agreement=1.0), ranks=None) == ()


def test_a_figure_that_is_nan_holds_no_limit() -> None:
    assert len(failures(max_abs=math.nan)) == 1
    assert len(failures(cosine=math.nan)) == 1
    assert len(failures(ranks=replace(RANKS, top1_agreement=math.nan))) == 1


def test_every_output_is_judged_by_its_own_limits() -> None:
    strict = replace(LIMITS, atol=0.0, rtol=0.0)
    judged = apply_tolerances(report(FINE, FINE), {"out0": LIMITS, "out1": strict})
    assert [output.tolerances for output in judged.outputs] == [LIMITS, strict]
    assert len(judged.failures) == 1
    assert judged.failures[0].startswith("output 'out1': max abs difference 1 > 0")
    assert not judged.passed


def test_judging_again_forgets_the_earlier_verdict() -> None:
    strict = apply_tolerances(report(FINE), replace(LIMITS, atol=0.0, rtol=0.0))
    assert apply_tolerances(strict, LIMITS) == apply_tolerances(report(FINE), LIMITS)
    assert apply_tolerances(strict, LIMITS).passed


def test_limits_by_output_start_from_the_base() -> None:
    limits = tolerances_by_output(["a", "b"], LIMITS, atol={"a": 1e-4}, rtol=0.0)
    assert limits == {"a": replace(LIMITS, atol=1e-4, rtol=0.0), "b": replace(LIMITS, rtol=0.0)}
    assert tolerances_by_output(["a", "b"], LIMITS) == {"a": LIMITS, "b": LIMITS}


def test_the_empty_name_stands_for_all_others() -> None:
    limits = tolerances_by_output(["a", "b", "c"], LIMITS, atol={"": 0.1, "b": 0.2})
    assert [limits[name].atol for name in "abc"] == [0.1, 0.2, 0.1]


def test_a_limit_for_no_output_names_those_there_are() -> None:
    with pytest.raises(InputError, match=r"rtol is given for logit, which is no output\n.*from logits, features"):
        tolerances_by_output(["logits", "features"], LIMITS, rtol={"logit": 1.0})


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_limit_that_lets_nothing_or_anything_pass_is_refused(value: float) -> None:
    with pytest.raises(InputError, match="atol is"):
        tolerances_by_output(["a"], LIMITS, atol=value)


@pytest.mark.parametrize("value", [-1.5, 1.5, math.nan, math.inf])
@pytest.mark.parametrize("name", ["min_cosine", "min_top1_agreement"])
def test_a_smallest_figure_that_no_figure_or_every_figure_reaches_is_refused(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{name} is"):
        replace(LIMITS, **{name: value})


@pytest.mark.parametrize(
    ("texts", "limits"),
    [
        ([], None),
        (["1e-4"], {"": 1e-4}),
        (["logits=0"], {"logits": 0.0}),
        (["1e-4", "logits=1e-3", "a=b=2"], {"": 1e-4, "logits": 1e-3, "a=b": 2.0}),
    ],
)
def test_limits_of_the_command_line(texts: list[str], limits: dict[str, float] | None) -> None:
    assert parse_limits(texts, "--atol") == limits


@pytest.mark.parametrize("text", ["", "x", "logits=", "logits=x", "-1", "nan", "inf", "logits:1e-4", "1e-4=logits"])
def test_a_text_that_is_no_limit_is_refused_with_the_way_to_write_it(text: str) -> None:
    with pytest.raises(InputError, match=r"--atol .* is no limit\n.*--atol NAME=1e-4"):
        parse_limits([text], "--atol")


@pytest.mark.parametrize(("texts", "of"), [(["1", "2"], "all outputs"), (["a=1", "a=1"], "the output a")])
def test_a_limit_that_is_given_twice_is_refused(texts: list[str], of: str) -> None:
    with pytest.raises(InputError, match=f"--rtol is given twice for {of}"):
        parse_limits(texts, "--rtol")


def test_limits_are_those_of_the_precision_whatever_it_was_placed_for() -> None:
    assert default_tolerances("int8-trt") == default_tolerances("int8") == TOLERANCES["int8"]
    assert default_tolerances("fp8-trt") == default_tolerances("fp8") == TOLERANCES["fp8"]
    assert default_tolerances("something else") == TOLERANCES["fp32"]


def test_only_the_relative_limit_is_wider_where_a_file_preprocesses() -> None:
    assert default_tolerances("fp32", on_pixels=True) == replace(TOLERANCES["fp32"], rtol=PIXEL_RTOL)
    assert default_tolerances("int8", on_pixels=True) == TOLERANCES["int8"]
