"""``doctor DIR``: what would run, why, and what would make it slow."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer
from image_artifact import write_image_artifact

from s2mlp_deploy.cli.main import app
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


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nothing",), "not an artifact"),
        (("--engine", "openvino"), "no artifact is named"),
        (("a", "--precision", "int8"), "no int8 file"),
    ],
)
def test_bad_input_is_refused(refused, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    write_image_artifact(tmp_path / "a")
    assert says in refused("doctor", *arguments)


@pytest.mark.parametrize("command", ["predict", "batch", "serve"])
def test_what_is_advised_is_an_option_of_whatever_runs_an_artifact(command):
    advised = set(re.findall(r"--[a-z][a-z-]+", Path(hindrances.__file__).read_text()))
    known = {name for option in typer.main.get_command(app).commands[command].params for name in option.opts}
    assert "--no-spin" in advised
    assert advised <= known
