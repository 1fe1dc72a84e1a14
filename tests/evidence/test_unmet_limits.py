"""Where tolerances meet figures: every limit on its own, and figures that are not there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from s2mlp_deploy.errors import InputError
from s2mlp_deploy.evidence.parity import OutputParity, Tolerances, unmet_limits
from s2mlp_deploy.metrics import RankMetrics, TensorMetrics

CLOSE = TensorMetrics(max_abs=0.01, peak=2.0, max_rel=0.005, cosine=0.9999, psnr=46.0, elements=10, sqnr=40.0)
LIMITS = Tolerances(atol=0.0, rtol=0.01, min_cosine=0.999, min_top1_agreement=0.9, min_sqnr=35.0, max_drop=1.0)
RANKS = RankMetrics(100, 0.95, 1.0)


def told(ranks: RankMetrics | None = None, limits: Tolerances | None = LIMITS, **changes: object) -> str:
    return "; ".join(unmet_limits(OutputParity("y", replace(CLOSE, **changes), ranks, limits)))  # type: ignore[arg-type]


def test_what_is_close_keeps_every_limit() -> None:
    assert told() == ""
    assert told(RANKS) == ""
    assert told(limits=None, max_abs=9.0) == ""


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"elements": 0}, "nothing was compared"),
        ({"max_abs": 0.03}, "max abs difference 0.03 > 0.02"),
        ({"max_abs": None}, "the max abs difference is not finite"),
        ({"peak": None}, "the max abs difference is not finite"),
        ({"max_abs": float("nan")}, "max abs difference nan"),
        ({"cosine": 0.99}, "cosine 0.9900000 < 0.999"),
        ({"cosine": None}, "the cosine is not finite"),
        ({"cosine": float("nan")}, "cosine nan"),
        ({"sqnr": 30.0}, "SQNR 30.0 dB < 35.0 dB"),
        ({"sqnr": None}, "the SQNR is not finite"),
        ({"not_finite": 2}, "2 of 10 values are NaN or infinite"),
        ({"reference_not_finite": 1}, "1 values of the reference"),
        ({"unequal": 2}, "2 of 10 whole numbers differ"),
    ],
)
def test_each_limit_that_does_not_hold_is_told(changes: dict[str, object], says: str) -> None:
    assert says in told(**changes)


def test_whole_numbers_are_judged_by_how_many_agree_alone() -> None:
    assert told(unequal=1, max_abs=1e9, cosine=-1.0) == ""
    assert told(unequal=0) == ""


def test_equal_tensors_and_references_of_zeros_have_no_ratio_to_fail() -> None:
    assert told(max_abs=0.0, sqnr=None) == ""
    assert told(max_abs=0.0, peak=0.0, sqnr=None) == ""


def test_with_labels_the_drop_counts_and_not_the_agreement() -> None:
    scored = replace(RANKS, top1_agreement=0.1, reference_accuracy=0.8, candidate_accuracy=0.79)
    assert told(scored) == ""
    assert "accuracy is 1.50 points lower, > 1.00" in told(replace(scored, candidate_accuracy=0.785))
    assert "top-1 agreement 0.1000 < 0.9" in told(replace(RANKS, top1_agreement=0.1))
    assert "top-1 agreement 0.1000" in told(scored, replace(LIMITS, max_drop=None))


@pytest.mark.parametrize(
    "wrong",
    [
        {"atol": -1.0},
        {"rtol": float("nan")},
        {"rtol": float("inf")},
        {"min_cosine": 1.5},
        {"min_cosine": float("nan")},
        {"min_top1_agreement": -0.1},
        {"min_sqnr": float("inf")},
        {"max_drop": -1.0},
        {"max_drop": float("nan")},
    ],
)
def test_limits_that_would_let_anything_pass_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        replace(LIMITS, **wrong)
