"""Calibration that is resumed, done once for all, or done anew."""

from __future__ import annotations

import logging
import shutil

import nano_artifact
import numpy as np
import pytest

pytest.importorskip("torch")
from tiny_network import another, onnx_bytes, options

from s2mlp_deploy import api
from s2mlp_deploy.artifact import CALIBRATION_CACHE
from s2mlp_deploy.calibration import observe
from s2mlp_deploy.errors import QuantizationError
from s2mlp_deploy.precision import convert


class Interrupting:
    """A progress that stops after so many samples."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.seen: list[int] = []

    def __call__(self, what: str, done: int, _total: int | None) -> None:
        if what == "calibrating":
            self.seen.append(done)
            if done >= self.after:
                raise KeyboardInterrupt


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(convert, "batch_for", lambda values: 4)


def test_an_interrupted_calibration_goes_on_where_it_was(artifact, images, small_batches, monkeypatch, tmp_path):
    once = api.quantize(artifact, options(images)).manifest
    expected = onnx_bytes(artifact)
    with np.load(artifact / CALIBRATION_CACHE) as stored:
        counts = stored["counts"]
    for precision in ("int8", "int8-trt"):
        (artifact / f"model.{precision}.onnx").unlink()
    (artifact / CALIBRATION_CACHE).unlink()
    before = nano_artifact.snapshot(artifact)
    with pytest.raises(KeyboardInterrupt):
        api.quantize(artifact, options(images), progress=Interrupting(12))
    cache = (artifact / CALIBRATION_CACHE).read_bytes()
    assert nano_artifact.snapshot(artifact) == before | {CALIBRATION_CACHE: cache}
    updates = []
    update = observe.Observer.update
    monkeypatch.setattr(
        observe.Observer, "update", lambda self, seen, feeds: updates.append(seen.samples) or update(self, seen, feeds)
    )
    again = api.quantize(artifact, options(images)).manifest
    assert updates == list(range(12, 40, 4))
    assert onnx_bytes(artifact) == expected
    assert again.files == once.files
    with np.load(artifact / CALIBRATION_CACHE) as stored:
        np.testing.assert_array_equal(stored["counts"], counts)
    api.quantize(artifact, options(images, method="mse"))
    assert len(updates) == 7, "a complete cache is not measured again"


def test_an_interrupt_within_a_batch_counts_none_of_it(artifact, images, small_batches, monkeypatch):
    api.quantize(artifact, options(images))
    expected = onnx_bytes(artifact)
    (artifact / CALIBRATION_CACHE).unlink()
    from s2mlp_deploy.calibration.histogram import Histogram

    update, calls = Histogram.update, []

    def interrupted(self, values):
        calls.append(1)
        if len(calls) == 20:
            raise KeyboardInterrupt
        update(self, values)

    with monkeypatch.context() as patch:
        patch.setattr(Histogram, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            api.quantize(artifact, options(images))
    with np.load(artifact / CALIBRATION_CACHE) as stored:
        # Of the second batch some histograms had been counted.
        assert int(stored["samples"]) == 4
    api.quantize(artifact, options(images))
    assert onnx_bytes(artifact) == expected


def test_other_data_is_measured_anew(artifact, images):
    api.quantize(artifact, options(images))
    first = (artifact / "model.int8.onnx").read_bytes()
    result = api.quantize(artifact, options(images, samples=16))
    assert result.manifest.calibration.samples == 16
    assert (artifact / "model.int8.onnx").read_bytes() != first


def test_a_cache_without_histograms_is_not_enough_for_int8(artifact, images):
    api.quantize(artifact, options(images, "fp16"))
    api.quantize(artifact, options(images, "int8"))
    assert (artifact / "model.int8.onnx").is_file()


def test_broken_images_are_reported_and_counted_with_and_without_the_cache(artifact, images, tmp_path, caplog):
    data = shutil.copytree(images, tmp_path / "data")
    (data / "1" / "broken.png").write_bytes(b"no image")
    for _ in range(2):
        caplog.clear()
        result = api.quantize(artifact, options(data))
        assert result.manifest.calibration.skipped == 1
        assert result.manifest.calibration.samples == 40
        files = onnx_bytes(artifact)
    assert onnx_bytes(artifact) == files
    (artifact / CALIBRATION_CACHE).unlink()
    with caplog.at_level(logging.WARNING):
        api.quantize(artifact, options(data))
    assert "1 broken images were skipped" in caplog.text


def test_duplicates_are_reported(artifact, images, tmp_path, caplog):
    data = shutil.copytree(images, tmp_path / "data")
    shutil.copy(data / "0" / "0.png", data / "0" / "again.png")
    result = api.quantize(artifact, options(data))
    assert result.manifest.calibration.duplicates == 1
    assert "1 of 41 samples are duplicates" in caplog.text


def test_a_cache_of_another_graph_is_refused_and_kept(artifact, images, tmp_path):
    api.quantize(artifact, options(images))
    other = tmp_path / "other"
    api.export(another(), other)
    cache = artifact / CALIBRATION_CACHE
    before, kept = nano_artifact.snapshot(other), cache.read_bytes()
    with pytest.raises(QuantizationError, match="another graph"):
        api.quantize(other, options(images, cache=cache))
    assert nano_artifact.snapshot(other) == before
    assert cache.read_bytes() == kept
    # One that a forced export finds in its place is of the artifact that it replaces.
    shutil.copy(cache, other / CALIBRATION_CACHE)
    api.export(another(), other, force=True, precision=options(images))
    assert (other / CALIBRATION_CACHE).read_bytes() != kept
