"""What an ONNX file's metadata says is checked where it is read."""

from __future__ import annotations

import nano_artifact
import onnx_graphs as og
import pytest
from onnx import helper

from s2mlp_deploy import api
from s2mlp_deploy.errors import ArtifactError

WRONG = [
    {"precision": 5},
    {"precision_exceptions": "none"},
    {"precision_exceptions": [3]},
    {"shifts": {"a": 1}},
    {"shifts": [None]},
    {"preprocessing_in_graph": "yes"},
    {"classes": 3},
    {"classes": [1]},
    {"hazards": 1},
    {"notes": "one"},
    {"schema_version": 1},
    {"schema_version": 1, "shifts": [1]},
    {"preprocessing": []},
]
TEXTS = ["", "[]", "3", "{", "[" * 100_000, "null"]


def uses(path):
    yield lambda: api.preflight(path, targets=["sm89"])
    yield lambda: api.inspect_file(path)


@pytest.mark.parametrize("metadata", WRONG, ids=str)
def test_values_of_a_wrong_type_are_refused_and_nothing_is_lost(tmp_path, metadata):
    path = og.save(og.perceptron(metadata=metadata), tmp_path / "model.fp32.onnx")
    (tmp_path / "model.fp32.tensorrt-rtx.sm89.engine").write_bytes(b"an older engine")
    before = nano_artifact.snapshot(tmp_path)
    for use in uses(path):
        with pytest.raises(ArtifactError, match="own description is damaged") as caught:
            use()
        assert caught.value.where == str(path)
    assert nano_artifact.snapshot(tmp_path) == before


@pytest.mark.parametrize("text", TEXTS[1:], ids=range(len(TEXTS) - 1))
def test_text_that_is_no_description_is_refused(tmp_path, text):
    made = og.perceptron()
    helper.set_model_props(made, {"s2mlp_deploy": text})
    path = og.save(made, tmp_path / "model.onnx")
    for use in uses(path):
        with pytest.raises(ArtifactError, match="own description is damaged"):
            use()


def test_a_file_that_says_nothing_is_nobodys(tmp_path):
    path = og.save(og.perceptron(), tmp_path / "model.onnx")
    assert api.inspect_file(path).metadata == {}
