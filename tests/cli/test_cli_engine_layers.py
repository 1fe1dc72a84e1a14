"""`inspect` of what trtexec wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import report_samples
from report_samples import artifact, build, manifest, page_of

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.engines.record import write_sidecar
from s2mlp_deploy.evidence.engine_layers import EngineLayers
from s2mlp_deploy.evidence.store import read_evidence

FILES = Path(__file__).parents[1] / "engines" / "tensorrt" / "layer_files"


def test_layers_are_shown_by_module_and_operator_with_their_times(cli) -> None:
    run = cli("inspect", FILES / "objects-10.json", "--profile", FILES / "profile-10.json")
    assert run.code == 0, run.text
    assert "TensorRT 10.x" in run.out
    assert "blocks.0.fc1" in run.out
    assert "50.0 %" in run.out
    told = json.loads(cli("inspect", FILES / "names-11.json", "--json").out)
    assert told["schema"] == "11.x"
    times = cli("inspect", FILES / "times.json").out
    assert "median" in times
    assert "99 % of 10 runs is the slowest of them" in times


def test_bad_files_end_with_status_2(refused, tmp_path) -> None:
    (tmp_path / "cut.json").write_text((FILES / "objects-10.json").read_text()[:200])
    assert "no layers" in refused("inspect", tmp_path / "cut.json")
    assert "name the file of layers" in refused("inspect", tmp_path / "a.onnx", "--profile", FILES / "profile-10.json")


def test_layers_are_kept_as_evidence_of_the_engine_they_are_of(cli, refused, tmp_path) -> None:
    out, built = tmp_path / "out", replace(build(), flavour="tensorrt", version="10.16.1")
    artifact(out, manifest(inputs=(TensorInfo("image", "float32", (1, 3, 8, 8)),)), build_one=built)
    keep = ("inspect", FILES / "objects-10.json", "--profile", FILES / "profile-10.json", "--artifact", out)
    run = cli(*keep)
    assert run.code == 0, run.text
    assert f"Kept in {out} as evidence of {built.engine}" in run.told
    (kept,) = read_evidence(out).of(EngineLayers)
    assert kept.name == f"engine-layers-{built.engine.removesuffix('.engine')}.json"
    assert (kept.record.engine_sha256, round(kept.record.ms, 6)) == (built.engine_sha256, 0.8)
    assert f"Layers of {built.engine}" in page_of(out).body
    # Several engines: it is asked, or told by the name of the file.
    other = replace(built, engine="other.engine", engine_sha256="c" * 64)
    artifact(out, build_one=built, build_two=other)
    assert "--engine FILE" in refused(*keep)
    assert "no engine of TensorRT none" in refused(*keep, "--engine", "none")
    assert cli(*keep, "--engine", "other.engine").code == 0
    named = tmp_path / f"{other.engine}.layers.json"
    named.write_bytes((FILES / "objects-10.json").read_bytes())
    assert "evidence of other.engine" in cli("inspect", named, "--artifact", out).out
    # OpenVINO has no such layers, TensorRT-RTX writes them as 11 does: what 10 wrote is of an engine built elsewhere.
    strangers = replace(build(), engine="a.engine", flavour="openvino"), replace(build(), engine="b.engine")
    artifact(tmp_path / "elsewhere", build_one=strangers[0], build_two=strangers[1])
    assert "of an engine that is not in it" in cli(*keep[:-1], tmp_path / "elsewhere").out
    assert "no engine of TensorRT a.engine" in refused(*keep, "--engine", "a.engine")
    written = FILES / "objects-11.json"
    assert "evidence of b.engine" in cli("inspect", written, "--artifact", tmp_path / "elsewhere").out
    # A page that is somebody else's stays, and is not said to be renewed.
    (tmp_path / "elsewhere" / "report.html").write_text("mine")
    told = cli("inspect", written, "--artifact", tmp_path / "elsewhere").out
    assert "evidence of b.engine" in told
    assert "report.html" not in told
    # Of another network, of nothing, or nowhere.
    artifact(tmp_path / "third", manifest(outputs=(TensorInfo("boxes", "float32", (1, 4)),)))
    assert "of another network" in refused(*keep[:-1], tmp_path / "third")
    assert "file has none" in refused("inspect", FILES / "profile-10.json", "--artifact", out)
    assert "manifest" in refused(*keep[:-1], tmp_path)
    assert "inspect LAYERS.json" in refused("inspect", out, "--artifact", out)
    assert "leave --engine out" in refused("inspect", named, "--engine", "x")


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
    assert "Note: B: 1 of 8 rows of the profile, 0.03 of 0.8 ms, are of no layer" in " ".join(run.out.split())
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
    write_sidecar(after, replace(report_samples.build(), flavour="openvino"))
    told = refused("diff", before, after)
    assert f"inspect {after}" in told
    assert "trtexec" not in told
    assert "no such engine" in refused("diff", before, tmp_path / "c.engine")
