"""``tune`` from the command line, with real processes once, and what is refused before anything is measured."""

from __future__ import annotations

import json

import pytest
from plain_artifact import write_plain

from s2mlp_deploy.bench import process
from s2mlp_deploy.evidence.store import read_evidence
from s2mlp_deploy.evidence.tune import TuneReport

pytest.importorskip("onnxruntime")


def test_an_artifact_is_tuned(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("s2mlp_deploy.bench.options.ROUND_MS", 2.0)
    monkeypatch.setattr("s2mlp_deploy.api.tune_final._LAUNCHES", 1)
    write_plain(tmp_path / "a")
    result = cli("tune", tmp_path / "a", "--engine", "onnxruntime", "--threads", 1, "--json")
    assert result.code == 0, result.err
    document = json.loads(result.out)
    assert (document["kind"], document["clock"]) == ("tune", "cpu")
    report = read_evidence(tmp_path / "a").one(TuneReport)
    assert report is not None
    assert report.winners[0].precision == "fp32"
    assert {trial.settings.words for trial in report.trials} == {
        "1 thread, no spinning",
        "1 thread, no spinning, optimized extended",
        "1 thread, no spinning, subnormals as 0",
    }
    assert all(trial.ms for trial in report.trials)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--minutes", 0), "--minutes"),
        (("--engine", "tvm"), "no engine 'tvm'"),
        (("--engine", "onnxruntime:nope"), "has no nope here"),
        (("--threads", 0), "--threads"),
        (("--threads", 10**30), "an engine with 1000"),
        (("--batch", 10**30), "give one from 1 to 2147483647"),
        (("--quiet", "--verbose"), "opposite"),
        (("--shape", "nope:1x3"), "there is no input 'nope'"),
        (("--shape", "input:1x3x64x64"), "does not fit the input input"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_runs(refused, tmp_path, monkeypatch, arguments, says):
    monkeypatch.setattr(process.subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    write_plain(tmp_path / "a")
    assert says in refused("tune", tmp_path / "a", *arguments)
    assert "not an artifact" in refused("tune", tmp_path / "none")
