"""What `tune` keeps of what it has begun: it goes on, or says that it cannot."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tune_lab import OPTIONS

from s2mlp_deploy.api import tune_state, tuning
from s2mlp_deploy.api.tuning import tune
from s2mlp_deploy.artifact import read_manifest
from s2mlp_deploy.errors import ArtifactError, OutputError
from s2mlp_deploy.files import user_cache


def test_what_another_version_has_begun_is_done_again(lab, artifact, monkeypatch):
    lab.interrupt_at = "optimized extended"
    with pytest.raises(KeyboardInterrupt):
        tune(artifact, OPTIONS)
    lab.started, lab.interrupt_at = [], ""
    monkeypatch.setattr(tuning, "__version__", "99.0.0")
    tune(artifact, OPTIONS)
    assert any("pad-slice" in name or "slice-concat" in name for name in lab.started), "by other passes, maybe"


def test_an_interrupted_tuning_goes_on_where_it_was(lab, artifact):
    lab.interrupt_at = "optimized extended"
    with pytest.raises(KeyboardInterrupt):
        tune(artifact, OPTIONS)
    assert {record.path for record in read_manifest(artifact).files} == {"model.fp32.onnx"}
    begun, lab.started = list(lab.started), []
    # Of other noise, nothing is taken over: what was measured is told with its seed.
    with pytest.raises(KeyboardInterrupt):
        tune(artifact, replace(OPTIONS, seed=1))
    assert lab.started == begun
    lab.started, lab.interrupt_at = [], ""
    report = tune(artifact, OPTIONS)
    assert report.winners[0].form == "grouped-conv"
    assert any("pad-slice" in name or "slice-concat" in name for name in begun)
    assert not any("pad-slice" in name or "slice-concat" in name for name in lab.started), "it was measured before"


def test_a_cache_that_cannot_be_written_is_told_and_tuning_goes_on(lab, artifact, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert tune(artifact, OPTIONS).winners[0].form == "grouped-conv"
    assert "begins anew" in caplog.text
    assert "not remembered" in caplog.text


def test_a_user_without_a_home_tunes_too(lab, artifact, monkeypatch, caplog):
    def nowhere():
        raise OutputError("this user has no home")

    monkeypatch.setattr(tune_state, "user_cache", nowhere)
    assert tune(artifact, OPTIONS).winners[0].form == "grouped-conv"
    assert "begins anew (this user has no home)" in caplog.text


def test_two_tunings_of_the_same_do_not_measure_at_once(monkeypatch, caplog):
    monkeypatch.setattr(tune_state, "_WAIT", 0.05)
    with tune_state.workplace("the same"):
        with pytest.raises(OutputError, match="has been writing here"), tune_state.workplace("the same"):
            pytest.fail("it went on")
        with tune_state.workplace("another"):
            pass
    assert "begins anew" not in caplog.text


def test_what_changed_while_another_tuning_was_waited_for_is_not_measured(lab, artifact, monkeypatch):
    wait = tuning.workplace

    def waiting(asked):
        path = artifact / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest["files"][0]["sha256"] = "0" * 64
        path.write_text(json.dumps(manifest))
        return wait(asked)

    monkeypatch.setattr(tuning, "workplace", waiting)
    with pytest.raises(ArtifactError, match="another tuning"):
        tune(artifact, OPTIONS)
    assert lab.started == []
    assert not any((user_cache() / "tune").iterdir()), "what has not begun leaves nothing"
