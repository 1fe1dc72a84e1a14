"""The last measurement of `tune`, in which some fail."""

from __future__ import annotations

from types import SimpleNamespace

from tune_lab import OPTIONS, Lab

from s2mlp_deploy.api import tune_final
from s2mlp_deploy.api.tuning import tune
from s2mlp_deploy.artifact import read_manifest
from s2mlp_deploy.bench.remembered import memory_file


def failing_at_last(lab, monkeypatch, fails):
    """The last measurement, in which some fail."""

    def measure(jobs, options, **_):
        results = Lab.measure(lab, jobs, options).results
        for job, result in zip(jobs, results, strict=True):
            if fails(str(job.path)):
                result.failure = "it was killed"
            if result.failure or results[0].failure:  # There is nothing to compare with.
                result.ratio = result.cpu_ratio = None
        return SimpleNamespace(results=results, warnings=())

    monkeypatch.setattr(tune_final, "measure", measure)


def test_who_fails_at_last_makes_room_for_what_ran_before(lab, artifact, monkeypatch):
    failing_at_last(lab, monkeypatch, lambda path: "grouped-conv" in path)
    report = tune(artifact, OPTIONS)
    assert [won.file for won in report.winners] == ["model.fp32.onnx"]
    assert [trial.reason for trial in report.trials if trial.outcome == "failed"] == ["it was killed"]
    # What ran before fails, and the other one does not: the race has told which is faster.
    failing_at_last(lab, monkeypatch, lambda path: path.endswith("model.fp32.onnx"))
    (won,) = tune(artifact, OPTIONS).winners
    assert (won.form, won.ratio.high < 1) == ("grouped-conv", True)


def test_what_is_no_faster_at_last_makes_room_for_what_ran_before(lab, artifact, monkeypatch):
    def measure(jobs, options, **_):
        lab.times = {}  # The machine was busy while they raced.
        return Lab.measure(lab, jobs, options)

    monkeypatch.setattr(tune_final, "measure", measure)
    report = tune(artifact, OPTIONS)
    assert [(won.file, won.reason) for won in report.winners] == [("model.fp32.onnx", "nothing was faster")]
    (beaten,) = [trial for trial in report.trials if "measured once more" in trial.reason]
    assert (beaten.form, beaten.outcome) == ("grouped-conv", "slower")
    assert not (artifact / "model.fp32-tuned.onnx").exists()


def test_where_all_fail_at_last_an_earlier_tuning_stays(lab, artifact, monkeypatch):
    tune(artifact, OPTIONS)
    files, memory = read_manifest(artifact).files, memory_file().read_bytes()
    lab.times["fp32-tuned"] = 0.4
    failing_at_last(lab, monkeypatch, lambda _: True)
    assert tune(artifact, OPTIONS).winners == ()
    assert read_manifest(artifact).files == files
    assert (artifact / "model.fp32-tuned.onnx").is_file()
    assert memory_file().read_bytes() == memory
