"""Who leads after a race of `tune`."""

from __future__ import annotations

from tune_lab import OPTIONS, Lab

from s2mlp_deploy.api import tune_heats
from s2mlp_deploy.api.tuning import tune
from s2mlp_deploy.artifact import read_manifest
from s2mlp_deploy.bench.timing import Run
from s2mlp_deploy.evidence.parity import ParityReport
from s2mlp_deploy.evidence.store import read_evidence
from s2mlp_deploy.evidence.tune import TuneReport


def test_what_computes_something_else_does_not_win(lab, artifact):
    lab.wrong = {"grouped-conv"}
    report = tune(artifact, OPTIONS)
    assert outcomes(report)["grouped-conv, 1 thread, no spinning"] == "parity"
    (won,) = report.winners
    assert won.file == "model.fp32.onnx"
    assert {record.path for record in read_manifest(artifact).files} == {"model.fp32.onnx"}
    assert read_evidence(artifact).of(ParityReport) == (), "compared with itself, a file proves nothing"


def test_who_is_faster_by_chance_alone_takes_nobodys_place(lab, artifact):
    lab.ms = lambda _: 1.0
    (won,) = tune(artifact, OPTIONS).winners
    assert won.file == "model.fp32.onnx"


def test_one_whose_rounds_scatter_hides_no_other_that_is_faster(lab, artifact, monkeypatch):
    times = {"grouped-conv": (0.3, 2.0, 0.3), "slice-concat": (0.7, 0.7, 0.7)}

    def track(job, options):
        made = Lab.track(lab, job, options)
        form = next((form for form in times if form in str(job.path)), "")
        if form:

            def run_round():
                ms = times[form][len(made.rounds) % 3]
                made.rounds += (Run(ms, ms),)

            made.run_round = run_round
        return made

    lab.times = {"grouped-conv": 0.6, "slice-concat": 0.7}
    lab.warnings = ("other programs kept 1.5 processors busy",)
    monkeypatch.setattr(tune_heats, "Track", track)
    report = tune(artifact, OPTIONS)
    (won,) = report.winners
    assert won.form == "slice-concat"
    scattered = next(trial for trial in report.trials if trial.form == "grouped-conv")
    assert "beyond chance" in scattered.reason
    assert "1.5 processors busy" in "".join(report.notes)


def outcomes(report: TuneReport) -> dict[str, str]:
    return {f"{trial.form}, {trial.settings.words}": trial.outcome for trial in report.trials}
