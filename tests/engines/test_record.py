"""The sidecar: what an engine is checked against before it is loaded."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import onnx_graphs as og
import pytest

from s2mlp_deploy.engines.record import (
    check_runs_here,
    mismatches,
    read_engine,
    this_platform,
    write_sidecar,
)
from s2mlp_deploy.engines.sidecar import sidecar_of
from s2mlp_deploy.errors import ArtifactError

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


@pytest.mark.parametrize(
    ("compatible", "version", "here", "loads"),
    [
        (False, "10.3.0", "10.16.1", False),
        (True, "10.3.0", "10.16.1", True),
        (True, "10.16.1", "10.3.0", False),
        (True, "10.3.0", "11.4.0", False),
    ],
)
def test_version_compatible_engines_load_in_later_versions_of_a_major(built, compatible, version, here, loads):
    record = replace(built[1], version=version, flags={"version_compatible": compatible})
    assert (mismatches(record, version=here, capability=None) == ()) == loads


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
