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


def test_two_engines_are_compared_by_their_layers(cli, refused, tmp_path) -> None:
    before, after = tmp_path / "a.layers.json", tmp_path / "b.plan"
    before.write_text((FILES / "objects-10.json").read_text())
    document = json.loads(before.read_text())
    del document["Layers"][2]  # A reformat less.
    document["Layers"][4]["Outputs"][0]["Format/Datatype"] = "Thirty-two wide channel vectorized row major Int8 format."
    after.write_bytes(b"engine")
    (tmp_path / "b.plan.layers.json").write_text(json.dumps(document))
    profile = FILES / "profile-10.json"
    run = cli("diff", before, after, "--profile", profile, "--profile", profile, "--exit-code")
    assert (run.code, "The engines differ." in run.out) == (1, True), run.text
    told = json.loads(cli("diff", before, after, "--json").out)
    assert (told["before"]["reformats"], told["after"]["reformats"]) == (2, 1)
    names = [pair["name"] for pair in told["modules"]]
    assert set(names[:2]) == {"blocks.0.fc1", "(no module)"}
    same = cli("diff", before, before, "--exit-code")
    assert (same.code, "The layers are the same" in same.out) == (0, True)
    assert "give --profile twice" in refused("diff", before, after, "--profile", profile)
    assert "no layers of an engine" in refused("diff", before, profile)
    assert "layers alone" in refused("diff", before, after, "--module", "fc1")
    assert "--profile" in refused("diff", tmp_path / "a.onnx", tmp_path / "b.onnx", "--profile", profile)
    (tmp_path / "b.plan.layers.json").unlink()
    assert "exportLayerInfo" in refused("diff", before, after)
    assert "no such engine" in refused("diff", before, tmp_path / "c.engine")
