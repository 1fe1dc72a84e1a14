"""What cannot be is refused before anything is measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from tiny_network import TINY, onnx_bytes, options

from s2mlp_deploy import api
from s2mlp_deploy.api import exporting
from s2mlp_deploy.calibration import observe
from s2mlp_deploy.errors import DataError, InputError, QuantizationError
from s2mlp_deploy.precision import convert


def test_one_label_for_a_batch_is_refused(artifact):
    before = onnx_bytes(artifact)
    with pytest.raises(DataError, match="one label for a whole batch"):
        api.quantize(artifact, options(((batch, 0) for batch in np.zeros((5, 8, 3, 8, 8), np.float32)), "int8"))
    assert onnx_bytes(artifact) == before


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"precisions": ("int4",)}, "int4"),
        ({"precisions": ("fp32",)}, "fp32 is there already"),
        ({"method": "average"}, "average"),
        ({"max_drop": -0.1}, "--max-drop"),
        ({"max_drop": 101.0}, "--max-drop"),
        ({"max_drop": float("nan")}, "--max-drop"),
        ({"samples": 0}, "--samples"),
        ({"eval_samples": 0}, "--eval-samples"),
        ({"data": None}, "data"),
    ],
)
def test_options_that_cannot_be_are_refused_before_the_artifact_is_looked_at(tmp_path, changes, says):
    given = replace(options("nothing"), **changes)
    with pytest.raises(InputError, match=says):
        api.quantize(tmp_path / "no artifact", given)


def test_an_opset_without_float16_scales_is_refused_early(captured, tmp_path, images):
    source = api.load("s2mlpv2_nano", overrides=TINY)
    with pytest.raises(InputError, match="opset 18"):
        api.export(source, tmp_path / "a", opset=18, precision=options(images))
    assert not (tmp_path / "a").exists()


def test_export_refuses_missing_data_before_it_captures(tmp_path, monkeypatch):
    def fail(*_args, **_options):
        pytest.fail("captured first")

    monkeypatch.setattr(exporting, "capture", fail)
    source = api.load("s2mlpv2_nano", overrides=TINY)
    with pytest.raises(DataError, match="does not exist"):
        api.export(source, tmp_path / "a", precision=options(tmp_path / "nowhere"))
    assert not (tmp_path / "a").exists()


def test_an_exclusion_of_nothing_is_refused_before_anything_is_measured(artifact, images, monkeypatch):
    monkeypatch.setattr(observe.Observer, "update", lambda *_args: pytest.fail("measured first"))
    with pytest.raises(InputError, match="--exclude 'decoder' excludes nothing"):
        api.quantize(artifact, options(images, exclude=("decoder",)))
    # It is in the graph, and never quantized.
    with pytest.raises(InputError, match="--exclude-op LayerNormalization excludes nothing"):
        api.quantize(artifact, options(images, exclude_ops=("LayerNormalization",)))


def test_a_cache_that_cannot_be_used_is_refused_before_anything_is_scored(artifact, images, tmp_path, monkeypatch):
    (tmp_path / "cache.npz").write_bytes(b"no cache")
    monkeypatch.setattr(convert, "Scorer", lambda *_args, **_options: pytest.fail("scored first"))
    with pytest.raises(QuantizationError, match="not a calibration cache"):
        api.quantize(artifact, options(images, cache=tmp_path / "cache.npz"))


def test_a_precision_that_cannot_be_made_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(observe.Observer, "update", lambda *_args: pytest.fail("measured first"))
    layers = torch.nn.Sequential(torch.nn.Conv2d(16, 16, 3), torch.nn.Flatten(), torch.nn.Linear(16 * 36, 4)).eval()
    source = api.from_module(layers, torch.zeros(2, 16, 8, 8))
    data = np.random.default_rng(0).normal(size=(12, 16, 8, 8)).astype(np.float32)
    with pytest.raises(QuantizationError, match="that fp8 would speed up"):
        api.export(source, tmp_path / "out", precision=options(data, "int8", "fp8"))
    assert list(tmp_path.iterdir()) == []
