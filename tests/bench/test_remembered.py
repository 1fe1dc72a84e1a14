"""What was tuned is remembered by machine and by the network's shape, and losing it ends nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from report_samples import bench

from s2mlp_deploy.bench.remembered import Found, machine_key, memory_file, model_key, recall, remember

HERE = bench().environment.machine
FAST = Found("fp32", "openvino", "channels-first", "grouped-conv", 0.8)
PLAIN = Found("fp32", "onnxruntime", "channels-last", "pad-slice", 0.95)


def test_the_fastest_that_can_run_here_is_recalled():
    remember("a", [PLAIN, FAST, replace(FAST, number_type="int8", ratio=0.3)], time="1", machine=HERE)
    assert recall("a", "fp32", ["openvino", "onnxruntime"], machine=HERE) == FAST
    assert recall("a", "fp32", ["onnxruntime"], machine=HERE) == PLAIN
    assert recall("a", "fp32", [], machine=HERE) is None
    named = replace(FAST, engine="openvino:CPU")
    remember("c", [named], time="1", machine=HERE)
    assert recall("c", "fp32", ["openvino"], machine=HERE) == named
    assert recall("b", "fp32", ["openvino"], machine=HERE) is None
    assert recall("a", "fp32", ["openvino"], machine=replace(HERE, logical_cores=64, allowed_cores=64)) is None
    assert machine_key(HERE) == machine_key(replace(HERE, python="3.99", system="another kernel"))


def test_a_later_tuning_takes_the_place_of_an_earlier_one_of_the_same():
    remember("b", [PLAIN], time="1", machine=HERE)
    remember("a", [PLAIN], time="2", machine=HERE)
    remember("a", [FAST], time="3", machine=HERE)
    assert recall("a", "fp32", ["onnxruntime"], machine=HERE) is None
    assert recall("b", "fp32", ["onnxruntime"], machine=HERE) == PLAIN
    assert len(json.loads(memory_file().read_bytes())["entries"]) == 2
    assert [path.name for path in memory_file().parent.iterdir()] == ["tuned.json"], "no lock stays"


def test_the_layout_and_the_classes_are_no_part_of_a_networks_shape():
    config = {"dims": [64], "layout": "channels-last", "classes": 10}
    assert model_key(config, ()) == model_key(config | {"layout": "channels-first", "classes": 1000}, ())
    assert model_key(config, ()) != model_key(config | {"dims": [65]}, ())
    assert model_key({}, [([1, 2], "keep")]) != model_key({}, [([1, 3], "keep")])


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"schema_version": 9}', b'{"entries": [1]}'])
def test_a_damaged_memory_counts_as_none_and_is_written_anew(damage, caplog):
    memory_file().parent.mkdir(parents=True)
    memory_file().write_bytes(damage)
    assert recall("a", "fp32", ["openvino"], machine=HERE) is None
    assert (b"9" in damage) != bool(caplog.messages)
    remember("a", [FAST], time="1", machine=HERE)
    assert recall("a", "fp32", ["openvino"], machine=HERE) == FAST


def test_a_cache_that_cannot_be_written_is_told_and_ends_nothing(monkeypatch, caplog, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    remember("a", [FAST], time="1", machine=HERE)
    assert "not remembered" in caplog.text
    assert recall("a", "fp32", ["openvino"], machine=HERE) is None


@pytest.mark.parametrize("reason", ["no home", "a folder that may not be looked into"])
def test_a_user_without_caches_is_told_and_nothing_ends(monkeypatch, caplog, reason):
    if reason == "no home":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "expanduser", lambda _: (_ for _ in ()).throw(RuntimeError("no home")))
    else:
        # The same error class for everybody, the system's administrator too: a name that no file can have.
        monkeypatch.setenv("XDG_CACHE_HOME", "/" + "x" * 300)
    assert recall("a", "fp32", ["openvino"], machine=HERE) is None
    assert caplog.messages == []
    remember("a", [FAST], time="1", machine=HERE)
    assert "not remembered" in caplog.text


def test_a_relative_cache_counts_as_none(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setenv("HOME", "/home")
    assert memory_file() == Path("/home/.cache/s2mlp-deploy/tuned.json")
