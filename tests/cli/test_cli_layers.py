"""``parity --per-layer``."""

from __future__ import annotations

import json
from pathlib import Path

import onnx_ir as ir
import pytest
from small_nets import images

from s2mlp_deploy import api
from s2mlp_deploy.graph.operators import array_of

SETTINGS = (
    "--set",
    "dims=8",
    "--set",
    "depths=1",
    "--set",
    "patches=2",
    "--set",
    "image_size=8,8",
    "--set",
    "classes=3",
)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    directory = tmp_path_factory.mktemp("layers") / "out"
    options = api.PrecisionOptions(precisions=("fp16", "int8"), data=images(16, size=(8, 8))["input"], threads=1)
    overrides = {"dims": (8,), "depths": (1,), "patches": (2,), "image_size": (8, 8), "classes": 3}
    api.export(api.load("s2mlpv2_nano", overrides=overrides, seed=0), directory, precision=options)
    return directory


def test_layers_of_an_artifact_are_compared_and_kept(cli, artifact):
    result = cli("parity", "s2mlpv2_nano", artifact, "--per-layer", "--samples", 4, "--json")
    assert result.code == 0, result.err
    documents = json.loads(result.out)
    assert [item["file"] for item in documents] == ["model.fp32.onnx", "model.fp16.onnx", "model.int8.onnx"]
    for item in documents:
        assert item["kind"] == "layers"
        assert item["layers"][-1]["path"] == "logits"
        assert len(item["layers"]) > 10
        assert item["tapping"]["logits"] < 1e-2
        assert item["layers"][0]["line"].endswith(tuple("0123456789"))
    assert "rounded to float16" in documents[1]["candidate"]
    assert len(list((artifact / "evidence").glob("layers-*.json"))) == 3


def test_a_wrong_layer_is_named_and_ends_with_1(cli, artifact, tmp_path):
    model = ir.load(artifact / "model.fp32.onnx")
    name = "stages.0.blocks.0.norm2.bias"
    value = model.graph.initializers[name]
    value.const_value = ir.tensor(array_of(value) + 0.5, name=name)
    ir.save(model, tmp_path / "model.onnx")
    result = cli("parity", "s2mlpv2_nano", tmp_path / "model.onnx", *SETTINGS, "--per-layer", "--samples", 4)
    assert result.code == 1, result.err
    assert "stages.0.blocks.0.norm2: max abs difference 0.5" in result.text
    assert "<- FIRST past its limit" in result.out
    assert list(Path(tmp_path).iterdir()) == [tmp_path / "model.onnx"]


def test_what_layers_cannot_be_compared_with_is_refused(cli, artifact, tmp_path):
    engine = tmp_path / "model.engine"
    engine.write_bytes(b"engine")
    result = cli("parity", "s2mlpv2_nano", engine, "--per-layer")
    assert result.code == 2
    assert "name the ONNX file that it was built from" in result.text
    result = cli("parity", "s2mlpv2_nano", artifact, "--per-layer", "--provider", "cuda")
    assert result.code == 2
    assert "--provider: layers are compared on ONNX Runtime's CPU" in result.text
