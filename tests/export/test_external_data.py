"""Past protobuf's limit the weights go to a file beside the graph; the limit is lowered here instead of reached."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from s2mlp_deploy import api
from s2mlp_deploy.artifact import read_manifest, verify_file
from s2mlp_deploy.export import write


@pytest.fixture(scope="module")
def captured() -> api.CapturedSource:
    return api.capture(api.load("s2mlpv2_nano", overrides={"depths": [1, 1]}))


def test_large_weights_lie_beside_the_graph_and_compute_the_same(captured, tmp_path, monkeypatch):
    api.export(captured, tmp_path / "one")
    monkeypatch.setattr(write, "MAX_SINGLE_FILE", 100_000)
    api.export(captured, tmp_path / "two")
    manifest = read_manifest(tmp_path / "two")
    assert [record.path for record in manifest.files] == ["model.fp32.onnx", "model.fp32.onnx.data"]
    assert manifest.file("fp32").path == "model.fp32.onnx"
    for record in manifest.files:
        verify_file(tmp_path / "two", record)
    graph = tmp_path / "two" / "model.fp32.onnx"
    assert graph.stat().st_size < 200_000
    onnx.checker.check_model(graph, full_check=True)
    image = np.random.default_rng(0).standard_normal((2, 3, 32, 32), dtype=np.float32)
    results = [
        onnxruntime.InferenceSession(tmp_path / name / "model.fp32.onnx").run(None, {"input": image})[0]
        for name in ("one", "two")
    ]
    np.testing.assert_array_equal(*results)
    (report,) = api.parity(captured, [graph])
    assert report.passed, report.failures


def test_one_file_holds_what_protobuf_itself_would_write(captured, tmp_path):
    api.export(captured, tmp_path / "one")
    path = tmp_path / "one" / "model.fp32.onnx"
    model = onnx.load(path)
    onnx.checker.check_model(path, full_check=True)
    again = onnx.ModelProto.FromString(model.SerializeToString())
    assert again == model
    assert len({tensor.name for tensor in model.graph.initializer}) == len(model.graph.initializer) > 20
