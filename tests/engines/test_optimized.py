"""Graphs optimized ahead of time for a processor: the same outputs here, refused elsewhere."""

from __future__ import annotations

import json
import shutil

import nano_artifact
import numpy as np
import onnx_graphs as og
import pytest

from s2mlp_deploy.errors import ArtifactError, BuildError, OutputError

ort = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
from s2mlp_deploy import api  # noqa: E402
from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine  # noqa: E402
from s2mlp_deploy.engines.optimized import traits_here  # noqa: E402
from s2mlp_deploy.engines.sidecar import sidecar_of  # noqa: E402
from s2mlp_deploy.files import sha256_of  # noqa: E402
from s2mlp_deploy.processor import processor  # noqa: E402


@pytest.fixture
def graph(tmp_path):
    return og.save(og.perceptron(metadata={"precision": "fp32"}), tmp_path / "model.fp32.onnx")


def optimized(graph):
    return graph.with_name(api.optimize(graph).optimized)


def change_sidecar(path, traits=None, **changes):
    sidecar = sidecar_of(path)
    values = json.loads(sidecar.read_text())
    values["traits"] |= traits or {}
    sidecar.write_text(json.dumps(values | changes))


def test_the_digit_network_computes_the_same_and_says_for_whom(tmp_path):
    artifact = nano_artifact.copy_to(tmp_path / "artifact")
    record = api.optimize(artifact / "model.fp32.onnx")
    path = artifact / "model.fp32.onnxruntime.cpu.onnx"
    assert record.optimized == path.name
    assert record.bytes == path.stat().st_size
    assert record.onnx_sha256 == sha256_of(artifact / "model.fp32.onnx")
    assert record.optimized_sha256 == sha256_of(path)
    assert record.traits == traits_here(ort.__version__)
    assert record.traits.instructions == processor().instructions
    assert json.loads(sidecar_of(path).read_text())["traits"]["architecture"] == record.traits.architecture
    assert {node.domain for node in onnx.load(path).graph.node} - {""}, "nothing was optimized"
    engines = [OnnxRuntimeEngine(file, threads=1) for file in (artifact / "model.fp32.onnx", path)]
    # What the file says of itself stays.
    assert engines[0].metadata == engines[1].metadata
    assert json.loads(engines[1].metadata["s2mlp_deploy"])["precision"] == "fp32"
    feeds = {"input": np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)}
    before, after = (engine.run(feeds)["logits"] for engine in engines)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("traits", "says"),
    [
        ({"architecture": "riscv64"}, "architecture: optimized for riscv64"),
        ({"instructions": ["avx1024"]}, "instruction sets: optimized for avx1024, here is"),
        ({"onnxruntime": "0.1.0"}, "ONNX Runtime: optimized with 0.1.0, here is"),
        ({"instructions": 3}, "damaged"),
    ],
)
def test_a_file_for_another_machine_is_refused(graph, traits, says):
    path = optimized(graph)
    change_sidecar(path, traits)
    with pytest.raises(ArtifactError, match=says) as caught:
        OnnxRuntimeEngine(path)
    assert "--optimize-for cpu" in caught.value.fix


def test_a_file_without_its_sidecar_is_refused(graph):
    path = optimized(graph)
    sidecar_of(path).unlink()
    with pytest.raises(ArtifactError, match="no readable sidecar") as caught:
        OnnxRuntimeEngine(path)
    assert "copy both files together" in caught.value.fix
    assert "--optimize-for cpu" in caught.value.fix
    assert caught.value.where == str(sidecar_of(path))


def test_a_sidecar_of_another_version_is_refused_by_its_number(graph):
    path = optimized(graph)
    change_sidecar(path, schema_version=99)
    with pytest.raises(ArtifactError, match="schema version 99, this package reads 1"):
        OnnxRuntimeEngine(path)


def test_a_file_that_was_changed_is_refused(graph):
    path = optimized(graph)
    shutil.copyfile(graph, path)
    with pytest.raises(ArtifactError, match="it was changed"):
        OnnxRuntimeEngine(path)


def test_optimizing_again_replaces_file_and_sidecar(graph):
    path = optimized(graph)
    change_sidecar(path, {"onnxruntime": "0.1.0"})
    api.optimize(graph)
    assert OnnxRuntimeEngine(path).name == "onnxruntime (CPU)"


def test_an_optimized_file_is_not_optimized_again(graph):
    with pytest.raises(ArtifactError, match="optimized already"):
        api.optimize(optimized(graph))


def test_another_place_keeps_the_suffix_that_the_file_is_known_by(graph, tmp_path):
    with pytest.raises(OutputError, match=r"must end with \.onnxruntime\.cpu\.onnx") as caught:
        api.optimize(graph, output=tmp_path / "fast.onnx")
    place = caught.value.fix.removeprefix("--output ")
    assert place == str(tmp_path / "fast.onnxruntime.cpu.onnx")
    assert api.optimize(graph, output=place).optimized == "fast.onnxruntime.cpu.onnx"
    assert OnnxRuntimeEngine(tmp_path / "fast.onnxruntime.cpu.onnx").name == "onnxruntime (CPU)"


def test_bad_input_leaves_nothing(graph, tmp_path):
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"this is no graph")
    nodes = [og.node("Nonsense", ["x"], ["y"])]
    unknown = og.save(og.model(nodes, [og.value("x", 1, [1])], [og.value("y", 1, [1])]), tmp_path / "unknown.onnx")
    before = nano_artifact.snapshot(tmp_path)
    with pytest.raises(ArtifactError, match="not an ONNX file"):
        api.optimize(bad)
    with pytest.raises(BuildError, match="cannot optimize"):
        api.optimize(unknown)
    with pytest.raises(ArtifactError, match="no such"):
        api.optimize(tmp_path / "nothing.onnx")
    with pytest.raises(OutputError, match="must end with"):
        api.optimize(graph, output=graph)
    with pytest.raises(OutputError, match="a directory"):
        api.optimize(graph, output=tmp_path)
    assert nano_artifact.snapshot(tmp_path) == before


@pytest.mark.parametrize("mine", ["mine.onnxruntime.cpu.onnx", "mine.onnxruntime.cpu.onnx.json"])
def test_a_file_that_is_none_of_ours_is_not_replaced(graph, tmp_path, mine):
    (tmp_path / mine).write_bytes(b"mine")
    before = nano_artifact.snapshot(tmp_path)
    with pytest.raises(OutputError, match="no file that a build has made"):
        api.optimize(graph, output=tmp_path / "mine.onnxruntime.cpu.onnx")
    assert nano_artifact.snapshot(tmp_path) == before
