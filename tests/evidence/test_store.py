"""Evidence is read back as it was written, or refused by name; it never raises anything else."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import math
import os
import shlex
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from report_samples import accuracy, bench, build, calibration, engine_layers, layers, modules, on_noise, report, tune

from s2mlp_deploy import api
from s2mlp_deploy.cli.main import app
from s2mlp_deploy.errors import ArtifactError, OutputError
from s2mlp_deploy.evidence import store
from s2mlp_deploy.evidence.accuracy import AccuracyReport
from s2mlp_deploy.evidence.calibration import CalibrationReport
from s2mlp_deploy.evidence.parity import ParityReport
from s2mlp_deploy.evidence.store import (
    KINDS,
    Kind,
    decode,
    encode,
    kind_of,
    read_evidence,
    read_record,
    save_record,
)
from s2mlp_deploy.evidence.tune import TuneReport

RECORDS = {
    "parity": report(),
    "accuracy": accuracy(),
    "calibration": calibration(),
    "build": build(),
    "bench": bench(),
    "layers": layers(),
    "engine-layers": engine_layers(),
    "modules": modules(),
    "tune": tune(),
}


def test_there_is_a_sample_of_every_kind() -> None:
    assert {kind.name for kind in KINDS} == set(RECORDS)
    assert all(kind_of(type(record)).name == name for name, record in RECORDS.items())


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_read_back_as_it_was_written(name: str, tmp_path: Path) -> None:
    record = RECORDS[name]
    path = save_record(tmp_path, record, "model.fp32")
    assert path.parent == tmp_path / "evidence"
    assert decode(path.read_bytes(), type(record)) == record
    (saved,) = read_evidence(tmp_path).saved
    assert (saved.name, saved.record) == (path.name, record)


@pytest.mark.parametrize("name", RECORDS)
def test_a_document_names_its_kind_and_version(name: str) -> None:
    document = json.loads(encode(RECORDS[name]))
    assert (document["kind"], document["schema_version"]) == (name, kind_of(type(RECORDS[name])).version)
    assert set(document) - {"kind", "schema_version"} == {f.name for f in dataclasses.fields(RECORDS[name])}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_hold_reads_as_none(value: float) -> None:
    (row, *rest) = accuracy().rows
    record = dataclasses.replace(accuracy(), rows=(dataclasses.replace(row, score=value), *rest))
    assert decode(encode(record), AccuracyReport).rows[0].score is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kind": "accuracy"}, "its kind is 'accuracy', not 'parity'"),
        ({"schema_version": 1}, "schema version 1, this package reads 3"),
        ({"schema_version": 99}, "schema version 99, this package reads 3"),
        ({"schema_version": None}, "schema version None"),
        ({"schema_version": "9" * 5000}, "schema version '999"),
        ({"kind": "x" * 5000}, "its kind is 'xxx"),
        ({"images": "many"}, r"it is damaged: .*images"),
        ({"outputs": [{"name": "logits"}]}, r"it is damaged: .*metrics"),
    ],
)
def test_another_kind_version_or_type_is_refused_by_name(changes: dict[str, Any], says: str) -> None:
    document = json.dumps(json.loads(encode(report())) | changes).encode()
    with pytest.raises(ArtifactError, match=says) as caught:
        decode(document, ParityReport)
    assert len(str(caught.value)) < 1000


def test_a_document_of_an_older_version_is_refused_by_name() -> None:
    document = json.loads(encode(report()))
    del document["kind"], document["schema_version"]
    with pytest.raises(ArtifactError, match="an older version wrote it"):
        decode(json.dumps(document).encode(), ParityReport)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_refusal_names_the_command_that_measures_anew(kind: Kind) -> None:
    document = json.dumps({"kind": kind.name, "schema_version": 0}).encode()
    with pytest.raises(ArtifactError, match="schema version 0") as caught:
        decode(document, kind.record)
    command = caught.value.fix.partition(": ")[2]
    assert command == kind.renewal()
    name, *words = shlex.split(kind.renewal("some-artifact"))[1:]
    assert "some-artifact" in words
    typer.main.get_command(app).commands[name].make_context(name, words)


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("build-model.fp32.openvino.cpu.json", "build out/model.fp32.onnx --engine openvino --target cpu"),
        (
            "build-model.int8-trt.tensorrt-rtx.sm86-sm89.json",
            "build out/model.int8-trt.onnx --engine tensorrt-rtx --target sm86 --target sm89",
        ),
        ("build-mine.json", "build out"),
        ("build-a b.openvino.cpu.json", "build out"),
        ("engine-layers-layers.json", "inspect LAYERS.json --artifact out"),
        ("modules-model.fp16.json", "export SOURCE --output out --force"),
        ("modules-model.int8.json", "quantize out --data IMAGES"),
        ("modules-model.fp8-trt.json", "quantize out --data IMAGES --precision fp8"),
    ],
)
def test_the_command_that_measures_anew_is_of_what_the_document_is_of(file: str, command: str) -> None:
    kind = next(kind for kind in KINDS if kind.owns(file))
    assert kind.renewal("out", file) == f"s2mlp-deploy {command}"
    name, *words = shlex.split(command)
    typer.main.get_command(app).commands[name].make_context(name, words)


def test_what_would_not_be_read_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(store.LIMITS, "evidence", 64)
    with pytest.raises(OutputError, match="build record would have"):
        save_record(tmp_path, build(), "x")
    assert not (tmp_path / "evidence").exists()


def test_the_evidence_of_what_is_no_artifact_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not an artifact"):
        api.read_evidence(tmp_path / "typo")


def test_documents_of_older_versions_are_migrated_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 1 called the clock a timer, and version 2 knew no notes."""
    record = dataclasses.replace(tune(), notes=())
    values = json.loads(encode(record))
    second = {name: value for name, value in values.items() if name != "notes"} | {"schema_version": 2}
    first = {name: value for name, value in second.items() if name != "clock"} | {"schema_version": 1, "timer": "cpu"}
    steps = {
        1: lambda old: {name: value for name, value in old.items() if name != "timer"} | {"clock": old["timer"]},
        2: lambda old: old | {"notes": []},
    }
    kinds = [dataclasses.replace(kind, version=3, migrations=steps) if kind.name == "tune" else kind for kind in KINDS]
    monkeypatch.setattr(store, "KINDS", tuple(kinds))
    for older in (first, second):
        assert decode(json.dumps(older).encode(), TuneReport) == record
    del first["timer"]
    with pytest.raises(ArtifactError, match="damaged"):
        decode(json.dumps(first).encode(), TuneReport)
    # A step meets whatever stands in its fields.
    steps[1] = lambda old: old | {"clock": old["choices"].get("clock") or old["candidates"][99]}
    for choices in ([], {}):
        with pytest.raises(ArtifactError, match="damaged"):
            decode(json.dumps(first | {"choices": choices, "candidates": []}).encode(), TuneReport)
    with pytest.raises(ArtifactError, match="schema version 0, this package reads 3"):
        decode(json.dumps(first | {"schema_version": 0}).encode(), TuneReport)


