"""``quantize`` of an ONNX file that is no artifact's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnx
import pytest
from image_files import by_class

from s2mlp_deploy.artifact import read_manifest

pytest.importorskip("torch")


@pytest.fixture
def vendor(original, tmp_path, monkeypatch):
    """A folder with a file of somebody's that takes images, and what quantizing it needs."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(original, "made")
    model = onnx.load("made/model.fp32.onnx")
    del model.metadata_props[:]
    onnx.save(model, "vendor.onnx")
    by_class(tmp_path / "images")
    (tmp_path / "pre.json").write_text('{"size": [8, 8], "mean": [0, 0, 0], "std": [1, 1, 1]}')
    return ("quantize", "vendor.onnx", "--data", "images", "--preprocess", "pre.json")


def test_an_onnx_file_becomes_an_artifact_with_quantized_files(cli, refused, vendor):
    result = cli(*vendor, "--output", "out", "--set", "batch=1", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["accuracy"]["rows"]
    manifest = read_manifest(Path("out"))
    assert [record.precision for record in manifest.files] == ["fp32", "int8", "int8-trt"]
    assert manifest.preprocessing["size"] == [8, 8]
    assert manifest.inputs[0].shape[0] == 1
    result = cli("parity", "vendor.onnx", "out", "--data", "images")  # The artifact knows the preprocessing.
    assert result.code == 0, result.err
    # What is quantized is told as such.
    text = refused("quantize", "out/model.int8.onnx", *vendor[2:], "--output", "other")
    assert "computes in int8 already" in text
    assert not Path("other").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--output DIR"),
        (("--output", "made"), "already holds an artifact"),
        (("--output", "out", "--precision", "fp32"), "fp32 is there already"),
        (("--output", "out", "--set", "batch=0"), "--set batch=1"),
        (("--output", "out", "--set", "height=8"), "no free size called 'height'"),
    ],
)
def test_an_onnx_file_is_refused_with_the_way_out(refused, vendor, arguments, said):
    assert said in refused(*vendor, *arguments)
    assert not Path("out").exists()


def test_what_is_of_onnx_files_is_refused_of_artifacts(refused, vendor):
    text = refused("quantize", "made", *vendor[2:], "--output", "out")
    assert "leave --output and --preprocess out" in text
    assert "quantize made is for the artifact" in refused("quantize", "made/model.fp32.onnx", *vendor[2:])
