"""Data, graphs and options that ``quantize`` refuses, and what it leaves: nothing."""

from __future__ import annotations

import json
import shutil

import nano_artifact
import numpy as np
import onnx
import pytest
from image_files import by_class
from tiny_network import SMALLER, SMALLER_SOURCE

torch = pytest.importorskip("torch")
from PIL import Image  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from s2mlp_deploy.artifact import CALIBRATION_CACHE  # noqa: E402
from s2mlp_deploy.files import sha256_of, to_json  # noqa: E402


def test_no_data_at_all(no_quantize, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "empty" in no_quantize("--data", tmp_path / "empty")
    assert "nothing" in no_quantize("--data", tmp_path / "nothing")
    assert "--data" in no_quantize()


def test_too_few_images(no_quantize, tmp_path):
    text = no_quantize("--data", by_class(tmp_path / "few", 3))
    assert "only 3" in text
    assert "at least 8" in text


def test_a_wrong_number_of_channels_is_told(no_quantize, tmp_path):
    np.save(tmp_path / "grey.npy", np.random.default_rng(0).normal(size=(12, 1, 8, 8)).astype(np.float32))
    text = no_quantize("--data", tmp_path / "grey.npy")
    assert "[1, 8, 8]" in text
    assert "[3, 8, 8]" in text


def test_labels_beyond_the_classes(no_quantize, tmp_path):
    text = no_quantize("--data", by_class(tmp_path / "many", 15, 5))
    assert "the label 4, and the model has 3 classes" in text


def test_classes_of_other_names(refused, original, images, tmp_path):
    manifest = json.loads((original / "manifest.json").read_text())
    directory = shutil.copytree(original, tmp_path / "named")
    (directory / "manifest.json").write_bytes(to_json(manifest | {"classes": ["cat", "dog", "hen"]}))
    data = by_class(tmp_path / "cows")
    (data / "0").rename(data / "cow")
    before = nano_artifact.snapshot(directory)
    assert "cow" in refused("quantize", directory, "--data", data)
    assert nano_artifact.snapshot(directory) == before


def test_black_images_have_no_range(no_quantize, tmp_path):
    text = no_quantize("--data", by_class(tmp_path / "black", content=np.zeros((8, 8, 3), np.uint8)))
    assert "all 12 samples are equal" in text
    # Also where the files differ: in their size, here.
    for index, path in enumerate(sorted((tmp_path / "black").rglob("*.png"))):
        Image.new("RGB", (20 + index, 30)).save(path)
    assert "all 12 samples are equal" in no_quantize("--data", tmp_path / "black")


def test_the_first_tensor_that_is_not_finite_is_named(no_quantize, cli, images, tmp_path):
    from s2mlp_deploy import api

    weights = dict(api.load("s2mlpv2_nano", overrides=SMALLER).module.state_dict())
    name = next(key for key in weights if key.endswith("mlp.fc1.weight") and "stages.0" in key)
    # The weights are finite; their products are not.
    weights[name] = torch.full_like(weights[name], 3e38)
    save_file(weights, tmp_path / "w.safetensors")
    directory = tmp_path / "hot"
    assert cli("export", *SMALLER_SOURCE, "--checkpoint", tmp_path / "w.safetensors", "-o", directory).code == 0
    text = no_quantize("--data", images, directory=directory)
    assert "is NaN or infinite on the calibration data, the first tensor that is" in text
    assert "stages.0.blocks.0.mlp.fc1/Gemm" in text


ELEMENTWISE = """
import torch

class Curve(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.gelu(x).mean((2, 3))

def curve():
    return Curve().eval(), torch.zeros(2, 3, 8, 8)
"""


def test_a_model_with_nothing_to_quantize(no_quantize, cli, refused, tmp_path):
    (tmp_path / "curve.py").write_text(ELEMENTWISE)
    data = tmp_path / "data.npy"
    np.save(data, np.random.default_rng(0).normal(size=(12, 3, 8, 8)).astype(np.float32))
    source, directory = f"{tmp_path / 'curve.py'}:curve", tmp_path / "curve"
    exported = cli("export", source, "-o", directory)
    assert exported.code == 0, exported.err
    assert "no GEMM or convolution" in no_quantize("--data", data, directory=directory)
    out = tmp_path / "never"
    assert "no GEMM or convolution" in refused(
        "export", source, "-o", out, "--precision", "int8", "--calibration-data", data
    )
    assert not out.exists()
    # float16 needs no products.
    assert cli("quantize", directory, "--data", data, "--precision", "fp16").code == 0


def test_a_file_that_is_quantized_already(no_quantize, artifact, cli, images):
    assert cli("quantize", artifact, "--data", images).code == 0
    shutil.copy(artifact / "model.int8.onnx", artifact / "model.fp32.onnx")
    manifest = json.loads((artifact / "manifest.json").read_text())
    manifest["files"][0]["sha256"] = sha256_of(artifact / "model.fp32.onnx")
    (artifact / "manifest.json").write_bytes(to_json(manifest))
    text = no_quantize("--data", images)
    assert "quantized already" in text


def test_a_changed_float32_file_and_no_artifact(no_quantize, artifact, images, tmp_path):
    model = onnx.load(artifact / "model.fp32.onnx")
    model.doc_string = "changed"
    onnx.save(model, artifact / "model.fp32.onnx")
    assert "not the one its manifest describes" in no_quantize("--data", images)
    (tmp_path / "nothing").mkdir()
    assert "not an artifact" in no_quantize("--data", images, directory=tmp_path / "nothing")


def test_a_cache_of_another_graph_or_of_nothing(no_quantize, cli, artifact, images, tmp_path):
    other = tmp_path / "other"
    assert (
        cli(
            "export", *SMALLER_SOURCE, "--seed", 9, "-o", other, "--precision", "int8", "--calibration-data", images
        ).code
        == 0
    )
    text = no_quantize("--data", images, "--calibration-cache", other / CALIBRATION_CACHE)
    assert "another graph" in text
    assert "--calibration-cache" in text
    (tmp_path / "broken.npz").write_bytes(b"broken")
    assert "not a calibration cache" in no_quantize("--data", images, "--calibration-cache", tmp_path / "broken.npz")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--precision", "int4"), ("int4", "int8 or fp8")),
        (("--precision", "fp32"), ("fp32 is there already",)),
        (("--method", "average"), ("average", "minmax, entropy, percentile or mse")),
        (("--max-drop", "-1"), ("--max-drop is -1", "0 to 100")),
        (("--max-drop", "101"), ("--max-drop is 101", "0 to 100")),
        (("--max-drop", "nan"), ("--max-drop is nan", "0 to 100")),
        (("--max-drop", "much"), ("--max-drop",)),
        (("--samples", "0"), ("--samples",)),
        (("--eval-samples", "-3"), ("--eval-samples",)),
        (("--eval-data", "no such place"), ("no such place",)),
        (("--seed", "-1"), ("--seed",)),
    ],
)
def test_options_that_cannot_be(no_quantize, images, arguments, says):
    text = no_quantize("--data", images, *arguments)
    assert all(said in text for said in says)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--precision", "int8"), ("need data", "--calibration-data")),
        (("--precision", "fp8"), ("need data", "--calibration-data")),
        (("--precision", "int4"), ("int4", "int8 or fp8")),
        (("--precision", "int8", "--opset", "18", "--calibration-data", "x"), ("opset 18", "--opset 19")),
        (("--precision", "int8", "--calibration-data", "no such place"), ("no such place",)),
        (("--method", "average"), ("average",)),
    ],
)
def test_exports_that_cannot_be_leave_nothing(refused, tmp_path, arguments, says):
    place = tmp_path / "place"
    place.mkdir()
    text = refused("export", *SMALLER_SOURCE, "-o", place / "deep" / "artifact", *arguments)
    assert all(said in text for said in says)
    assert list(place.iterdir()) == []
