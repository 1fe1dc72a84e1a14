"""What an ONNX file says of itself, read without onnx."""

from __future__ import annotations

from pathlib import Path

import nano_artifact
import onnx
import onnx_graphs as og
import pytest
from onnx_graphs import FLOAT, HALF, INT64, constant, node, value

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.artifact.onnx_interface import read_interface
from s2mlp_deploy.errors import ArtifactError


def test_names_types_sizes_and_metadata_are_those_of_the_graph(tmp_path: Path):
    made = og.model(
        [node("MatMul", ["x", "w"], ["y"]), node("Cast", ["half"], ["z"], to=FLOAT), node("Identity", ["n"], ["m"])],
        # As files of old versions do: a weight is among the inputs.
        [
            value("x", FLOAT, ["batch", 3]),
            value("half", HALF, [2, None]),
            value("w", FLOAT, [3, 4]),
            value("n", INT64, []),
        ],
        [value("y", FLOAT, ["batch", 4]), value("z", FLOAT, None), value("m", INT64, [])],
        [constant("w", [[0.5] * 4] * 3, "float32")],
    )
    made.metadata_props.add(key="who", value="ä test")
    found = read_interface(og.save(made, tmp_path / "a.onnx"))
    assert found.inputs == (
        TensorInfo("x", "float32", ("batch", 3)),
        TensorInfo("half", "float16", (2, "?")),
        TensorInfo("n", "int64", ()),
    )
    assert found.outputs == (
        TensorInfo("y", "float32", ("batch", 4)),
        TensorInfo("z", "float32", ()),
        TensorInfo("m", "int64", ()),
    )
    assert found.metadata == {"who": "ä test"}


def test_an_exported_file_reads_as_onnx_reads_it():
    path = nano_artifact.read_only() / "model.fp32.onnx"
    model = onnx.load(path)
    found = read_interface(path)
    assert [info.name for info in (*found.inputs, *found.outputs)] == [
        item.name for item in (*model.graph.input, *model.graph.output)
    ]
    assert found.metadata == {item.key: item.value for item in model.metadata_props}


@pytest.mark.parametrize("content", [b"\x0a\xff", b"\x3a\x04\x5a\x7f"])
def test_what_ends_in_the_middle_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "a.onnx"
    path.write_bytes(content + b"\xff")
    with pytest.raises(ArtifactError, match="not an ONNX file"):
        read_interface(path)
