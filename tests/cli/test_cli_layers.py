"""``parity --per-layer``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from small_nets import images
from tiny_artifact import largest_file

from s2mlp_deploy import api
from s2mlp_deploy.errors import OutputError
from s2mlp_deploy.graph.operators import array_of
from s2mlp_deploy.precision.half import to_half

NETWORK = {"dims": (8,), "depths": (1,), "patches": (2,), "image_size": (8, 8), "classes": 3}
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
    api.export(_source(), directory, precision=options)
    return directory


def test_layers_of_an_artifact_are_compared_and_kept(cli, artifact):
    result = cli("parity", "s2mlpv2_nano", artifact, "--per-layer", "--samples", 4, "--json")
    assert result.code == 0, result.err
    documents = json.loads(result.out)
    assert {item["precision"] for item in documents} == {"fp32", "fp16", "int8", "int8-trt"}
    for item in documents:
        assert item["kind"] == "layers"
        assert item["layers"][-1]["path"] == "logits"
        assert len(item["layers"]) > 10
        assert item["tapping"]["logits"] < 1e-2
        assert item["layers"][0]["line"].endswith(tuple("0123456789"))
    assert [("rounded to float16" in item["candidate"]) for item in documents] == [
        item["precision"] in ("fp16", "int8-trt") for item in documents
    ]
    assert len(list((artifact / "evidence").glob("layers-*.json"))) == 4


def test_a_wrong_layer_is_named_and_ends_with_1(cli, artifact, tmp_path):
    model = ir.load(artifact / "model.fp32.onnx")
    name = "stages.0.blocks.0.mlp.fc1.weight_t"
    value = model.graph.initializers[name]
    value.const_value = ir.tensor(array_of(value) * 1.5, name=name)
    ir.save(model, tmp_path / "model.onnx")
    result = cli("parity", "s2mlpv2_nano", tmp_path / "model.onnx", *SETTINGS, "--per-layer", "--samples", 4)
    assert result.code == 1, result.err
    assert "stages.0.blocks.0.mlp.fc1: of its own: max abs difference" in result.text
    assert "<- FIRST past its limit" in result.out
    assert list(Path(tmp_path).iterdir()) == [tmp_path / "model.onnx"]


def test_what_layers_cannot_be_compared_with_is_refused(cli, artifact, tmp_path):
    engine = tmp_path / "model.engine"
    engine.write_bytes(b"engine")
    result = cli("parity", "s2mlpv2_nano", engine, "--per-layer")
    assert result.code == 2
    assert "name the ONNX file that it was built from" in result.text
    result = cli("parity", "s2mlpv2_nano", artifact, "--per-layer", "--engine", "onnxruntime:cuda")
    assert result.code == 2
    assert "layers are compared on a CPU, not on onnxruntime:cuda" in result.text


def test_saved_layers_are_judged_again_without_running(cli, artifact, tmp_path, monkeypatch):
    file, kept = artifact / "model.fp32.onnx", tmp_path / "kept"
    measured = cli("parity", "s2mlpv2_nano", file, "--per-layer", "--samples", 4, "--save", kept, "--json")
    assert measured.code == 0, measured.err
    with monkeypatch.context() as patched:
        patched.setattr(api, "parity_per_layer", None)
        again = cli("parity", "--from", kept, "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out) == json.loads(measured.out)
    strict = cli("parity", "--from", kept, "--atol", "0", "--rtol", "1e-9")
    assert strict.code == 1
    assert "stages.0.patch_embed.proj: max abs difference" in strict.text
    assert cli("parity", "--from", kept, "--rtol", "head=1").code == 2
    refused = cli("parity", "s2mlpv2_nano", file, "--from", kept)
    assert refused.code == 2
    assert "--from runs nothing" in refused.text
    assert cli("parity", "s2mlpv2_nano", file, "--per-layer", "--save", kept).code == 2
    assert "add --per-layer" in cli("parity", "s2mlpv2_nano", file, "--save", tmp_path / "other").text


def test_saved_layers_that_are_damaged_or_of_another_version_are_refused(cli, artifact, tmp_path):
    kept = tmp_path / "kept"
    api.parity_per_layer(_source(), [artifact / "model.fp32.onnx"], samples=2, save=kept)
    part = kept / "tensors-00000.safetensors"
    whole, index = part.read_bytes(), (kept / "layers.json").read_text()

    def refused() -> str:
        result = cli("parity", "--from", kept)
        assert result.code == 2, result.err
        return result.text

    part.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "another hash than when it was saved" in refused()
    part.unlink()
    assert "is missing" in refused()
    part.write_bytes(whole)
    (kept / "layers.json").write_text(index.replace('"schema_version": 2', '"schema_version": 9'))
    assert "schema version 9" in refused()
    (kept / "layers.json").write_text(index[:-40])
    assert "it is damaged" in refused()
    (kept / "layers.json").write_text("{}")
    assert "holds no saved layers" in refused()
    (kept / "layers.json").unlink()
    assert "there are no saved layers" in refused()


def test_a_full_disk_leaves_nothing_of_saved_layers(artifact, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    # A file outside of an artifact: no evidence is written, only the tensors.
    file = Path(shutil.copy(artifact / "model.fp32.onnx", tmp_path / "model.onnx"))
    source = _source()
    size = file.stat().st_size + (1 << 20)
    with largest_file(size), pytest.raises(OutputError, match="cannot write"):
        api.parity_per_layer(source, [file], samples=256, batch=64, save=place / "kept")
    assert list(place.iterdir()) == []


def _source():
    return api.load("s2mlpv2_nano", overrides=NETWORK, seed=0)


def test_bisect_names_the_layer_and_what_enters_it_and_measures_what_mends_it(cli, artifact, tmp_path):
    """An int8 file with one wrong scale: the layer in float32 is made, measured, and the command for it is printed."""
    directory = Path(shutil.copytree(artifact, tmp_path / "wrong"))
    model = ir.load(artifact / "model.int8.onnx")
    name = "stages.0.blocks.0.mlp.fc1.weight_t.scale"
    value = model.graph.initializers[name]
    value.const_value = ir.tensor((array_of(value) * 2).astype("float32"), name=name)
    ir.save(model, directory / "model.int8.onnx")
    run = ("parity", "s2mlpv2_nano", directory / "model.int8.onnx", "--bisect", "--samples", 8)
    result = cli(*run, "--json")
    assert result.code == 1, result.err
    (found,) = json.loads(result.out)
    assert found["bisection"]["path"] == "stages.0.blocks.0.mlp.fc1"
    assert found["bisection"]["enters"] == ["stages.0.blocks.0.norm2"]
    assert found["bisection"]["leaves"] == ["stages.0.blocks.0.mlp.fc2"]
    mend, level = found["bisection"]["mends"]
    assert "optimizer at ORT_DISABLE_ALL" in level["what"]
    assert level["problem"] == ""
    assert mend["problem"] == ""
    assert mend["layer"]["metrics"]["max_abs"] < mend["layer"]["metrics"]["peak"] / 10
    assert [item["path"] for item in mend["outputs"]] == ["logits"]
    pattern = r"'^stages\.0\.blocks\.0\.mlp\.fc1/'"
    assert f"quantize with --exclude {pattern}" in mend["option"]
    np.save(tmp_path / "data.npy", images(8, size=(8, 8))["input"])
    shown = cli(*run, "--data", tmp_path / "data.npy")
    assert "fix: look at the first" in shown.text
    assert "helps: stages.0.blocks.0.mlp.fc1 own SNR" in " ".join(shown.out.split())
    command = f"s2mlp-deploy quantize {directory} --data {tmp_path / 'data.npy'} --precision int8 --exclude {pattern}"
    assert command in shown.out


def test_bisect_writes_a_wrong_shift_in_another_form(cli, artifact, tmp_path):
    """Two parts of one shift changed places in the file: groups move the wrong way."""
    directory = Path(shutil.copytree(artifact, tmp_path / "wrong"))
    model = ir.load(artifact / "model.fp32.onnx")
    name = "stages.0.blocks.0.mixer.shifts.1/Shift/Concat"
    node = next(node for node in model.graph if node.name == name)
    for position, value in enumerate(reversed(list(node.inputs))):
        node.replace_input_with(position, value)
    ir.save(model, directory / "model.fp32.onnx")
    result = cli("parity", "s2mlpv2_nano", directory / "model.fp32.onnx", "--bisect", "--samples", 4, "--json")
    assert result.code == 1, result.err
    (found,) = json.loads(result.out)
    assert found["bisection"]["path"] == "stages.0.blocks.0.mixer.shifts.1"
    assert found["bisection"]["line"]
    mend, level = found["bisection"]["mends"]
    assert "optimizer at ORT_DISABLE_ALL" in level["what"]
    assert level["problem"] == ""
    assert mend["problem"] == ""
    assert mend["option"].startswith("export with --shift-form ")
    assert mend["layer"]["metrics"]["max_abs"] < 1e-5


def test_bisect_says_what_it_cannot_try(cli, artifact, tmp_path):
    file = tmp_path / "model.onnx"
    model = ir.load(artifact / "model.int8.onnx")
    name = "stages.0.blocks.0.mlp.fc1.weight_t.scale"
    value = model.graph.initializers[name]
    value.const_value = ir.tensor((array_of(value) * 2).astype("float32"), name=name)
    ir.save(model, file)
    result = cli("parity", "s2mlpv2_nano", file, *SETTINGS, "--bisect", "--samples", 8)
    assert result.code == 1, result.err
    assert "because the file is in no artifact" in result.told


def test_bisect_keeps_a_layer_that_overflows_float16_in_float32(tmp_path):
    """A norm gives values beyond float16's range, and a file was cast without measuring them."""
    source = _source()
    block = source.module.get_submodule("stages.0.blocks.0")
    with torch.no_grad():
        block.norm2.weight.mul_(50_000)
        block.mlp.fc1.weight.div_(50_000)
    captured, directory = api.capture(source), tmp_path / "out"
    data = images(8, size=(8, 8))["input"]
    api.export(captured, directory, precision=api.PrecisionOptions(precisions=("fp16",), data=data, threads=1))
    (sound,) = api.parity_per_layer(captured, [directory / "model.fp16.onnx"], samples=4)
    assert sound.passed
    ir.save(to_half(ir.load(directory / "model.fp32.onnx"), {}).model, directory / "model.fp16.onnx")
    (report,) = api.parity_per_layer(captured, [directory / "model.fp16.onnx"], data=data, bisect=True)
    assert report.first.path == "stages.0.blocks.0.norm2"
    assert report.first.own.not_finite
    mend = report.bisection.mends[0]
    assert mend.problem == ""
    assert mend.helps
    assert all(not output.failures for output in mend.outputs)
    assert "--exclude" in mend.option


def test_outputs_of_int8_on_noise_are_judged_where_that_tells_something(artifact, tmp_path):
    """A file in no artifact has no figures of its own, and noise lies outside of its ranges: its layers are judged."""
    file = Path(shutil.copy(artifact / "model.int8.onnx", tmp_path / "model.onnx"))
    captured = api.capture(_source())
    (report,) = api.parity_per_layer(captured, [file], samples=4)
    assert report.passed
    assert report.layers[-1].tolerances is None
    assert all(layer.own_tolerances is not None for layer in report.layers[:-1])
    (strict,) = api.parity_per_layer(captured, [file], samples=4, atol={"logits": 0.0}, rtol={"logits": 1e-9})
    assert [layer.path for layer in strict.layers if layer.failures] == ["logits"]
    (kept,) = api.parity_per_layer(captured, [artifact / "model.int8.onnx"], samples=4)
    assert kept.layers[-1].tolerances is not None
