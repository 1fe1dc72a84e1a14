"""An artifact's directory stands for its files in every command."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nano_artifact
import pytest
from plain_artifact import write_plain

README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_bare_folder_name_is_inspected(cli, here):
    write_plain(here / "out")
    for name in ("out", "./out", here / "out"):
        result = cli("inspect", name)
        assert result.code == 0, result.err
        assert result.told.startswith("perceptron-0 in ")
        assert "model.fp32.onnx" in result.out
        assert "Parity was not measured yet" in result.out
    document = json.loads(cli("inspect", "out", "--json").out)
    assert document["manifest"]["name"] == "perceptron-0"
    assert document["problems"] == {}
    assert document["parity"]["commands"] == ["s2mlp-deploy parity tiny out"]


def test_a_model_of_the_zoo_stays_one_whatever_folder_has_its_name(cli, here, monkeypatch):
    from s2mlp_deploy import api
    from s2mlp_deploy.errors import CheckFailedError

    def reached(*_, **__):
        raise CheckFailedError("reached")

    monkeypatch.setattr(api, "inspect_source", reached)
    write_plain(here / "s2mlpv2_nano")
    assert cli("inspect", "s2mlpv2_nano").code == 1
    assert cli("inspect", "./s2mlpv2_nano").code == 0


def test_a_folder_that_is_no_artifact_is_said_to_be_none(refused, here):
    (here / "out").mkdir()
    assert "not an artifact" in refused("inspect", "out")
    assert "not an artifact" in refused("build", "out", "--dry-run")
    assert "not an artifact" in refused("parity", "s2mlpv2_nano", "out")


@pytest.mark.parametrize("option", [("--set", "batch=1"), ("--preprocess", "pre.json")])
def test_what_a_file_of_ours_says_itself_is_not_given(refused, here, option):
    write_plain(here / "out")
    assert f"leave {option[0]} out" in refused("inspect", "out/model.fp32.onnx", *option)


def test_a_changed_file_is_told(cli, here):
    write_plain(here / "out")
    (here / "out" / "model.fp32.onnx").write_bytes(b"other")
    result = cli("inspect", "out")
    assert result.code == 1
    assert "model.fp32.onnx: a file of the artifact is not the one its manifest describes" in result.text
    refused = cli("build", "out", "--dry-run")
    assert refused.code == 2
    assert "not the one its manifest describes" in refused.text


def test_build_takes_the_file_for_the_engine_and_says_so(cli, here):
    write_plain(here / "out")
    result = cli("build", "out", "--dry-run", "--target", "sm89")
    assert result.code == 0, result.err
    assert "note: out/model.fp32.onnx is the file for tensorrt-rtx" in result.err
    assert "model.fp32.onnx would build" in result.out
    assert "no int8 file for tensorrt-rtx, only fp32" in cli("build", "out", "--dry-run", "--precision", "int8").text
    optimized = cli("build", "out", "--engine", "onnxruntime", "--optimize-for", "cpu")
    assert optimized.code == 0, optimized.err
    assert (here / "out" / "model.fp32.onnxruntime.cpu.onnx").is_file()


def test_parity_of_a_directory_needs_nothing_else(cli, here):
    pytest.importorskip("torch")
    nano_artifact.copy_to(here / "out")
    (here / "weights").mkdir()
    name = nano_artifact.weights().name
    (here / "weights" / name).write_bytes(nano_artifact.weights().read_bytes())
    result = cli("parity", "s2mlpv2_nano", "out", "--samples", 4)
    assert result.code == 0, result.err
    assert f"note: the artifact's weights: weights/{name}" in result.err
    (here / "weights" / name).unlink()
    missing = cli("parity", "s2mlpv2_nano", "out")
    assert missing.code == 2
    assert "looked in . and out" in missing.text


def test_an_artifact_in_the_place_of_a_source_is_shown_how_to_be_looked_at(refused, here):
    pytest.importorskip("torch")
    write_plain(here / "my out")
    assert "fix: s2mlp-deploy inspect 'my out'" in refused("export", "my out", "-o", "new")
    (here / "folder").mkdir()
    assert "a folder is no model" in refused("parity", "folder", "my out")


def test_readme_shows_what_export_writes_of_the_nano_network(cli):
    # The README's has other weights, for the same images: the same graph.
    printed = cli("inspect", nano_artifact.read_only()).out.splitlines()
    tables = [line.rstrip() for line in printed if line.startswith("model.fp32.onnx") or " keep " in line]
    assert len(tables) == 5
    assert [line for line in tables if line not in README.read_text().splitlines()] == []


def test_the_python_of_readme_runs(here, monkeypatch, capsys):
    from s2mlp_deploy import api

    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    monkeypatch.setattr(api, "load", lambda name, checkpoint: name)
    monkeypatch.setattr(api, "capture", lambda source: nano_artifact.captured())
    exec(code, {})
    assert capsys.readouterr().out.endswith("'stages.0.blocks.0.mixer.shifts.1']\n")
    assert (here / "build" / "python" / "report.html").is_file()
