"""Scores and budgets: what is measured on what, and which layers a budget keeps."""

from __future__ import annotations

import nano_artifact
import numpy as np
import pytest

pytest.importorskip("torch")
from tiny_network import options

from s2mlp_deploy import api
from s2mlp_deploy.artifact import CALIBRATION_CACHE
from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
from s2mlp_deploy.errors import CheckFailedError, DataError


def closeness(artifact):
    """A metric: 100 less the relative error of the scores, in percent."""
    reference = OnnxRuntimeEngine(artifact / "model.fp32.onnx", threads=1)
    feeds = np.random.default_rng(5).uniform(-1.7, 2.2, (64, 3, 8, 8)).astype(np.float32)
    (expected,) = reference.run({"input": feeds}).values()

    def relative_error(engine) -> float:
        (found,) = engine.run({engine.inputs[0].name: feeds}).values()
        return 100.0 - 100 * float(np.linalg.norm(found - expected) / np.linalg.norm(expected))

    return relative_error


def test_a_budget_keeps_layers_and_lists_its_trials(artifact, images):
    metric = closeness(artifact)
    plain = {row.precision: row.score for row in api.quantize(artifact, options(images, metric=metric)).accuracy.rows}
    budget = (100 - min(plain["int8"], plain["int8-trt"])) * 0.7
    result = api.quantize(artifact, options(images, max_drop=budget, metric=metric))
    assert result.accuracy.metric == "relative_error"
    kept = []
    for precision in ("int8", "int8-trt"):
        search = result.accuracy.searches[precision]
        assert search.drop <= budget
        told = {
            item.layer
            for item in result.manifest.precision_exceptions
            if item.file == f"model.{precision}.onnx" and item.reason == "kept by the accuracy budget"
        }
        assert told == {layer.layer for layer in search.kept}
        kept += search.kept
        assert set(search.sqnr) == set(result.accuracy.sqnr[precision])
        (row,) = (row for row in result.accuracy.rows if row.precision == precision)
        assert row.score == pytest.approx(search.score)
    assert kept
    assert all(layer.gain > 0 for layer in kept)


def test_layers_are_measured_on_what_is_scored(artifact):
    bright = np.random.default_rng(0).uniform(-1.7, 2.2, (16, 3, 8, 8)).astype(np.float32)
    same, dark = (
        api.quantize(artifact, options(data, eval_data=bright)).accuracy.sqnr["int8"] for data in (bright, 0.1 * bright)
    )
    first = next(iter(dark))
    assert dark[first] < 10 < same[first], "ranges of dark images clip bright ones"
    assert min(dark, key=dark.get) == first, "so a budget tries that layer first"


def test_a_budget_that_cannot_be_kept_leaves_all_but_the_cache_as_it_was(artifact, images):
    before = nano_artifact.snapshot(artifact)
    with pytest.raises(CheckFailedError):
        api.quantize(artifact, options(images, max_drop=1e-6, metric=closeness(artifact)))
    after = nano_artifact.snapshot(artifact)
    # What was measured is good for another try.
    assert after.pop(CALIBRATION_CACHE)
    assert after == before


def test_labels_beyond_the_classes_are_refused_before_anything_is_measured(artifact, tmp_path):
    random = np.random.default_rng(0)
    path = tmp_path / "data.npz"
    np.savez(path, input=random.normal(size=(12, 3, 8, 8)).astype(np.float32), labels=np.arange(12))
    before = nano_artifact.snapshot(artifact)
    with pytest.raises(DataError, match="the label 11, and the model has 3 classes"):
        api.quantize(artifact, options(path))
    assert nano_artifact.snapshot(artifact) == before


def test_without_labels_agreement_is_the_score(artifact):
    data = np.random.default_rng(0).normal(size=(12, 3, 8, 8)).astype(np.float32)
    accuracy = api.quantize(artifact, options(data, "fp16")).accuracy
    assert accuracy.metric == "top-1 agreement with fp32"
    assert accuracy.rows[0].score == 100.0
    assert accuracy.rows[1].score == accuracy.rows[1].agreement


def test_scores_may_come_from_other_data(artifact, images):
    data = np.random.default_rng(0).normal(size=(12, 3, 8, 8)).astype(np.float32)
    result = api.quantize(artifact, options(data, "int8", eval_data=images, eval_samples=9))
    assert result.accuracy.metric == "top-1 accuracy"
    assert result.accuracy.images == 9
    assert result.manifest.calibration.samples == 12


def test_a_budget_finer_than_an_image_is_warned_of(artifact, images, caplog):
    api.quantize(artifact, options(images, max_drop=2.4))
    assert "--max-drop 2.4 is finer than 40 images can tell: each is worth 2.5 points" in caplog.text
    caplog.clear()
    api.quantize(artifact, options(images, max_drop=2.5))
    assert "finer" not in caplog.text


def test_scores_on_other_samples_of_the_same_number_are_not_mixed(artifact, tmp_path):
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "v.npy", random.standard_normal((12, 3, 8, 8)).astype(np.float32))
    api.quantize(artifact, options(tmp_path / "a" / "v.npy", "int8"))
    rows = api.quantize(artifact, options(tmp_path / "b" / "v.npy", "fp16")).accuracy.rows
    assert [row.precision for row in rows] == ["fp32", "fp16"]
