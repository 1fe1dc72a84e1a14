"""What ``quantize`` says of the scores of its files: budgets, floors, and metrics of one's own."""

from __future__ import annotations

import json

import nano_artifact
import numpy as np
import pytest
from tiny_network import TINY

from s2mlp_deploy.artifact import CALIBRATION_CACHE
from s2mlp_deploy.evidence.accuracy import AccuracyReport

pytest.importorskip("torch")


def test_a_budget_that_cannot_be_kept_is_a_failed_check(cli, images, tmp_path):
    from s2mlp_deploy import api
    from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine

    artifact = tmp_path / "artifact"
    api.export("s2mlpv2_nano", artifact, overrides=TINY)
    # Images between two classes, labelled so that float32 is always right; any rounding makes some of them wrong.
    feeds = np.random.default_rng(0).uniform(-1, 1, (20_000, 3, 8, 8)).astype(np.float32)
    (scores,) = OnnxRuntimeEngine(artifact / "model.fp32.onnx").run({"input": feeds}).values()
    first = np.sort(scores, axis=1)
    close = np.argsort(first[:, -1] - first[:, -2])[:300]
    np.savez(tmp_path / "close.npz", input=feeds[close], labels=scores[close].argmax(axis=1))
    before = nano_artifact.snapshot(artifact)
    result = cli("quantize", artifact, "--data", images, "--eval-data", tmp_path / "close.npz", "--max-drop", "0")
    after = nano_artifact.snapshot(artifact)
    assert result.code == 1, result.err
    assert "no graph with a quantized layer was found within 0 points" in result.text
    assert "--max-drop" in result.text
    # What was measured is good for another try.
    assert after.pop(CALIBRATION_CACHE)
    assert after == before


def test_a_file_that_loses_tens_of_points_ends_with_1_without_a_budget(cli, artifact, images, monkeypatch):
    monkeypatch.setattr(AccuracyReport, "drop", lambda self, row: 35.5 if row.precision == "int8" else 0.0)
    result = cli("quantize", artifact, "--data", images)
    assert result.code == 1
    assert "model.int8.onnx (35.5)" in result.text
    assert "--max-drop" in result.text
    assert "Written into" in result.out


CLOSENESS = """
import numpy as np

def spread(outputs, labels):
    assert labels.shape == outputs.shape[:1]
    return float(np.ptp(outputs))
"""


def test_a_file_below_a_floor_ends_with_1_and_is_named(cli, artifact, images, tmp_path):
    (tmp_path / "limits.json").write_text('{"int8-trt": {"min_cosine": 1}, "min_cosine": 0.5}')
    limits = ("--limits", tmp_path / "limits.json")
    result = cli("quantize", artifact, "--data", images, *limits, "--json")
    assert result.code == 1
    assert "model.int8-trt.onnx: output 'logits': cosine 0." in result.text
    assert "model.int8.onnx" not in result.text
    # It was written, and its evidence says the same.
    rows = json.loads(result.out)["accuracy"]["rows"]
    assert [bool(row["failures"]) for row in rows] == [False, False, True]
    assert rows == json.loads(next((artifact / "evidence").glob("accuracy-*.json")).read_text())["rows"]
    assert rows[1]["outputs"][0]["metrics"]["sqnr"] == rows[1]["sqnr"] > 10
    assert "cosine 0." in (artifact / "report.html").read_text()
    result = cli("quantize", artifact, "--data", images, "--min-top1", "100")
    assert result.code == 1
    assert "model.int8.onnx: top-1" in result.text
    assert "< 100 %" in result.text
    assert cli("quantize", artifact, "--data", images, *limits, "--min-cosine", "0.5").code == 0


def test_a_metric_of_ones_own_scores_the_files(cli, artifact, images, tmp_path, no_quantize):
    (tmp_path / "own.py").write_text(CLOSENESS)
    metric = ("--metric", f"{tmp_path / 'own.py'}:spread")
    result = cli("quantize", artifact, "--data", images, *metric, "--score-output", "logits", "--json")
    assert result.code == 0, result.err
    told = json.loads(result.out)["accuracy"]
    assert (told["metric"], told["output"]) == ("spread", "logits")
    assert 0 < told["rows"][0]["score"] == pytest.approx(told["rows"][1]["score"], rel=0.2)
    assert "no output 'boxes'" in no_quantize("--data", images, "--score-output", "boxes")
    assert "has no function 'spred'" in no_quantize("--data", images, "--metric", f"{tmp_path / 'own.py'}:spred")
    assert "'min_cos' is no limit" in no_quantize("--data", images, "--limits", limits_with(tmp_path, "min_cos"))
    assert "no top-1 score" in no_quantize("--data", images, *metric, "--min-top1", "1")


def limits_with(folder, name):
    (folder / "slip.json").write_text(json.dumps({name: 1}))
    return folder / "slip.json"
