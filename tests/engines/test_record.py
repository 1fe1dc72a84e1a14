"""The sidecar: what an engine is checked against before it is loaded."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import onnx_graphs as og
import pytest
import report_samples

from s2mlp_deploy.engines.record import (
    build_again,
    check_runs_here,
    gpu_warning,
    mismatches,
    read_engine,
    this_platform,
    write_engine,
    write_sidecar,
)
from s2mlp_deploy.engines.sidecar import layers_of, runtime_cache_of, sidecar_of
from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.gpu import Gpu

pytest.importorskip("tensorrt_rtx")
from s2mlp_deploy import api


@pytest.fixture
def built(tmp_path):
    graph = og.save(og.perceptron(metadata={"precision": "fp32"}), tmp_path / "model.fp32.onnx")
    record = api.build(graph, targets=["sm86", "sm89"])
    return tmp_path / record.engine, record


def test_a_whole_engine_is_read(built):
    engine, record = built
    assert engine.name == "model.fp32.tensorrt-rtx.sm86-sm89.engine"
    assert read_engine(engine) == record
    assert json.loads(sidecar_of(engine).read_text())["key"] == record.key


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b"", bytes.upper])
def test_a_tampered_engine_is_refused_with_the_command_that_rebuilds(built, change):
    engine, record = built
    engine.write_bytes(change(engine.read_bytes()))
    with pytest.raises(ArtifactError, match="not the one its sidecar describes") as caught:
        read_engine(engine)
    graph = shlex.quote(str(engine.parent / record.onnx))
    again = record.command.replace(f" {record.onnx} ", f" {graph} ")
    assert f"build it again: {again}" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no readable sidecar"),
        (b"", "damaged"),
        (b"[]", "it holds no JSON object"),
        (b'{"kind": "build", "schema_version": 2}', "damaged"),
        (b'{"kind": "build", "schema_version": 7}', "schema version 7, this package reads 2"),
        (b'{"kind": "parity", "schema_version": 2}', "its kind is 'parity', not 'build'"),
        (b'{"schema_version": 1}', "an older version wrote it"),
    ],
)
def test_a_sidecar_that_cannot_be_read_says_why(built, content, says):
    engine, _ = built
    sidecar_of(engine).unlink()
    if content is not None:
        sidecar_of(engine).write_bytes(content)
    with pytest.raises(ArtifactError, match=says):
        read_engine(engine)


def test_an_engine_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"no such engine file[\s\S]*nothing.engine"):
        read_engine(tmp_path / "nothing.engine")


def test_what_does_not_match_is_said_field_by_field(built):
    engine, record = built
    assert mismatches(record, version=record.version, capability="sm89") == ()
    assert mismatches(record, version=None, capability=None) == ()
    foreign = replace(record, platform="windows-AMD64", version="1.6.0.1", targets=("sm75",))
    found = {
        item.field: (item.built, item.here) for item in mismatches(foreign, version="1.7.1.116", capability="sm120")
    }
    assert found == {
        "platform": ("windows-AMD64", this_platform()),
        "version": ("1.6.0.1", "1.7.1.116"),
        "targets": ("sm75", "sm120"),
    }
    with pytest.raises(
        ArtifactError, match=r"version: built for 1\.6\.0\.1, here is 1\.7\.1\.116[\s\S]*build it again"
    ):
        check_runs_here(engine, foreign, version="1.7.1.116", capability=None)


@pytest.mark.parametrize(("compatible", "loads"), [(True, True), (False, False)])
def test_the_versions_of_an_engine_follow_its_flavour(built, compatible, loads):
    record = replace(built[1], flavour="tensorrt", version="10.16.1", flags={"version_compatible": compatible})
    assert (mismatches(record, version="11.4.0", capability=None) == ()) == loads
    rtx = replace(record, flavour="tensorrt-rtx", version="1.6.0")
    assert mismatches(rtx, version="1.7.0", capability=None) != ()


def test_an_fp8_engine_does_not_run_on_ampere(built):
    told = replace(built[1], targets=("sm89",), precision="fp8", flags={"hardware_compatible": "ampere+"})
    # Of a file that states no precision its layers tell.
    for record in (told, replace(told, precision=None, layer_dtypes={"fp8": 2, "half": 9})):
        assert mismatches(record, version=None, capability="sm90") == ()
        assert [item.field for item in mismatches(record, version=None, capability="sm86")] == ["targets"]


def test_another_gpu_of_the_same_capability_is_a_warning(built, monkeypatch):
    engine, record = built
    record = replace(record, gpu="NVIDIA GeForce RTX 4060")
    assert gpu_warning(record, "NVIDIA GeForce RTX 4060") == ""
    assert gpu_warning(replace(record, gpu=None), "NVIDIA L4") == ""
    assert "chosen on NVIDIA GeForce RTX 4060" in gpu_warning(record, "NVIDIA GeForce RTX 4090")
    assert mismatches(record, version=record.version, capability="sm89") == ()
    write_sidecar(engine, record)
    here = [Gpu("NVIDIA T4", "sm75", "580", 1), Gpu("NVIDIA GeForce RTX 4090", "sm89", "580", 1)]
    monkeypatch.setattr("s2mlp_deploy.api.engines.gpus", lambda: tuple(here))
    found = api.inspect_engine(engine)
    # The second GPU runs it: that the first one does not is no mismatch.
    assert found.mismatches == ()
    assert len(found.warnings) == 1
    here.append(Gpu("NVIDIA GeForce RTX 4060", "sm89", "580", 1))
    assert api.inspect_engine(engine).warnings == ()
    del here[1:]
    assert [item.field for item in api.inspect_engine(engine).mismatches] == ["targets"]


def test_what_lies_beside_an_engine_goes_with_it(built):
    engine, record = built
    layers_of(engine).write_text("{}")
    runtime_cache_of(engine).write_bytes(b"kernels")
    write_engine(engine, memoryview(b"plan"), record, layers='{"Layers": []}')
    assert layers_of(engine).read_text() == '{"Layers": []}'
    assert not runtime_cache_of(engine).exists()
    write_engine(engine, memoryview(b"plan"), record)
    assert not layers_of(engine).exists()


@pytest.mark.parametrize(
    ("level", "capability", "runs"), [("none", "sm120", False), ("ampere+", "sm120", True), ("ampere+", "sm75", False)]
)
def test_hardware_compatible_engines_run_on_later_gpus(built, level, capability, runs):
    record = replace(built[1], targets=("sm86",), flags={"hardware_compatible": level})
    assert (mismatches(record, version=None, capability=capability) == ()) == runs


def test_the_sidecar_never_says_cached(built):
    engine, record = built
    write_sidecar(engine, replace(record, cached=True))
    assert not read_engine(engine).cached


def test_inspecting_tells_what_differs_here(built):
    engine, record = built
    found = api.inspect_engine(engine)
    assert found.file == engine.name
    assert found.mismatches == ()
    write_sidecar(engine, replace(record, version="1.6.0.1"))
    assert [item.field for item in api.inspect_engine(engine).mismatches] == ["version"]


def test_layers_beside_an_engine_are_inspected_and_damaged_ones_hide_nothing(built, caplog):
    engine, _ = built
    layers_of(engine).write_text('{"Layers": ["fc/MatMul"], "Bindings": ["image"]}')
    found = api.inspect_engine(engine).layers
    assert found is not None
    assert [(layer.op, layer.module) for layer in found.layers] == [("MatMul", "fc")]
    layers_of(engine).write_text('{"Layers": ["fc')
    assert api.inspect_engine(engine).layers is None
    assert "cannot be read" in caplog.text
    layers_of(engine).unlink()
    assert api.inspect_engine(engine).layers is None


@pytest.mark.parametrize("flag", [5, True, [], {"a": 1}, None, 0.5])
@pytest.mark.parametrize("target", ["smx", "", "sm\u00b2", "sm" + "9" * 5000])
def test_flags_and_targets_that_nobody_writes_only_do_not_match(flag, target):
    written = replace(report_samples.build(), targets=(target,), precision="fp8")
    for level in ("ampere+", flag):
        record = replace(
            written, flags={"instructions": flag, "hardware_compatible": level, "version_compatible": flag}
        )
        assert "targets" in {item.field for item in mismatches(record, version="1", capability="sm89")}


@pytest.mark.parametrize("version", ["9" * 5000, "10." + "9" * 5000, "", "x", "1." * 3000])
def test_versions_that_nobody_has_do_not_match(version):
    found = mismatches(replace(report_samples.build(), version=version), version="1.7.1.116", capability=None)
    assert "version" in {item.field for item in found}


def test_a_graph_whose_name_no_file_can_have_is_not_looked_for(tmp_path):
    record = replace(report_samples.build(), onnx="x" * 300)
    assert "in the folder of" in build_again(tmp_path / "a.engine", record)
