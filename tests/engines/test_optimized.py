"""Graphs optimized ahead of time for a processor: the same outputs here, refused elsewhere."""

from __future__ import annotations

import json

import nano_artifact
import numpy as np
import onnx_graphs as og
import pytest

from s2mlp_deploy.errors import ArtifactError, BuildError, OutputError

ort = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
from s2mlp_deploy import api  # noqa: E402
from s2mlp_deploy.engines import optimized  # noqa: E402
from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine  # noqa: E402


@pytest.fixture
def graph(tmp_path):
    return og.save(og.perceptron(metadata={"precision": "fp32"}), tmp_path / "model.fp32.onnx")


def rewrite_traits(path, **changes):
    made = onnx.load(path)
    for item in made.metadata_props:
        if item.key == optimized.TRAITS_KEY:
            item.value = json.dumps(json.loads(item.value) | changes)
    og.save(made, path)


def test_the_digit_network_computes_the_same_and_says_for_whom(tmp_path):
    artifact = nano_artifact.copy_to(tmp_path / "artifact")
    record = api.optimize(artifact / "model.fp32.onnx")
    path = artifact / "model.fp32.onnxruntime.cpu.onnx"
    assert record.optimized == path.name
    assert record.bytes == path.stat().st_size
    assert record.traits.onnxruntime == ort.__version__
    made = onnx.load(path)
    assert {node.domain for node in made.graph.node} - {""}, "nothing was optimized"
    # The onnx package reads what was appended, and what was there before.
    entries = {item.key: item.value for item in made.metadata_props}
    assert json.loads(entries["s2mlp_deploy"])["precision"] == "fp32"
    assert json.loads(entries[optimized.TRAITS_KEY])["architecture"] == record.traits.architecture
    feeds = {"input": np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)}
    before, after = (OnnxRuntimeEngine(file, threads=1).run(feeds) for file in (artifact / "model.fp32.onnx", path))
    np.testing.assert_allclose(after["logits"], before["logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"architecture": "riscv64"}, "architecture: made for riscv64"),
        ({"instructions": ["avx1024"]}, "instruction sets: made for avx1024, here is"),
        ({"onnxruntime": "0.1.0"}, "ONNX Runtime: made with 0.1.0, here is"),
        ({"instructions": 3}, "damaged"),
    ],
)
def test_a_file_for_another_machine_is_refused_as_file_and_as_bytes(graph, changes, says):
    path = graph.with_name(api.optimize(graph).optimized)
    rewrite_traits(path, **changes)
    for model in (path, path.read_bytes()):
        with pytest.raises(ArtifactError, match=says) as caught:
            OnnxRuntimeEngine(model)
    assert "--optimize-for cpu" in str(caught.value)


def test_an_optimized_file_is_not_optimized_again(graph):
    path = graph.with_name(api.optimize(graph).optimized)
    with pytest.raises(ArtifactError, match="optimized already"):
        api.optimize(path)


def test_bad_input_leaves_nothing(graph, tmp_path):
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"this is no graph")
    before = nano_artifact.snapshot(tmp_path)
    with pytest.raises(BuildError, match="cannot optimize"):
        api.optimize(bad)
    with pytest.raises(ArtifactError, match="no such"):
        api.optimize(tmp_path / "nothing.onnx")
    with pytest.raises(OutputError, match="would replace the graph"):
        api.optimize(graph, output=graph)
    with pytest.raises(OutputError, match="a directory"):
        api.optimize(graph, output=tmp_path)
    assert nano_artifact.snapshot(tmp_path) == before


@pytest.mark.parametrize("content", [b"", b"\xff" * 50, b"text", bytes(range(256)), b"\x72\xff\xff\xff\xff\x7f"])
def test_reading_metadata_of_what_is_no_graph_gives_none(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert optimized.read_metadata(path) == {}
    assert optimized.read_metadata(content) == {}
    assert optimized.read_metadata(tmp_path) == {}


@pytest.mark.parametrize("size", [0, 1, 127, 128, 300, 70_000])
def test_metadata_of_any_size_is_read_as_the_onnx_package_writes_it_and_the_other_way_round(tmp_path, size):
    made = og.perceptron()
    onnx.helper.set_model_props(made, {"a": "ä" * size, "": "b"})
    path = og.save(made, tmp_path / "graph.onnx")
    assert optimized.read_metadata(path) == {"a": "ä" * size, "": "b"}
    with path.open("ab") as stream:
        stream.write(optimized._entry("c", "ö" * size))
    entries = {item.key: item.value for item in onnx.load(path).metadata_props}
    assert entries == {"a": "ä" * size, "": "b", "c": "ö" * size}
