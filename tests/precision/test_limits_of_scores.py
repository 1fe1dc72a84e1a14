"""Floors of files: how a limits file is read, which limit a file gets, and what is below."""

from __future__ import annotations

from pathlib import Path

import pytest

from s2mlp_deploy.errors import InputError
from s2mlp_deploy.evidence.accuracy import AccuracyRow
from s2mlp_deploy.evidence.parity import OutputParity
from s2mlp_deploy.metrics import TensorMetrics
from s2mlp_deploy.precision.limits import FileLimits, Limits, read_limits
from s2mlp_deploy.precision.options import PrecisionOptions


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "limits.json"
    path.write_text(text)
    return path


def test_the_most_specific_limit_is_the_files(tmp_path: Path) -> None:
    limits = read_limits(
        written(
            tmp_path,
            '{"min_cosine": 0.99, "max_drop": 2, "int8": {"max_drop": 1, "min_top1": 70}, '
            '"int8-trt": {"max_drop": 0.5}}',
        )
    )
    assert limits.of("fp16") == FileLimits(0.99, None, 2.0)
    assert limits.of("int8") == FileLimits(0.99, 70.0, 1.0)
    assert limits.of("int8-trt") == FileLimits(0.99, 70.0, 0.5)
    assert limits.of("fp8-trt") == FileLimits(0.99, None, 2.0)
    # What is typed goes before what is in the file.
    assert PrecisionOptions(max_drop=3.0, limits=limits).limits_of("int8-trt") == FileLimits(0.99, 70.0, 3.0)
    assert PrecisionOptions(min_cosine=0.5).limits_of("int8") == FileLimits(0.5)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no JSON"),
        ("[0.9]", "holds no limits"),
        ("{}", "holds no limits"),
        ('{"min_cosin": 0.9}', "'min_cosin' is no limit"),
        ('{"int4": {"max_drop": 1}}', "'int4' is no limit"),
        ('{"int8": {"int8": 1}}', "int8: 'int8' is no limit"),
        ('{"int8": 0.9}', "int8 holds no limits"),
        ('{"int8": {}}', "int8 holds no limits"),
        ('{"max_drop": "1"}', "max_drop is '1', and no number"),
        ('{"max_drop": true}', "max_drop is True, and no number"),
        ('{"max_drop": -1}', "max_drop is -1"),
        ('{"fp8": {"min_cosine": 1.1}}', "fp8: min_cosine is 1.1"),
        ('{"min_top1": 101}', "min_top1 is 101"),
        ("[" * 100_000, "is no JSON"),
    ],
)
def test_another_file_is_refused_with_what_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        read_limits(written(tmp_path, text))
    assert says in str(caught.value)
    assert "limits.json" in str(caught.value)
    assert caught.value.fix


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError, match="the limits file cannot be read"):
            read_limits(path)


def row(score: float | None = 80.0, cosine: float | None = 0.99, bad: int = 0) -> AccuracyRow:
    metrics = TensorMetrics(0.1, 1.0, 0.1, cosine, 30.0, 8, bad, sqnr=20.0)
    return AccuracyRow("f", "int8", 1, score, None, 20.0, "", outputs=(OutputParity("logits", metrics, None),))


def test_figures_at_their_limits_reach_them() -> None:
    assert FileLimits(0.99, 80.0, 1.0).unmet(row(), 1.0) == ()
    assert FileLimits().unmet(row(None, None), None) == ()


@pytest.mark.parametrize(
    ("limits", "figures", "drop", "says"),
    [
        (FileLimits(min_cosine=0.991), row(), 0.0, "output 'logits': cosine 0.9900000 < 0.991"),
        (FileLimits(min_cosine=0.1), row(cosine=None), 0.0, "output 'logits': cosine is not finite"),
        (FileLimits(min_cosine=0.1), row(bad=3), 0.0, "output 'logits': 3 of 8 values are NaN or infinite"),
        (FileLimits(min_top1=80.1), row(), 0.0, "top-1 80.00 % < 80.1 %"),
        (FileLimits(min_top1=0.0), row(float("nan")), 0.0, "top-1 nan % < 0 %"),
        (FileLimits(max_drop=0.5), row(), 0.51, "0.51 points below fp32, where 0.5 may be lost"),
        (FileLimits(max_drop=0.5), row(), float("nan"), "nan points below fp32, where 0.5 may be lost"),
    ],
)
def test_a_figure_below_is_one_failure(limits: FileLimits, figures: AccuracyRow, drop: float, says: str) -> None:
    assert limits.unmet(figures, drop) == (says,)


def test_limits_by_name_alone() -> None:
    assert Limits(named={"fp8": FileLimits(min_top1=1.0)}).of("fp8-trt").min_top1 == 1.0
    assert Limits().of("int8") == FileLimits()


@pytest.mark.parametrize("value", ["1" * 400, "1e308", "-1" + "0" * 400])
def test_numbers_that_are_no_limits_are_refused(tmp_path, value):
    (tmp_path / "limits.json").write_text('{"max_drop": %s}' % value)  # noqa: UP031 - Braces.
    with pytest.raises(InputError):
        read_limits(tmp_path / "limits.json")
