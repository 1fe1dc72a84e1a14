"""What `tune` tries, and what it leaves out for want of time."""

from __future__ import annotations

import pytest
from tune_lab import OPTIONS

from s2mlp_deploy.api import tune_steps
from s2mlp_deploy.api.tune_state import Workplace
from s2mlp_deploy.api.tuning import tune
from s2mlp_deploy.api.variants import Variants
from s2mlp_deploy.artifact import read_manifest
from s2mlp_deploy.graph.loading import load_graph
from s2mlp_deploy.progress import no_progress


def test_graph_passes_are_tried_on_the_best_file_last(lab, artifact, monkeypatch):
    made = []

    def of_passes(variants, variant):
        made.append(variant)
        return variants._write(load_graph(variant.path).model, "fp32", variant.layout, variant.shifts, passes="none")

    monkeypatch.setattr(Variants, "of_passes", of_passes)
    lab.times = {".none": 0.3, "grouped-conv": 0.5}
    (won,) = tune(artifact, OPTIONS).winners
    assert (won.form, won.passes, won.file) == ("grouped-conv", "none", "model.fp32-tuned.onnx")
    assert "no graph pass" in won.name
    assert [item.form for item in made] == ["grouped-conv"], "of what led"
    # It is known for what it is when it is tuned again, and its passes are not tried again.
    lab.times["fp32-tuned"] = 0.3
    report = tune(artifact, OPTIONS)
    assert [(trial.passes, trial.file) for trial in report.winners] == [("none", won.file)]
    assert len(made) == 1
    assert {trial.passes for trial in report.trials if trial.form == "slice-concat"} == {"none"}, "made of what leads"
    # Where it wins no more, it is still what would be made.
    lab.times = {"grouped-conv": 0.5, "fp32-tuned": 2.0}
    (won,) = tune(artifact, OPTIONS).winners
    assert (won.form, won.passes) == ("grouped-conv", "as exported")
    assert len(made) == 1


def test_however_little_time_there_is_what_ran_before_is_measured(lab, artifact, monkeypatch):
    monkeypatch.setattr(tune_steps.Tuning, "_may_go_on", False)
    report = tune(artifact, OPTIONS)
    assert [trial.file for trial in report.winners] == ["model.fp32.onnx"]
    assert report.trials[0].rounds
    late = report.trials[1:]
    assert late
    assert {(trial.outcome, trial.reason, trial.rounds) for trial in late} == {("untried", "there was no time left", 0)}


@pytest.mark.parametrize(
    ("engine", "clock"),
    [
        ("onnxruntime", "cpu"),
        ("onnxruntime:CPUExecutionProvider", "cpu"),
        ("openvino:cpu", "cpu"),
        ("openvino:GPU", "wall"),
    ],
)
def test_processor_time_counts_on_a_processor_however_it_is_named(artifact, tmp_path, engine, clock):
    manifest = read_manifest(artifact)
    run = tune_steps.Tuning(artifact, manifest, OPTIONS, (engine,), Workplace(tmp_path, "key"), no_progress)
    assert run._course.clock == clock


def test_passes_there_is_no_time_for_are_told(lab, artifact, monkeypatch):
    def of_passes(*_):
        raise AssertionError("nothing is made")

    monkeypatch.setattr(Variants, "of_passes", of_passes)
    settings = tune_steps.Tuning._other_settings

    def slowly(run):
        settings(run)
        run._place._since -= 3600

    monkeypatch.setattr(tune_steps.Tuning, "_other_settings", slowly)
    assert "there was no time for other graph passes in fp32" in tune(artifact, OPTIONS).notes
