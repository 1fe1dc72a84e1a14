"""An ONNX file is what others are compared with, where there is no model: outputs, layers, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import report_samples
from small_nets import graph, images

from s2mlp_deploy import api
from s2mlp_deploy.api import opening
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.graph.operators import array_of

NAME = "stages.0.blocks.0.mlp.fc1.weight_t"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("files")
    wrong = graph("v2").clone()
    value = wrong.graph.initializers[NAME]
    value.const_value = ir.tensor(array_of(value) * np.float32(1.5), name=NAME)
    for name, model in (("a", graph("v2")), ("b", graph("v2", "pad-slice")), ("wrong", wrong)):
        ir.save(model, directory / f"{name}.onnx")
    return directory


def test_files_are_compared_with_a_file(files):
    sound, wrong = api.parity_against_file(files / "a.onnx", [files / "b.onnx", files / "wrong.onnx"], samples=3)
    assert sound.passed
    assert sound.tried
    assert sound.reference.endswith("a.onnx")
    assert sound.weights.checkpoint == "a.onnx"
    assert not wrong.passed


def test_layers_are_compared_with_those_of_a_file_without_torch(process, files):
    command = ("parity", files / "a.onnx", files / "wrong.onnx", "--bisect", "--samples", 3, "--json")
    result = process(*command, blocked=("torch",))
    assert result.code == 1, result.err
    (found,) = json.loads(result.out)
    assert found["bisection"]["path"] == "stages.0.blocks.0.mlp.fc1"
    assert found["bisection"]["enters"] == ["stages.0.blocks.0.norm2"]
    assert [item["path"] for item in found["layers"] if item["own"] and item["own"]["max_rel"] > 1e-4] == [
        "stages.0.blocks.0.mlp.fc1"
    ]
    result = process("parity", files / "a.onnx", files / "b.onnx", "--samples", 3, blocked=("torch",))
    assert result.code == 0, result.err


def test_what_cannot_be_compared_with_a_file_is_refused(cli, files, tmp_path):
    def refused(*arguments):
        result = cli("parity", *arguments)
        assert result.code == 2, result.text
        return result.text

    assert "has its weights and sizes in it" in refused(files / "a.onnx", files / "b.onnx", "--set", "classes=3")
    assert "no such file" in refused(tmp_path / "none.onnx", files / "b.onnx")
    other = graph("v2").clone()
    logits = other.graph.outputs[0]
    node = ir.node("Concat", [logits, logits], {"axis": 1})
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = "twice", logits.type, ir.Shape(["batch", 10])
    other.graph.append(node)
    other.graph.outputs[0] = node.outputs[0]
    ir.save(other, tmp_path / "other.onnx")
    text = refused(files / "a.onnx", tmp_path / "other.onnx", "--per-layer")
    assert "output 'logits' is ['batch', 10], and ['batch', 5] in the reference" in text
    np.save(tmp_path / "none.npy", images(1)["input"][:0])
    refused(files / "a.onnx", files / "b.onnx", "--per-layer", "--data", tmp_path / "none.npy")
    more = graph("v2").clone()
    more.graph.outputs.append(next(v for n in more.graph for v in n.outputs if n.name == "norm/LayerNormalization"))
    ir.save(more, tmp_path / "more.onnx")
    with pytest.raises(InputError, match="the number of outputs differs"):
        api.layers_against_file(files / "a.onnx", [tmp_path / "more.onnx"])


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino:GPU"])
def test_an_engine_file_on_another_engine_than_its_own_is_refused_before_it_is_opened(cli, files, monkeypatch, engine):
    record = replace(report_samples.build(), flavour="openvino", targets=("CPU",))
    monkeypatch.setattr(opening, "read_sidecar", lambda _: record)
    (files / "a.engine").write_bytes(b"engine")
    result = cli("parity", files / "a.onnx", files / "a.engine", "--engine", engine)
    assert result.code == 2
    assert f"nothing else runs it: not {engine}" in result.text


def test_what_fails_on_another_engine_is_to_be_compared_on_onnx_runtime(cli, files, monkeypatch):
    def advice(candidate):
        wrong = replace(report_samples.report(), candidate=candidate, failures=("far off",))
        monkeypatch.setattr(api, "parity_against_file", lambda *_, **__: (wrong,))
        result = cli("parity", files / "a.onnx", files / "b.onnx")
        assert result.code == 1
        return result.text

    assert "with --engine onnxruntime too: where they hold there, it is openvino that" in advice("openvino (CPU)")
    assert "fix: check that source" in advice("onnxruntime (CPU)")
