"""Options that nothing would use are refused by name, at their defaults too, before anything is read."""

from __future__ import annotations

import pytest

from s2mlp_deploy import api

pytest.importorskip("torch")

OPTIMIZE = ("--engine", "onnxruntime", "--optimize-for", "cpu")
BUILDING = [
    ("--workspace", "1G"),
    ("--builder-optimization-level", "3"),
    ("--timing-cache", "kernels.bin"),
    ("--version-compatible",),
    ("--tf32",),
    ("--no-tf32",),
    ("--sparsity",),
    ("--max-aux-streams", "1"),
    ("--tactic-sources", "-JIT_CONVOLUTIONS"),
    ("--build-route", "-knob=on"),
    ("--profiling-verbosity", "none"),
    ("--print-trtexec",),
    ("--hardware-compatible", "none"),
    ("--refit",),
    ("--strip-plan",),
    ("--device", "0"),
    ("--verbose",),
    ("--force",),
]
SHAPES = [(f"--{which}-shapes", "input:1x8") for which in ("min", "opt", "max")]
CHECKING = [*SHAPES, ("--target", "sm89"), ("--precision", "fp16"), ("--dry-run",), ("--engine-version", "10.16")]


@pytest.fixture
def nothing_runs(monkeypatch):
    for name in ("export", "quantize", "optimize", "preflight", "build"):
        monkeypatch.setattr(api, name, lambda *_, **__: pytest.fail("it was not refused"))


@pytest.mark.parametrize("option", [*BUILDING, *CHECKING], ids=lambda option: option[0])
def test_optimizing_refuses_what_is_of_engines(refused, nothing_runs, option):
    assert f"fix: leave {option[0]} out" in refused("build", "model.onnx", *OPTIMIZE, *option)


@pytest.mark.parametrize("option", [*BUILDING, ("--output", "a.engine")], ids=lambda option: option[0])
def test_a_dry_run_refuses_what_is_of_a_build(refused, nothing_runs, option):
    assert f"fix: leave {option[0]} out" in refused("build", "model.onnx", "--dry-run", *option)


def test_tf32_is_either_on_or_off(refused, nothing_runs):
    assert "leave one of them out" in refused("build", "model.onnx", "--tf32", "--no-tf32")


def test_all_that_are_refused_are_named(refused, nothing_runs):
    text = refused("build", "model.onnx", "--dry-run", "--refit", "--device", "1", "--target", "sm89")
    assert "fix: leave --refit and --device out" in text


EXPORT, QUANTIZE = ("export", "s2mlpv2_nano", "-o", "out"), ("quantize", "artifact", "--data", "images")
METHOD, SAMPLES, SCORED = ("--method", "percentile"), ("--samples", "512"), ("--eval-samples", "1000")
FP16, DATA = ("--precision", "fp16"), ("--calibration-data", "images")


@pytest.mark.parametrize(
    ("command", "option"),
    [
        *((EXPORT, option) for option in (METHOD, SAMPLES, SCORED)),
        *(((*EXPORT, *FP16), option) for option in (METHOD, SAMPLES, SCORED)),
        ((*EXPORT, *FP16, *DATA), METHOD),
        ((*QUANTIZE, *FP16), METHOD),
    ],
)
def test_options_of_calibration_are_refused_where_nothing_is_calibrated(refused, nothing_runs, command, option):
    assert f"fix: leave {option[0]} out" in refused(*command, *option)


def test_options_of_an_onnx_file_say_what_an_artifact_does_without_them(refused, nothing_runs):
    for option in (("--force",), ("--output", "new")):
        text = refused(*QUANTIZE, *option)
        assert f"fix: leave {option[0]} out" in text
        assert "replaces the files of these precisions" in text


class ReachedError(Exception):
    """The function behind the command was called."""


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ((*EXPORT, "--precision", "int8", *DATA), (*METHOD, *SAMPLES, *SCORED)),
        ((*EXPORT, *FP16, *DATA), (*SAMPLES, *SCORED)),
        (QUANTIZE, (*METHOD, *SAMPLES, *SCORED)),
        ((*QUANTIZE, *FP16), (*SAMPLES, *SCORED)),
        (("build", "model.onnx", *OPTIMIZE), ("--output", "a.onnx", "--json")),
        (("build", "model.onnx", "--dry-run"), ("--target", "sm89", "--precision", "fp16", *SHAPES[0])),
    ],
)
def test_what_is_used_is_not_refused(cli, monkeypatch, unchecked, command, options):
    def reached(*_, **__):
        raise ReachedError

    for name in ("export", "quantize", "optimize", "preflight"):
        monkeypatch.setattr(api, name, reached)
    result = cli(*command, *options)
    assert result.code == 70, result.err
    assert "ReachedError" in result.err
