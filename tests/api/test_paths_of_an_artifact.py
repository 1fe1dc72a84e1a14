"""What an artifact names stays inside it, and the weights beside a graph are part of it."""

from __future__ import annotations

import json
import os
import shutil

import nano_artifact
import onnx
import pytest
from image_artifact import write_image_artifact
from onnxruntime import InferenceSession
from plain_artifact import write_data, write_plain

from s2mlp_deploy import api
from s2mlp_deploy.api.evidence import save_evidence
from s2mlp_deploy.api.opening import open_file
from s2mlp_deploy.artifact import MANIFEST, read_manifest, verify_file
from s2mlp_deploy.errors import ArtifactError, OutputError
from s2mlp_deploy.evidence.calibration import CalibrationReport
from s2mlp_deploy.evidence.store import read_evidence, read_record
from s2mlp_deploy.export import write

GRAPH, WEIGHTS = "model.fp32.onnx", "model.fp32.onnx.data"


@pytest.fixture
def artifact(tmp_path):
    write_plain(tmp_path / "artifact", beside=True)
    return tmp_path / "artifact"


def of_images(place):
    write_image_artifact(place / "images", beside=True)
    return place / "images"


def quantize(artifact, data, **options):
    return api.quantize(artifact, api.PrecisionOptions(precisions=["fp16", "int8"], data=data, **options))


USES = {
    "predict": lambda root: api.Predictor(root),
    "parity": lambda root: open_file(root / GRAPH, batch=1),
    "inspect": lambda root: api.inspect_file(root / GRAPH),
    "quantize": lambda root: quantize(root, write_data(root.parent / "data.npy")),
    "dry run": lambda root: api.preflight(root / GRAPH, targets=["sm89"]),
    "build": lambda root: api.build(root / GRAPH, targets=["sm89"]),
    "optimize": lambda root: api.optimize(root / GRAPH),
}


def shuffle(root):
    raw = (root / WEIGHTS).read_bytes()
    (root / WEIGHTS).write_bytes(raw[4:] + raw[:4])


def lead_out(root):
    (root / WEIGHTS).rename(root.parent / "elsewhere")
    (root / WEIGHTS).symlink_to(root.parent / "elsewhere")


def remove(root):
    (root / WEIGHTS).unlink()


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("change", [shuffle, lead_out, remove])
def test_weights_beside_the_graph_are_verified_by_whoever_uses_it(artifact, use, change):
    if use == "build":
        pytest.importorskip("tensorrt_rtx")
    if use == "predict":
        artifact = of_images(artifact.parent)
    change(artifact)
    before = nano_artifact.snapshot(artifact)
    with pytest.raises(ArtifactError) as caught:
        USES[use](artifact)
    assert WEIGHTS in str(caught.value)
    assert caught.value.fix
    assert nano_artifact.snapshot(artifact) == before


@pytest.mark.parametrize("use", USES)
def test_weights_beside_the_graph_are_used_when_they_are_the_right_ones(artifact, use):
    if use == "build":
        pytest.importorskip("tensorrt_rtx")
    if use == "predict":
        artifact = of_images(artifact.parent)
    USES[use](artifact)


@pytest.mark.parametrize("place", [".", "artifact", "artifact/evidence", "/"])
def test_quantize_works_from_any_directory_and_writes_whole_files(artifact, tmp_path, monkeypatch, place):
    """A layer that stays in float32 keeps its weights, which are read from beside the float32 graph."""
    data = write_data(tmp_path / "data.npy")
    (artifact / "evidence").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / place)
    manifest = quantize(os.path.relpath(artifact), os.path.relpath(data), exclude=["fc1"]).manifest
    assert [record.path for record in manifest.files] == [
        GRAPH,
        WEIGHTS,
        *(f"model.{name}.onnx" for name in ("fp16", "int8", "int8-trt")),
    ]
    shutil.copytree(artifact, tmp_path / "alone")
    (tmp_path / "alone" / WEIGHTS).unlink()
    for record in manifest.files[2:]:
        InferenceSession(verify_file(tmp_path / "alone", record))


def test_files_that_are_too_large_themselves_get_weights_of_their_own(artifact, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "MAX_SINGLE_FILE", 300)
    manifest = quantize(artifact, write_data(tmp_path / "data.npy"), exclude=["fc1"]).manifest
    assert "model.int8.onnx.data" in [record.path for record in manifest.files]
    (artifact / WEIGHTS).unlink()
    InferenceSession(artifact / "model.int8.onnx")
    onnx.checker.check_model(artifact / "model.int8.onnx")


PATHS = ["../model.fp32.onnx", "/etc/passwd", "a/model.fp32.onnx", "", ".", "..", "a/../model.fp32.onnx", "./x"]


@pytest.mark.parametrize("path", PATHS)
def test_a_manifest_that_lists_a_path_is_damaged(artifact, path):
    document = json.loads((artifact / MANIFEST).read_bytes())
    document["files"][0]["path"] = path
    (artifact / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match="no file of its directory"):
        read_manifest(artifact)


def test_a_graph_that_is_a_link_to_elsewhere_is_not_loaded(tmp_path):
    artifact = tmp_path / "artifact"
    write_image_artifact(artifact)
    (artifact / GRAPH).rename(artifact.parent / GRAPH)
    (artifact / GRAPH).symlink_to(f"../{GRAPH}")
    with pytest.raises(ArtifactError, match="leads out of its directory"):
        api.Predictor(artifact)
    save_evidence(artifact)
    page = (artifact / "report.html").read_text()
    assert "leads out of the artifact" in page
    assert f'href="./{GRAPH}"' not in page


def test_an_artifact_that_is_itself_reached_by_a_link_is_like_any_other(artifact, tmp_path):
    (tmp_path / "link").symlink_to("artifact")
    assert quantize(tmp_path / "link", write_data(tmp_path / "data.npy")).manifest == read_manifest(artifact)


def test_evidence_that_is_a_link_to_elsewhere_is_neither_written_nor_read(artifact, tmp_path):
    quantize(artifact, write_data(tmp_path / "data.npy"))
    ranges = read_record(artifact, CalibrationReport)
    (artifact / "evidence").rename(tmp_path / "elsewhere")
    (artifact / "evidence").symlink_to(tmp_path / "elsewhere")
    before = nano_artifact.snapshot(tmp_path / "elsewhere")
    assert read_record(artifact, CalibrationReport) is None
    assert read_evidence(artifact).saved == ()
    with pytest.raises(OutputError, match="leads out"):
        save_evidence(artifact, ranges)
    files = [path.name for path in artifact.iterdir()]
    with pytest.raises(OutputError, match="evidence"):
        quantize(artifact, tmp_path / "data.npy")
    assert [path.name for path in artifact.iterdir()] == files
    assert nano_artifact.snapshot(tmp_path / "elsewhere") == before


def test_a_document_that_is_a_link_to_elsewhere_is_listed_and_not_read(artifact, tmp_path):
    quantize(artifact, write_data(tmp_path / "data.npy"))
    (document,) = (artifact / "evidence").glob("accuracy-*.json")
    document.rename(tmp_path / "accuracy.json")
    document.symlink_to(tmp_path / "accuracy.json")
    (unreadable,) = read_evidence(artifact).unreadable
    assert "leads out of the artifact" in unreadable.problem
