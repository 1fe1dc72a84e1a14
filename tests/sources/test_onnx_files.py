"""ONNX files as sources: what is read of them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_graphs
import pytest
from onnx import TensorProto, helper
from onnx_sources import DYNAMO, parsed, written

from s2mlp_deploy.errors import ArtifactError, S2MLPDeployError, SourceError
from s2mlp_deploy.sources import onnx_file
from s2mlp_deploy.sources.load import load_source
from s2mlp_deploy.sources.onnx_model import OnnxModel

TWO = """<ir_version: 8, opset_import: ["": 17]>
    net (float[N,3,H,W] image, int64[M,L] tokens) => (float[N,3,H,W] a, int64[M,L] b)
    { a = Relu(image) b = Abs(tokens) }
"""


def test_a_file_has_examples_of_its_inputs(tmp_path: Path) -> None:
    source = load_source(str(written(tmp_path / "two.onnx", TWO)))
    assert isinstance(source.module, OnnxModel)
    assert source.name == "two"
    assert source.input_names == ("image", "tokens")
    assert source.output_names == ("a", "b")
    assert [tuple(tensor.shape) for tensor in source.example_tensors] == [(2, 3, 224, 224), (2, 16)]
    assert dict(source.module.sizes) == {"N": 2, "H": 224, "W": 224, "M": 2, "L": 16}
    assert source.info.checkpoint == "two.onnx"


def test_free_sizes_can_be_fixed(tmp_path: Path) -> None:
    path = written(tmp_path / "two.onnx", TWO)
    source = load_source(str(path), overrides={"N": 1, "H": "32", "W": "48"})
    assert isinstance(source.module, OnnxModel)
    assert source.module.inputs[0].shape == (1, 3, 32, 48)
    assert dict(source.module.sizes) == {"M": 2, "L": 16}
    with pytest.raises(SourceError, match="no free size called 'classes'") as raised:
        load_source(str(path), overrides={"classes": 3})
    assert raised.value.fix == "its free sizes are N, H, W, M and L"
    with pytest.raises(SourceError, match="is a size, and 0 is none"):
        load_source(str(path), overrides={"N": 0})
    with pytest.raises(SourceError, match="is a size, and 'one' is none"):
        load_source(str(path), overrides={"N": "one"})


def test_sizes_without_a_plain_name_get_one(tmp_path: Path) -> None:
    model = parsed(TWO)
    for value, names in zip(model.graph.input, (("", "3", "2*h", "-1"), ("", "")), strict=True):
        for dim, name in zip(value.type.tensor_type.shape.dim, names, strict=True):
            if not name.isdigit():
                dim.Clear()
                dim.dim_param = name
    onnx.save(model, tmp_path / "two.onnx")
    source = load_source(str(tmp_path / "two.onnx"))
    assert isinstance(source.module, OnnxModel)
    assert set(source.module.sizes) == {"batch", "image_height", "image_width", "tokens_axis1"}


@pytest.mark.parametrize(
    ("change", "problem", "fix"),
    [
        (lambda m: m.opset_import[0].CopyFrom(helper.make_opsetid("", 9)), "opset 9", "opset 11 or later"),
        (lambda m: m.graph.output.append(_text(m)), "the output t is text", "extract_model"),
        (lambda m: m.graph.output.append(_sequence(m)), "the output s is no tensor", "extract_model"),
    ],
    ids=["opset 9", "text", "sequence"],
)
def test_what_no_engine_takes_is_refused(change, problem, fix, tmp_path: Path) -> None:
    model = parsed('<ir_version: 4, opset_import: ["": 20]> net (float[N,6] x) => (float[N,6] y) { y = Relu(x) }')
    change(model)
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(SourceError, match=problem) as raised:
        load_source(str(tmp_path / "net.onnx"))
    assert raised.value.exit_code == 2
    assert fix in str(raised.value.fix)


def _text(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    model.graph.node.append(onnx_graphs.node("Cast", ["x"], ["t"], to=TensorProto.STRING))
    return onnx_graphs.value("t", TensorProto.STRING, ["N", 6])


def _sequence(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    model.graph.node.append(onnx_graphs.node("SequenceConstruct", ["x"], ["s"]))
    return helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, ["N", 6])


def test_a_graph_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "MOST_NODES", 5)
    with pytest.raises(SourceError, match="nodes, and at most 5"):
        load_source(str(written(tmp_path / "net.onnx", DYNAMO)))


def _cyclic(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "y"


def _without_its_constant(model: onnx.ModelProto) -> None:
    del model.graph.initializer[0]


def _with_weights_elsewhere(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.ClearField("int64_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../weights.bin"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_cyclic, "not valid ONNX"),
        (_without_its_constant, "not valid ONNX"),
        (_with_weights_elsewhere, "outside of its folder"),
    ],
)
def test_damage_is_refused_before_anything_is_loaded(change, problem, tmp_path: Path) -> None:
    model = parsed(DYNAMO)
    change(model)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match=problem) as raised:
        load_source(str(tmp_path / "net.onnx"))
    assert raised.value.exit_code == 2


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    whole = parsed(DYNAMO).SerializeToString()
    (tmp_path / "net.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(S2MLPDeployError, match="not an ONNX file"):
        load_source(str(tmp_path / "net.onnx"))


def test_weights_cannot_be_given_beside_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "net.onnx", DYNAMO)
    with pytest.raises(SourceError, match="has its weights inside"):
        load_source(str(path), checkpoint=path)
