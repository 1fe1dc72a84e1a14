"""Limits of a file by what was measured when it was made."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from s2mlp_deploy.data import noise
from s2mlp_deploy.evidence.accuracy import AccuracyReport, AccuracyRow, BudgetSearch
from s2mlp_deploy.evidence.parity import OutputParity
from s2mlp_deploy.metrics import RankMetrics, TensorMetrics
from s2mlp_deploy.parity import own_limits as own_limits_module
from s2mlp_deploy.parity.own_limits import OwnLimits, own_limits
from s2mlp_deploy.parity.tolerances import TOLERANCES

BASE = TOLERANCES["int8"]


def output(sqnr: float | None, agreement: float = 1.0, max_rel: float = 0.05, **changes: Any) -> OutputParity:
    metrics = TensorMetrics(0.1, 2.0, max_rel, 0.99, 30.0, 100, sqnr=sqnr)
    return OutputParity("logits", replace(metrics, **changes), RankMetrics(100, agreement, 1.0))


def limits(
    on_data: OutputParity | None,
    images: int = 100,
    on_noise: OutputParity | None = None,
    made_images: int = 500,
    **made: Any,
) -> OwnLimits | None:
    """Of a file with these figures; where there are some on noise, it is judged on noise."""
    row = AccuracyRow(
        "f",
        "int8",
        1,
        80.0,
        99.0,
        None,
        "",
        outputs=(on_data,) if on_data else (),
        on_noise=(on_noise,) if on_noise else (),
    )
    report = replace(AccuracyReport("top-1 accuracy", "500 photos", made_images, (row,), output="logits"), **made)
    return own_limits(report, row, BASE, images=images, on_noise=on_noise is not None)


@pytest.mark.parametrize(("images", "least"), [(1, 17.0), (4, 24.5), (100, 30.5), (10**8, 32.0)])
def test_the_error_may_double_and_vary_with_the_samples(images: int, least: float) -> None:
    found = limits(output(38.0), images, made_images=10**8)
    assert found is not None
    of = found.tolerances["logits"]
    assert of.min_sqnr == pytest.approx(least, abs=0.01)
    # The largest difference grows as the error does, and twice that: it is one element's.
    assert of.rtol == pytest.approx(0.05 * 2 * 10 ** ((38 - least) / 20), rel=1e-3)
    assert of.atol == BASE.atol
    # An error at right angles turns the output the most: at the limit both hold.
    error = 10 ** (-least / 20)
    assert of.min_cosine == pytest.approx(math.sqrt(1 - error**2), abs=1e-4)
    assert found.basis == f"its own figures: 38.0 dB on 500 photos when it was made, less {38 - least:.1f} dB"


def test_figures_of_few_samples_are_less_sure() -> None:
    few, many = limits(output(38.0), made_images=25), limits(output(38.0), made_images=10**8)
    assert few is not None
    assert many is not None
    assert few.tolerances["logits"].min_sqnr == pytest.approx(32 - 15 * math.sqrt(1 / 100 + 1 / 25))
    assert many.tolerances["logits"].min_sqnr == pytest.approx(30.5, abs=0.01)
    assert noise.NOISE_SAMPLES == own_limits_module.NOISE_SAMPLES


def test_an_error_of_half_the_signal_holds_for_no_file() -> None:
    found = limits(output(3.0))
    assert found is not None
    assert found.tolerances["logits"].min_sqnr == 6.0


def test_noise_is_judged_by_noise_and_data_by_data() -> None:
    on_noise = limits(output(32.0), on_noise=output(20.0))
    assert on_noise is not None
    assert on_noise.tolerances["logits"].min_sqnr == pytest.approx(14 - 15 * math.sqrt(1 / 100 + 1 / 16))
    assert "20.0 dB on seeded noise" in on_noise.basis
    assert limits(None) is None


@pytest.mark.parametrize("changes", [{"not_finite": 1}, {"unequal": 3}, {"max_rel": None}])
def test_figures_that_say_nothing_set_no_limit(changes: dict[str, Any]) -> None:
    assert limits(replace(output(32.0), metrics=replace(output(32.0).metrics, **changes))) is None
    assert limits(output(None)) is None
    # Whoever edits evidence gets the limits of the precision, not a traceback.
    assert limits(output(32.0, max_rel=-0.1)) is None
    assert limits(output(32.0, agreement=1.5)) is None


@pytest.mark.parametrize("images", range(1, 50))
def test_one_image_may_always_disagree(images: int) -> None:
    found = limits(output(32.0, agreement=1.0), images)
    assert found is not None
    assert found.tolerances["logits"].min_top1_agreement == (images - 1) / images


def test_agreement_may_vary_as_a_count_does() -> None:
    found = limits(output(32.0, agreement=0.96), 100)
    assert found is not None
    # Four are expected; their deviation is two.
    assert found.tolerances["logits"].min_top1_agreement == pytest.approx((100 - 4 - 6 - 1) / 100)


BUDGET = BudgetSearch("top-1 accuracy", max_drop=0.5, reference=80.0, score=79.8)


def test_a_budget_that_was_kept_goes_before_agreement() -> None:
    found = limits(output(32.0, agreement=0.96), 100, searches={"int8": BUDGET})
    assert found is not None
    assert found.tolerances["logits"].max_drop == pytest.approx(0.5 + 6 + 1)
    assert found.basis.endswith("; its accuracy budget of 0.5 points, and what chance adds")
    agreement = limits(
        output(32.0, agreement=1.0), 1000, searches={"int8": replace(BUDGET, metric="top-1 agreement with fp32")}
    )
    assert agreement is not None
    assert agreement.tolerances["logits"].min_top1_agreement == pytest.approx(1 - 0.005 - 0.001)
    assert agreement.tolerances["logits"].max_drop is None
    assert agreement.basis.endswith("; its accuracy budget of 0.5 points, and what chance adds")


@pytest.mark.parametrize(
    "made",
    [
        {"searches": {"int8-trt": BUDGET}},
        {"searches": {"int8": replace(BUDGET, max_drop=None)}},
        {"searches": {"int8": replace(BUDGET, max_drop=-1.0)}},
        {"searches": {"int8": replace(BUDGET, metric="my mAP")}},
        {"searches": {"int8": BUDGET}, "output": "boxes"},
    ],
)
def test_a_budget_of_something_else_changes_nothing(made: dict[str, Any]) -> None:
    assert limits(output(32.0), **made) == limits(output(32.0))
    assert limits(output(32.0), on_noise=output(20.0), searches={"int8": BUDGET}) == limits(None, on_noise=output(20.0))
