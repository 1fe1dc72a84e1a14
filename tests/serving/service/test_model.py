"""What a worker makes of requests and of its setup, in this process."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
import onnx_graphs
from onnx_graphs import FLOAT, constant, node, value
from plain_artifact import write_plain
from tiny_artifact import make_manifest

from s2mlp_deploy.artifact import MANIFEST, ArtifactWriter, TensorInfo, read_manifest
from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.serving.predictor import Predictor
from s2mlp_deploy.serving.service.messages import Item, Setup, digest_of, packed
from s2mlp_deploy.serving.service.model import ServedModel


def setup_of(directory, **changes):
    values = {
        "directory": str(directory),
        "precision": None,
        "engine": None,
        "threads": 1,
        "spin": None,
        "flush_denormals": False,
        "allow_unproven": True,
        "max_pixels": 1000,
        "max_batch": 4,
        "instances": 1,
    }
    return Setup(**(values | changes))


def write_finder(directory, takes="batch", gives="count"):
    """The rows and columns of what is not zero: as many rows as there are, whoever's they are."""
    manifest = make_manifest(
        name="finder",
        classes=None,
        inputs=(TensorInfo("x", "float32", (takes, 4)),),
        outputs=(TensorInfo("found", "int64", (gives, 2)),),
    )
    axes = [None if name == "?" else name for name in (takes, gives)]
    made = onnx_graphs.model(
        [node("NonZero", ["x"], ["places"]), node("Transpose", ["places"], ["found"], perm=[1, 0])],
        [value("x", FLOAT, [axes[0], 4])],
        [value("found", onnx_graphs.onnx.TensorProto.INT64, [axes[1], 2])],
        [constant("unused", np.zeros(1, np.float32))],
    )
    with ArtifactWriter(directory) as writer:
        path = writer.staging / "model.fp32.onnx"
        onnx_graphs.save(onnx_graphs.describe(made, **onnx_graphs.metadata_of(manifest, "fp32")), path)
        writer.commit(manifest, {path.name: ("fp32", 0)})
    return directory


@pytest.mark.parametrize("axes", [("batch", "count"), ("?", "?")])
def test_nobody_gets_the_rows_of_another(tmp_path, axes):
    """Two samples in which two places are found, both in the second: as many rows as samples."""
    write_finder(tmp_path / "a", *axes)
    nothing, two = np.zeros((1, 4), np.float32), np.float32([[0, 1, 0, 1]])
    model = ServedModel(setup_of(tmp_path / "a"))
    assert model.opened(0).max_rows == 1
    items = [Item(feeds={"x": packed(array)}, outputs=("found",)) for array in (nothing, two)]
    outcomes = model.run([(item, model.prepare(item)) for item in items])
    assert [outcome.outputs["found"].array().tolist() for outcome in outcomes] == [[], [[0, 1], [0, 3]]]
    with Predictor(tmp_path / "a", allow_unproven=True, threads=1) as predictor:
        found = [arrays["found"].tolist() for arrays in predictor.run_samples([nothing[0], two[0]])]
    assert found == [[], [[0, 1], [0, 3]]]


def test_other_files_than_those_that_were_loaded_are_refused(tmp_path):
    place = tmp_path / "a"
    write_plain(place, 0)
    setup = setup_of(place, manifest=digest_of(read_manifest(place)))
    state = ServedModel(setup).opened(0).state
    again = setup_of(place, manifest=setup.manifest, state=state)
    ServedModel(again)
    with pytest.raises(ArtifactError, match="replaced"):
        ServedModel(setup_of(place, manifest=setup.manifest, state=f"{state}.other"))
    document = json.loads((place / MANIFEST).read_text())
    (place / MANIFEST).write_text(json.dumps(document | {"name": "another"}))
    for changed in (setup, again):
        with pytest.raises(ArtifactError, match="replaced"):
            ServedModel(changed)
