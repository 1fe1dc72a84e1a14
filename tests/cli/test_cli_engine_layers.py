"""`inspect` of what trtexec wrote."""

from __future__ import annotations

import json
from pathlib import Path

FILES = Path(__file__).parents[1] / "engines" / "tensorrt" / "layer_files"


def test_layers_are_shown_by_module_and_operator_with_their_times(cli) -> None:
    run = cli("inspect", FILES / "objects-10.json", "--profile", FILES / "profile-10.json")
    assert run.code == 0, run.text
    assert "TensorRT 10.x" in run.out
    assert "blocks.0.fc1" in run.out
    assert "50.0 %" in run.out
    told = json.loads(cli("inspect", FILES / "names-11.json", "--json").out)
    assert told["schema"] == "11.x"
    assert "median" in cli("inspect", FILES / "times.json").out


def test_bad_files_end_with_status_2(refused, tmp_path) -> None:
    (tmp_path / "cut.json").write_text((FILES / "objects-10.json").read_text()[:200])
    assert "no layers" in refused("inspect", tmp_path / "cut.json")
    assert "name the file of layers" in refused("inspect", tmp_path / "a.onnx", "--profile", FILES / "profile-10.json")
