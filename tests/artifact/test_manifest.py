"""What an artifact says of itself."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import replace

import pytest
from tiny_artifact import make_manifest, write_tiny

from s2mlp_deploy.artifact import (
    MANIFEST,
    CalibrationRecord,
    FileRecord,
    Hazard,
    PrecisionException,
    read_manifest,
)
from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.shift.origin import Origin
from s2mlp_deploy.shift.spec import ShiftGroup, ShiftSpec


def test_a_manifest_reads_back_as_it_was_written(tmp_path):
    written = write_tiny(tmp_path / "out")
    assert read_manifest(tmp_path / "out") == written
    assert written.files == (
        FileRecord("model.fp32.onnx", "fp32", hashlib.sha256(b"graph").hexdigest(), len(b"graph"), 7),
    )


def test_a_directory_without_a_manifest_is_no_artifact(tmp_path):
    with pytest.raises(ArtifactError, match=r"not an artifact.*\n.*manifest\.json\n.*s2mlp-deploy export"):
        read_manifest(tmp_path)
    with pytest.raises(ArtifactError, match="not an artifact: File name too long"):
        read_manifest(tmp_path / ("x" * 300))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "damaged"),
        (b"not json", "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"[]", "damaged"),
        (b"null", "damaged"),
        (b'{"schema_version": 1}', "damaged.*shifts"),
        (b'{"schema_version": 2}', "damaged.*missing required field"),
        (b'{"schema_version": 3}', "schema version 3, this package reads 1 and 2"),
        (b"{}", "schema version None"),
        (b'{"schema_version": "%s"}' % (b"9" * 5000), "schema version '999"),
    ],
)
def test_a_manifest_that_cannot_be_read_says_why_and_what_to_do(tmp_path, content, says):
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(ArtifactError, match=says) as caught:
        read_manifest(tmp_path)
    assert str(tmp_path / MANIFEST) in str(caught.value)
    assert "export again" in str(caught.value)
    assert len(caught.value.problem) < 1000


@pytest.mark.parametrize(
    ("field", "value"), [("opset", "twenty"), ("files", {}), ("inputs", [{"name": "x"}]), ("name", None)]
)
def test_a_field_of_another_type_is_named(tmp_path, field, value):
    write_tiny(tmp_path)
    document = json.loads((tmp_path / MANIFEST).read_text())
    document[field] = value
    (tmp_path / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match=rf"damaged.*\$\.{field}"):
        read_manifest(tmp_path)


def test_a_precision_that_is_not_there_lists_those_that_are():
    manifest = make_manifest(files=(FileRecord("model.fp32.onnx", "fp32", "", 0, 0),))
    assert manifest.file("fp32").path == "model.fp32.onnx"
    with pytest.raises(ArtifactError, match=r"no fp16 file\n.*fp32"):
        manifest.file("fp16")


def test_metadata_holds_neither_files_nor_anything_the_files_decide():
    manifest = make_manifest(files=(FileRecord("model.fp32.onnx", "fp32", "hash", 9, 9),))
    document = json.loads(manifest.timeless("fp16"))
    assert document["precision"] == "fp16"
    assert "files" not in document
    assert manifest.timeless("fp32") == make_manifest().timeless("fp32")


def test_metadata_speaks_of_its_own_file_only():
    exceptions = tuple(
        PrecisionException(f"layer of {name}", "fp32", "why", f"model.{name}.onnx") for name in ("fp16", "int8")
    )
    record = CalibrationRecord("data", "hash", 8, 0, 0, "entropy", ("model.fp16.onnx", "model.int8.onnx"))
    both = make_manifest(precision_exceptions=exceptions, calibration=record)
    told = {name: json.loads(both.timeless(name)) for name in ("fp32", "fp16", "int8", "int8-trt")}
    assert [item["layer"] for item in told["int8"]["precision_exceptions"]] == ["layer of int8"]
    assert told["fp32"]["precision_exceptions"] == told["int8-trt"]["precision_exceptions"] == []
    assert told["fp32"]["calibration"] is told["int8-trt"]["calibration"] is None
    assert told["int8"]["calibration"]["files"] == ["model.int8.onnx"]
    assert [told[name]["calibration"]["method"] for name in ("fp16", "int8")] == ["maxima", "entropy"]
    # Nothing of it depends on what else was made, nor on the files' own bytes.
    alone = replace(both, precision_exceptions=exceptions[1:], calibration=replace(record, files=("model.int8.onnx",)))
    assert alone.timeless("int8") == both.timeless("int8")
    filed = replace(both, files=(FileRecord("model.int8.onnx", "int8", "0", 1, 1),))
    assert filed.timeless("int8") == both.timeless("int8")


def test_manifests_of_version_1_are_read_in_todays_fields(tmp_path):
    spec = {"groups": [{"channels": 4, "offsets": [1, 0]}], "axes": [2, 3], "channel_axis": 1, "border": "edge"}
    shift = {"where": "net.move", "line": "net.py:7", "spec": spec, "spelling": "roll", "form": "gather", "nodes": 3}
    race = {
        "kind": "race",
        "where": "net.py:8",
        "code": "x[1:] = x[:-1]",
        "writes": 2,
        "cells": 9,
        "effect": {"1": 0.5},
    }
    clone = {"kind": "compiler", "where": "", "code": "", "writes": 1, "cells": 4, "effect": None}
    old = {
        "name": "net",
        "source": {"reference": "net.py:make"},
        "preprocessing": None,
        "classes": None,
        "inputs": [{"name": "x", "dtype": "float32", "shape": [1]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": [1]}],
        "opset": 20,
        "shifts": [shift],
        "tools": {},
        "hazards": [race, clone],
        "schema_version": 1,
    }
    (tmp_path / "manifest.json").write_text(json.dumps(old))
    manifest = read_manifest(tmp_path)
    assert manifest.schema_version == 2
    (record,) = manifest.shifts
    assert record.spec == ShiftSpec((ShiftGroup(4, (1, 0)),), (2, 3), 1, "edge")
    assert record.origin == Origin("net.move", "net.py:7", idiom="roll")
    assert (record.form, record.nodes) == ("gather", 3)
    assert manifest.hazards == (
        Hazard("race", "net.py:8", "x[1:] = x[:-1]", 2, 9, {"1": 0.5}),
        Hazard("compiler", "", "", 1, 4),
    )


def test_a_specification_that_contradicts_itself_is_damage(tmp_path):
    spec = {"groups": [], "axes": [2, 3], "channel_axis": 1, "border": "keep"}
    fields = {
        "name": "n",
        "source": {"reference": "r"},
        "preprocessing": None,
        "classes": None,
        "tools": {},
        "opset": 20,
    }
    data = {
        **fields,
        "inputs": [{"name": "x", "dtype": "float32", "shape": [1]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": [1]}],
        "shifts": [{"spec": spec, "origin": {}}],
        "schema_version": 2,
    }
    (tmp_path / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(ArtifactError, match=r"damaged.*at least one channel group"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("field", ["inputs", "outputs"])
def test_an_artifact_without_inputs_or_outputs_is_none(tmp_path, field):
    write_tiny(tmp_path)
    document = json.loads((tmp_path / MANIFEST).read_text())
    document[field] = []
    (tmp_path / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match="names no input, or no output"):
        read_manifest(tmp_path)


def nested(path):
    path.write_bytes(b"[" * 100_000)


def huge(path):
    with path.open("wb") as stream:
        stream.truncate(500 * 2**20)


def endless(path):
    path.symlink_to("/dev/zero")


def looped(path):
    path.symlink_to(path.name)


@pytest.mark.parametrize("make", [nested, huge, endless, looped, os.mkfifo, os.mkdir])
def test_what_would_hang_or_fill_the_memory_is_refused_at_once(tmp_path, make):
    make(tmp_path / MANIFEST)
    start = time.process_time()
    with pytest.raises(ArtifactError) as caught:
        read_manifest(tmp_path)
    assert caught.value.fix
    assert time.process_time() - start < 1


def test_a_file_whose_name_no_file_can_have_is_damage(tmp_path):
    write_tiny(tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"model.fp32.onnx", b"x" * 300))
    with pytest.raises(ArtifactError, match="no file of its directory"):
        read_manifest(tmp_path / "out")
