"""Real TensorRT-RTX builds, which need no GPU."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import nano_artifact
import onnx_graphs as og
import pytest

from s2mlp_deploy.errors import (
    ArtifactError,
)
from s2mlp_deploy.files import sha256_of

pytest.importorskip("tensorrt_rtx")
pytest.importorskip("onnx_ir")
import tensorrt_rtx as trt

from s2mlp_deploy import api
from s2mlp_deploy.engines import record as records
from s2mlp_deploy.engines.record import read_engine
from s2mlp_deploy.engines.sidecar import sidecar_of
from s2mlp_deploy.engines.tensorrt import builder
from s2mlp_deploy.engines.tensorrt.options import BuildOptions
from s2mlp_deploy.evidence.build import MatrixOp

SHAPE = {"input": (2, 8)}


def test_the_digit_network_becomes_an_engine_with_sidecar_and_evidence(artifact):
    before = nano_artifact.snapshot(artifact).keys()
    record = api.build(artifact / "model.fp32.onnx", targets=["sm89"])
    engine = artifact / "model.fp32.tensorrt-rtx.sm89.engine"
    evidence = "evidence/build-model.fp32.tensorrt-rtx.sm89.json"
    layers = f"{engine.name}.layers.json", "evidence/engine-layers-model.fp32.tensorrt-rtx.sm89.json"
    assert nano_artifact.snapshot(artifact).keys() - before == {engine.name, f"{engine.name}.json", evidence, *layers}
    assert record.engine == engine.name
    assert record.bytes == engine.stat().st_size > 1_000_000
    assert record.engine_sha256 == sha256_of(engine)
    assert record.onnx_sha256 == sha256_of(artifact / "model.fp32.onnx")
    assert record.targets == ("sm89",)
    assert record.version == trt.__version__
    assert record.precision == "fp32"
    assert not record.cached
    (profile,) = record.profiles
    assert [shape[0] for shape in (profile["input"].min, profile["input"].opt, profile["input"].max)] == [
        1,
        8,
        32,
    ]
    # Strongly typed: nothing was lowered to half precision behind the user's back.
    assert record.layer_dtypes["float"] > 0
    assert set(record.layer_dtypes) <= {"float", "int32", "int64", "bool"}
    saved = json.loads((artifact / evidence).read_text())
    assert saved["engine_sha256"] == record.engine_sha256
    assert saved == json.loads(sidecar_of(engine).read_text())
    assert engine.name in (artifact / "report.html").read_text()
    assert read_engine(engine) == record


def test_a_second_build_is_instant_and_says_so(graph, monkeypatch):
    first = api.build(graph, targets=["sm89"])
    stamp = (graph.parent / first.engine).stat().st_mtime_ns

    def never(*_):
        raise AssertionError("it builds")

    monkeypatch.setattr(builder, "_build", never)
    second = api.build(graph, targets=["sm89"])
    assert second.cached
    assert second.key == first.key
    assert (graph.parent / first.engine).stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    "change",
    [
        {"max_shapes": SHAPE},
        {"options": BuildOptions(workspace=2**28)},
        {"options": BuildOptions(builder_optimization_level=5)},
        {"force": True},
    ],
    ids=str,
)
def test_whatever_determines_the_engine_builds_another_one(graph, change):
    first = api.build(graph, targets=["sm89"])
    second = api.build(graph, targets=["sm89"], **change)
    assert not second.cached
    assert (second.key == first.key) == ("force" in change)


def test_another_graph_or_a_damaged_engine_is_built_again(graph):
    record = api.build(graph, targets=["sm89"])
    engine = graph.parent / record.engine
    engine.write_bytes(engine.read_bytes() + b"x")
    assert not api.build(graph, targets=["sm89"]).cached
    sidecar_of(engine).write_text("{")
    assert not api.build(graph, targets=["sm89"]).cached
    og.save(og.perceptron(metadata={"precision": "fp32", "name": "other"}), graph)
    again = api.build(graph, targets=["sm89"])
    assert not again.cached
    assert again.onnx_sha256 != record.onnx_sha256


FORGED = {
    "another file": lambda record, raw: (record, b"MZ" + raw),
    "more layers": lambda record, raw: (replace(record, contents=replace(record.contents, layers=3897)), raw),
    "another precision of a layer": lambda record, raw: (
        replace(record, contents=replace(record.contents, matrix_ops=(MatrixOp("fc1/MatMul", "int8"),))),
        raw,
    ),
    "no contents": lambda record, raw: (replace(record, contents=None), raw),
    "another precision": lambda record, raw: (replace(record, precision="int8"), raw),
    "another graph": lambda record, raw: (replace(record, onnx_sha256="0" * 64), raw),
    "other shapes": lambda record, raw: (replace(record, profiles=()), raw),
    "another size": lambda record, raw: (replace(record, bytes=3), raw),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_file_is_not_found_because_its_sidecar_says_its_hash(graph, kind):
    first = api.build(graph, targets=["sm89"])
    engine = graph.parent / first.engine
    record, raw = FORGED[kind](read_engine(engine), engine.read_bytes())
    engine.write_bytes(raw)
    records.write_sidecar(engine, replace(record, engine_sha256=sha256_of(engine)))
    read_engine(engine)
    again = api.build(graph, targets=["sm89"])
    assert not again.cached
    assert (again.contents, again.precision) == (first.contents, "fp32")
    assert api.build(graph, targets=["sm89"]).cached


def test_options_only_tell_how_to_build_and_are_no_part_of_the_key(graph):
    first = api.build(graph, targets=["sm89"])
    assert api.build(graph, targets=["sm89"], options=BuildOptions(verbose=True)).key == first.key


def test_verbose_passes_on_what_the_library_says(graph, caplog):
    caplog.set_level(logging.WARNING, logger="s2mlp_deploy")
    api.build(graph, targets=["sm89"], options=BuildOptions(verbose=True))
    assert len(caplog.records) > 3


def test_two_profiles_two_targets_and_a_place_of_its_own(tmp_path):
    graph = og.save(og.perceptron(), tmp_path / "graph.onnx")
    output = tmp_path / "elsewhere" / "my engine.plan"
    record = api.build(
        graph,
        targets=["sm86", "sm89", "sm86"],
        output=output,
        min_shapes=[{"input": (1, 8)}, {"input": (64, 8)}],
        max_shapes=[{"input": (4, 8)}, {"input": (128, 8)}],
    )
    assert record.targets == ("sm86", "sm89")
    assert [profile["input"].max for profile in record.profiles] == [(4, 8), (128, 8)]
    assert record.precision is None
    assert nano_artifact.snapshot(tmp_path).keys() == {
        graph.name,
        "elsewhere/my engine.plan",
        "elsewhere/my engine.plan.json",
        "elsewhere/my engine.plan.layers.json",
    }
    assert record.command == (
        "s2mlp-deploy build graph.onnx --engine tensorrt-rtx --target sm86 --target sm89 "
        "--min-shapes input:1x8 --opt-shapes input:4x8 --max-shapes input:4x8 "
        "--min-shapes input:64x8 --opt-shapes input:128x8 --max-shapes input:128x8"
    )


def test_equal_builds_give_equal_bytes(graph):
    first = api.build(graph, targets=["sm86", "sm120"])
    assert api.build(graph, targets=["sm86", "sm120"], force=True).engine_sha256 == first.engine_sha256


def test_progress_is_told_phase_by_phase(graph):
    told = []
    api.build(graph, targets=["sm89"], progress=lambda *step: told.append(step))
    names = [name for name, _, _ in told]
    assert names.index("parsing the graph") < names.index("building engine") < names.index("writing the engine")
    assert any(total and done == total for _, done, total in told)


def test_weights_beside_the_graph_are_part_of_the_key_and_must_be_there(graph):
    import onnx

    large = graph.with_name("model.large.onnx")
    onnx.save(onnx.load(graph), large, save_as_external_data=True, location="model.large.onnx.data", size_threshold=0)
    data = graph.with_name("model.large.onnx.data")
    first = api.build(large, targets=["sm89"])
    assert api.build(large, targets=["sm89"]).cached
    weights = bytearray(data.read_bytes())
    weights[3] ^= 1
    data.write_bytes(weights)
    again = api.build(large, targets=["sm89"])
    assert not again.cached
    assert again.onnx_sha256 == first.onnx_sha256 == sha256_of(large)
    data.unlink()
    with pytest.raises(ArtifactError, match=r"weights beside the graph are missing[\s\S]*model\.large\.onnx\.data"):
        api.build(large, targets=["sm89"])
