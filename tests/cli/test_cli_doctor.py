"""``doctor DIR``: what would run, why, and what would make it slow."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import typer
from image_artifact import write_image_artifact
from proven import parity_of

from s2mlp_deploy.cli.main import app
from s2mlp_deploy.evidence.parity import Weights
from s2mlp_deploy.serving import hindrances

pytest.importorskip("onnxruntime")


def test_what_would_run_and_why(cli, tmp_path, monkeypatch):
    from s2mlp_deploy.api import diagnosing
    from s2mlp_deploy.serving.hindrances import Hindrance

    slow = Hindrance("spinning", "idle threads spin", "--no-spin")
    monkeypatch.setattr(diagnosing, "hindrances", lambda *_, **__: (slow,))
    write_image_artifact(tmp_path / "a")
    result = cli("doctor", tmp_path / "a")
    assert result.code == 0
    assert f"colours in {tmp_path / 'a'} would run" in result.told
    assert "model.fp32.onnx" in result.out
    assert "least changed file whose parity holds" in result.told
    assert "slow: idle threads spin: --no-spin" in result.told
    document = json.loads(cli("doctor", tmp_path / "a", "--json").out)
    assert document["engines"]
    found = document["artifact"]
    assert (found["name"], found["plan"]["file"], found["plan"]["basis"]) == ("colours", "model.fp32.onnx", "rule")
    assert found["hindrances"] == [{"kind": "spinning", "problem": "idle threads spin", "fix": "--no-spin"}]


def test_what_would_not_run_fails_the_check_and_says_what_to_do(cli, tmp_path):
    write_image_artifact(tmp_path / "a", proven=False)
    result = cli("doctor", tmp_path / "a")
    assert result.code == 1
    assert "would not run" in result.told
    assert "parity of model.fp32.onnx was not measured" in result.text
    assert "s2mlp-deploy parity tiny" in result.text
    document = cli("doctor", tmp_path / "a", "--json")
    assert json.loads(document.out)["artifact"]["plan"] is None
    refused = cli("predict", tmp_path / "a", "x.png")
    assert refused.code == 2
    assert "--allow-unproven" in refused.text


def test_an_engine_that_is_not_installed_would_not_run(cli, tmp_path, monkeypatch):
    from s2mlp_deploy.engines import onnxruntime

    def gone():
        raise ImportError

    monkeypatch.setattr(onnxruntime, "load_onnxruntime", gone)
    write_image_artifact(tmp_path / "a")
    result = cli("doctor", tmp_path / "a", "--engine", "onnxruntime")
    assert result.code == 1
    assert "would not run" in result.told
    assert "s2mlp-deploy[cpu]" in result.text


def test_an_engine_file_of_another_machine_would_not_run(cli, tmp_path, monkeypatch):
    from dataclasses import replace

    import report_samples

    from s2mlp_deploy.api import diagnosing
    from s2mlp_deploy.artifact import read_manifest
    from s2mlp_deploy.engines.record import write_engine
    from s2mlp_deploy.evidence.store import save_record
    from s2mlp_deploy.files import sha256_of

    root = tmp_path / "a"
    write_image_artifact(root)
    record = replace(report_samples.build(), onnx_sha256=read_manifest(root).files[0].sha256, precision="fp32")
    write_engine(root / record.engine, memoryview(b"engine"), record)
    record = replace(record, engine_sha256=sha256_of(root / record.engine))
    write_engine(root / record.engine, memoryview(b"engine"), record)
    save_record(root, record, "fp32")
    held = parity_of(record.engine, record.engine_sha256, candidate=record.flavour)
    save_record(root, replace(held, weights=Weights.of(read_manifest(root).source)))
    monkeypatch.setattr(diagnosing, "fits_here", lambda _: False)
    result = cli("doctor", root, "--engine", record.flavour)
    assert (result.code, "would not run" in result.told) == (1, True)
    assert f"inspect {root / record.engine}" in result.text
    monkeypatch.setattr(diagnosing, "fits_here", lambda _: True)
    assert cli("doctor", root, "--engine", record.flavour).code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nothing",), "not an artifact"),
        (("lone.onnx",), "s2mlp-deploy export lone.onnx --output DIR"),
        (("a/model.fp32.onnx",), "the one that it lies in: a"),
        (("--engine", "openvino"), "no artifact is named"),
        (("a", "--precision", "int8"), "no int8 file"),
        (("a", "--engine", "onnxruntime:nope"), "ONNX Runtime has no nope here"),
        (("a", "--engine", "openvino:nope"), "OpenVINO has no device 'nope' here"),
    ],
)
def test_bad_input_is_refused(refused, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    write_image_artifact(tmp_path / "a")
    shutil.copy(tmp_path / "a" / "model.fp32.onnx", "lone.onnx")
    assert says in refused("doctor", *arguments)


@pytest.mark.parametrize("command", ["predict", "batch", "serve"])
def test_what_is_advised_is_an_option_of_whatever_runs_an_artifact(command):
    advised = set(re.findall(r"--[a-z][a-z-]+", Path(hindrances.__file__).read_text()))
    known = {name for option in typer.main.get_command(app).commands[command].params for name in option.opts}
    assert "--no-spin" in advised
    assert advised <= known
