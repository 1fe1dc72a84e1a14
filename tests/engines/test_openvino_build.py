"""Files compiled by OpenVINO ahead of time: the same outputs here, refused elsewhere."""

from __future__ import annotations

import shutil
from dataclasses import replace

import nano_artifact
import numpy as np
import onnx_graphs as og
import pytest

from s2mlp_deploy.errors import ArtifactError, InputError, OutputError, TargetError

pytest.importorskip("openvino")
from s2mlp_deploy import api
from s2mlp_deploy.api.opening import open_file
from s2mlp_deploy.bench.candidates import jobs_of
from s2mlp_deploy.bench.engines import open_engine
from s2mlp_deploy.engines.openvino import builder
from s2mlp_deploy.engines.openvino.builder import find_compiled
from s2mlp_deploy.engines.openvino.library import RULES
from s2mlp_deploy.engines.openvino.runtime import CompiledEngine, OpenVinoEngine
from s2mlp_deploy.engines.record import read_engine, write_sidecar
from s2mlp_deploy.engines.sidecar import sidecar_of
from s2mlp_deploy.evidence.build import BuildRecord, MatrixOp
from s2mlp_deploy.evidence.store import read_evidence
from s2mlp_deploy.evidence.tune import EngineSettings
from s2mlp_deploy.files import sha256_of
from s2mlp_deploy.serving.predictor import Predictor


@pytest.fixture
def graph(tmp_path):
    return og.save(og.perceptron(metadata={"precision": "fp32"}), tmp_path / "model.fp32.onnx")


def built(graph, **options):
    return graph.with_name(api.build(graph, engine="openvino", **options).engine)


def test_the_digit_network_compiled_computes_the_same_and_says_for_whom(tmp_path):
    artifact = nano_artifact.copy_to(tmp_path / "artifact")
    record = api.build(artifact, engine="openvino")
    path = artifact / "model.fp32.openvino.cpu.engine"
    assert (record.engine, record.flavour, record.targets) == (path.name, "openvino", ("CPU",))
    assert record.engine_sha256 == sha256_of(path)
    assert record.onnx_sha256 == sha256_of(artifact / "model.fp32.onnx")
    assert record.engine_contents is not None
    assert {op.precision for op in record.engine_contents.matrix_ops} == {"fp32"}
    assert any(op.name.startswith("stages.0.") for op in record.engine_contents.matrix_ops)
    plain, ours = OpenVinoEngine(artifact / "model.fp32.onnx", threads=1), open_file(path, batch=3)
    assert isinstance(ours, CompiledEngine)
    assert (ours.inputs, ours.outputs, ours.limits, ours.name) == (
        plain.inputs,
        plain.outputs,
        plain.limits,
        plain.name,
    )
    feeds = {"input": np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)}
    np.testing.assert_array_equal(ours.run(feeds)["logits"], plain.run(feeds)["logits"])
    assert "float32" in ours.properties["INFERENCE_PRECISION_HINT"]
    # The predictor takes it, bench and inspect know it, and it is evidence.
    opened = Predictor(artifact, engine="openvino", allow_unproven=True)
    assert isinstance(opened._sessions._engines[0], CompiledEngine)
    assert [job.path.name for job in jobs_of([artifact], ["openvino"], [])] == ["model.fp32.onnx", path.name]
    assert api.inspect_engine(path).mismatches == ()
    assert [item.record.engine for item in read_evidence(artifact).of(BuildRecord)] == [path.name]
    assert find_compiled(artifact / "model.fp32.onnx", "") == path


def test_an_equal_build_is_found_and_a_forced_one_is_made(graph):
    first = api.build(graph, engine="openvino")
    assert not first.cached
    assert api.build(graph, engine="openvino").cached
    assert not api.build(graph, engine="openvino", force=True).cached
    og.save(og.perceptron(metadata={"precision": "fp32", "seed": 1}), graph)
    assert find_compiled(graph, "CPU") is None
    assert not api.build(graph, engine="openvino").cached


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": "2020.1"}, "version: built for 2020.1, here is"),
        ({"platform": "plan9-mips"}, "platform: built for plan9-mips"),
        ({"flags": {"instructions": "amx_int8", "graph_rules": RULES}}, "instruction sets: built for amx_int8"),
        ({"flags": {}}, f"rules of s2mlp-deploy: built for none, here is {RULES}"),
        ({"flags": {"graph_rules": RULES - 1}}, f"rules of s2mlp-deploy: built for {RULES - 1}, here is {RULES}"),
    ],
)
def test_what_was_compiled_for_another_machine_is_refused_with_the_difference(graph, changes, words, caplog):
    path = built(graph)
    write_sidecar(path, replace(read_engine(path), **changes))
    with pytest.raises(ArtifactError) as caught:
        CompiledEngine(path)
    assert words in str(caught.value)
    assert "build model.fp32.onnx" in str(caught.value) or "--engine openvino" in str(caught.value)
    with caplog.at_level("INFO", builder.LOG.name):
        assert find_compiled(graph, "CPU") is None
    assert [(item.levelname, words.partition(":")[0] in item.getMessage()) for item in caplog.records] == [
        ("INFO", True)
    ]
    assert "--engine openvino" in caplog.text
    assert len(api.inspect_engine(path).mismatches) == 1