def test_fields_of_a_later_version_are_ignored() -> None:
    document = json.dumps(json.loads(encode(report())) | {"later": {"layers": [1]}}).encode()
    assert decode(document, ParityReport) == report()


def test_scores_without_a_row_are_refused() -> None:
    document = json.dumps(json.loads(encode(accuracy())) | {"rows": []}).encode()
    with pytest.raises(ArtifactError, match="it has no row"):
        decode(document, AccuracyReport)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything inside a JSON value; of a list only its first item."""
    items = value.items() if isinstance(value, dict) else list(enumerate(value))[:1] if isinstance(value, list) else ()
    return [path, *(found for key, item in items for found in leaves(item, (*path, key)))]


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("value", [None, "text", -1, 1e400, [], {}, 10**40, True])
def test_any_value_in_any_place_is_read_or_refused(name: str, value: Any) -> None:
    record = RECORDS[name]
    whole = json.loads(encode(record))
    for path in leaves(whole)[1:]:
        data = copy.deepcopy(whole)
        place = data
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        # Anything but an ArtifactError would break the report.
        with contextlib.suppress(ArtifactError):
            assert type(decode(json.dumps(data).encode(), type(record))) is type(record), path


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"[" * 100_000, b"{}"])
def test_damage_is_listed_with_the_kind_it_should_be_and_hides_nothing(damage: bytes, tmp_path: Path) -> None:
    save_record(tmp_path, report(), "whole")
    for name in ("parity-a.json", "accuracy-a.json", "build-a.json", "calibration.json"):
        (tmp_path / "evidence" / name).write_bytes(damage)
    found = read_evidence(tmp_path)
    assert [saved.record for saved in found.saved] == [report()]
    assert [(item.name, kind_of(item.record).name) for item in found.unreadable] == [
        ("accuracy-a.json", "accuracy"),
        ("build-a.json", "build"),
        ("calibration.json", "calibration"),
        ("parity-a.json", "parity"),
    ]
    assert all(item.problem for item in found.unreadable)
    assert read_record(tmp_path, CalibrationReport) is None


def test_files_of_unknown_kinds_are_named_and_files_being_written_are_not(tmp_path: Path) -> None:
    save_record(tmp_path, accuracy())
    for name in ("notes.txt", "parity.json", "paritylike.json", "calibration-b.json", ".accuracy.json.1.tmp"):
        (tmp_path / "evidence" / name).write_text("{}")
    found = read_evidence(tmp_path)
    assert found.others == ("calibration-b.json", "notes.txt", "parity.json", "paritylike.json")
    assert found.one(AccuracyReport) == accuracy()
    assert found.of(ParityReport) == ()
    assert found.unreadable == ()


def test_a_directory_without_evidence_has_none(tmp_path: Path) -> None:
    assert read_evidence(tmp_path).saved == ()
    assert read_record(tmp_path, CalibrationReport) is None


def test_a_folder_in_a_documents_place_is_listed(tmp_path: Path) -> None:
    (tmp_path / "evidence" / "accuracy-a.json").mkdir(parents=True)
    (item,) = read_evidence(tmp_path).unreadable
    assert item.problem.startswith("it cannot be read")


def test_a_record_replaces_the_earlier_one_whole(tmp_path: Path) -> None:
    for images in (1, 2):
        path = save_record(tmp_path, dataclasses.replace(report(), images=images), "a")
    assert decode(path.read_bytes(), ParityReport).images == 2
    assert [item.name for item in path.parent.iterdir()] == ["parity-a.json"]


def test_comparisons_of_one_file_stay_side_by_side_and_an_older_version_of_them_goes(tmp_path: Path) -> None:
    """Noise takes nothing away from images; what an earlier version kept under the file's name alone is replaced."""
    folder = tmp_path / "evidence"
    folder.mkdir()
    (folder / "parity-model.fp32.json").write_text('{"kind": "parity", "schema_version": 2}')
    (folder / "parity-other.json").write_text('{"kind": "parity", "schema_version": 2}')
    for record in (report(), on_noise(), report()):
        save_record(tmp_path, record, record.label)
    found = read_evidence(tmp_path)
    assert {item.record.noise for item in found.of(ParityReport)} == {False, True}
    assert len(found.of(ParityReport)) == 2
    assert [item.name for item in found.unreadable] == ["parity-other.json"]


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "evidence").write_text("a file")
    with pytest.raises(OutputError):
        save_record(tmp_path, report(), "a")


def test_documents_that_would_hang_or_fill_the_memory_are_listed_and_left_out(tmp_path):
    folder = tmp_path / "evidence"
    folder.mkdir()
    os.mkfifo(folder / "accuracy-a.json")
    (folder / "calibration.json").write_bytes(b"[" * 100_000)
    with (folder / "build-x.json").open("wb") as stream:
        stream.truncate(500 * 2**20)
    start = time.process_time()
    problems = {item.name: item.problem for item in read_evidence(tmp_path).unreadable}
    assert time.process_time() - start < 1
    assert "no regular file" in problems["accuracy-a.json"]
    assert "nested too deeply" in problems["calibration.json"]
    assert "500 MiB" in problems["build-x.json"]
