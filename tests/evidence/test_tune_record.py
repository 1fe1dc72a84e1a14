"""What `predict` takes is read off the record of a tuning."""

from __future__ import annotations

from dataclasses import replace

import pytest
from report_samples import tune

from s2mlp_deploy.evidence.tune import EngineSettings


def test_the_winners_come_fastest_first():
    assert [trial.precision for trial in tune().winners] == ["int8-trt", "fp32"]


@pytest.mark.parametrize(
    ("wanted", "file"),
    [
        ({}, "model.int8.onnx"),
        ({"precisions": ["fp32"]}, "model.fp32-tuned.onnx"),
        ({"engines": ["openvino"]}, "model.int8.onnx"),
        ({"engines": ["onnxruntime"]}, None),
        ({"precisions": ["fp16"]}, None),
        ({"precisions": []}, None),
    ],
)
def test_the_best_is_the_fastest_winner_that_fits(wanted, file):
    found = tune().best(**wanted)
    assert (found.file if found else None) == file


def test_a_winner_whose_file_was_not_kept_is_none():
    report = tune()
    assert replace(report, trials=tuple(replace(trial, file="") for trial in report.trials)).best() is None


def test_what_ran_before_may_have_won_and_then_has_no_ratio():
    first, *_ = tune().trials
    assert replace(tune(), trials=(replace(first, outcome="won"),)).best().ms == first.ms


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (EngineSettings(), "threads by the engine"),
        (EngineSettings(threads=1, flush_denormals=True), "1 thread, subnormals as 0"),
        (EngineSettings(threads=2, spin=False, optimize="extended"), "2 threads, no spinning, optimized extended"),
    ],
)
def test_settings_are_told_where_they_are_not_the_engines_own(settings, words):
    assert settings.words == words