@pytest.mark.parametrize("throughput", [False, True])
def test_what_was_compiled_is_opened_for_many_runs_or_for_one(graph, throughput):
    path, settings = built(graph), EngineSettings(threads=2)
    engine, _ = open_engine(path, "openvino", settings=settings, throughput=throughput)
    assert engine.properties["PERFORMANCE_HINT"].endswith("THROUGHPUT" if throughput else "LATENCY")
    assert (engine.properties["NUM_STREAMS"] == "1") is not throughput
    feeds = {info.name: np.zeros((2, *info.shape[1:]), np.float32) for info in engine.inputs}
    engine.run_many(feeds, 3)


def test_a_device_that_is_not_here_is_the_files_own(graph):
    path = built(graph)
    write_sidecar(
        path, replace(read_engine(path), targets=("NOPE",), arguments=("--engine", "openvino", "--target", "NOPE"))
    )
    with pytest.raises(TargetError, match="no device 'NOPE' here") as caught:
        CompiledEngine(path)
    assert caught.value.where == str(path)
    assert (caught.value.fix or "").endswith(f"build {graph} --engine openvino")


def test_an_engine_that_did_not_build_the_file_does_not_run_it(graph):
    path = built(graph)
    with pytest.raises(InputError, match="not openvino:GPU"):
        open_file(path, engine="openvino:GPU", batch=1)
    assert open_file(path, engine="openvino:cpu", batch=1).name == "openvino (CPU)"


def test_a_file_that_was_changed_never_reaches_openvino(graph, caplog):
    # Its reader takes a file with foreign weights in the middle, and computes with them.
    path = built(graph)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="not the one its sidecar describes"):
        CompiledEngine(path)
    # The graph runs in its place, and that is no secret.
    assert find_compiled(graph, "CPU") is None
    assert [item.levelname for item in caplog.records] == ["WARNING"]
    assert "not the one its sidecar describes" in caplog.text


def test_a_file_without_its_sidecar_is_refused(graph, caplog):
    path = built(graph)
    sidecar_of(path).unlink()
    assert find_compiled(graph, "CPU") is None
    assert "no readable sidecar" in caplog.text
    with pytest.raises(ArtifactError, match="no readable sidecar"):
        open_file(path, batch=1)


@pytest.mark.parametrize("place", [".", "a/b/../..", "file/x.engine"])
def test_a_place_without_a_name_or_a_directory_is_refused_and_nothing_is_made(graph, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError):
        api.build(graph, engine="openvino", output=place)
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_else_is_replaced(graph):
    path = builder.compiled_path(graph, "CPU").with_name("mine.bin")
    path.write_text("mine")
    with pytest.raises(OutputError, match="not replaced"):
        api.build(graph, engine="openvino", output=path)
    assert path.read_text() == "mine"


def test_a_graph_that_is_replaced_meanwhile_is_told(graph, monkeypatch):
    real = builder.contents_of

    def replacing(compiled):
        shutil.copy(og.save(og.perceptron(), graph.with_name("other.onnx")), graph)
        return real(compiled)

    monkeypatch.setattr(builder, "contents_of", replacing)
    with pytest.raises(OutputError, match="replaced while the engine was built"):
        api.build(graph, engine="openvino")
    assert not builder.compiled_path(graph, "CPU").exists()


def test_a_float32_graph_in_another_precision_is_no_engine(graph, monkeypatch):
    real = builder.contents_of
    wrong = (MatrixOp("fc/MatMul", "bf16"),)
    monkeypatch.setattr(builder, "contents_of", lambda compiled: replace(real(compiled), matrix_ops=wrong))
    with pytest.raises(api.CheckFailedError, match=r"the first in bf16: fc/MatMul"):
        api.build(graph, engine="openvino")
    assert not builder.compiled_path(graph, "CPU").exists()


def test_a_file_that_onnx_runtime_optimized_for_itself_is_refused(graph):
    path = graph.with_name("model.fp32.onnxruntime.cpu.onnx")
    shutil.copy(graph, path)
    with pytest.raises(ArtifactError, match="optimized for ONNX Runtime"):
        api.build(path, engine="openvino")
    assert not builder.compiled_path(path, "CPU").exists()


def test_what_openvino_has_not_is_refused(graph):
    with pytest.raises(InputError, match="one device"):
        api.build(graph, engine="openvino", max_shapes={"x": (1, 2)})
    with pytest.raises(TargetError, match="no device 'NPU'"):
        api.build(graph, engine="openvino", targets=["NPU"])
    with pytest.raises(InputError, match=r"the file is in fp32[\s\S]*with --precision int8$"):
        api.build(graph, engine="openvino", precision="int8")
    with pytest.raises(InputError, match=r"the file is in fp32[\s\S]*export and quantize make fp32, fp16"):
        api.build(graph, engine="openvino", precision="bf16")
