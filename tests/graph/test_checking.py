"""Graphs that mean nothing are told as such, in words and once, wherever a file is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphs
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import FLOAT, model, node, perceptron, value

from s2mlp_deploy.api.inspecting_files import inspect_file
from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.graph.checking import problem_of, problem_of_file
from s2mlp_deploy.graph.loading import load_graph

WEIGHTS = np.ones((4, 4), np.float32)
PRODUCT = helper.make_node("MatMul", ["a", "w"], ["y"])

MEANINGLESS: dict[str, tuple[list[onnx.NodeProto], str]] = {
    "an input that nothing makes": ([helper.make_node("Add", ["x", "nowhere"], ["a"])], "input 'nowhere'"),
    "a cycle": ([helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])], "a cycle"),
    "an operator that does not exist": ([helper.make_node("Frobnicate", ["x"], ["a"])], "Frobnicate"),
    "two tensors of one name": (
        [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Abs", ["x"], ["a"])],
        "'a' has been used",
    ),
    "an attribute of another type": ([helper.make_node("Transpose", ["x"], ["a"], perm="no")], "perm"),
    "too many inputs": ([helper.make_node("Relu", ["x", "x"], ["a"])], "Relu"),
}
ILL_SHAPED: dict[str, tuple[list[onnx.NodeProto], str]] = {
    "sizes that do not fit": ([helper.make_node("Concat", ["x", "x"], ["a"], axis=1)], "Incompatible dimensions"),
    "an axis that is not there": ([helper.make_node("Transpose", ["x"], ["a"], perm=[0, 5])], "perm"),
}


def save(folder: Path, nodes: list[onnx.NodeProto], product: onnx.NodeProto = PRODUCT) -> Path:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]) for name in "xy")
    graph = helper.make_graph([*nodes, product], "g", [x], [y], [numpy_helper.from_array(WEIGHTS, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.mark.parametrize("kind", MEANINGLESS)
def test_a_graph_that_means_nothing_is_refused(tmp_path, kind):
    nodes, expected = MEANINGLESS[kind]
    path = save(tmp_path, nodes)
    assert expected in problem_of_file(path)
    with pytest.raises(ArtifactError, match=r"valid ONNX|not an ONNX file") as caught:
        load_graph(path)
    assert expected in str(caught.value)


@pytest.mark.parametrize("kind", ILL_SHAPED)
def test_shapes_that_do_not_fit_are_found_by_inferring_them_again(tmp_path, kind):
    nodes, expected = ILL_SHAPED[kind]
    assert expected in problem_of(ir.load(save(tmp_path, nodes)))


def test_a_sound_graph_and_operators_of_other_domains_pass(tmp_path):
    path = save(tmp_path, [helper.make_node("Gelu", ["x"], ["a"], domain="com.microsoft")])
    model = onnx.load(path)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, path)
    assert problem_of_file(path) == ""
    plain = save(tmp_path, [helper.make_node("Relu", ["x"], ["a"])])
    assert problem_of_file(plain) == problem_of(load_graph(plain).model) == ""


def test_what_the_checker_says_of_long_names_is_cut(tmp_path):
    assert len(problem_of_file(save(tmp_path, [helper.make_node("Frobnicate" * 1000, ["x"], ["a"])]))) <= 300


def test_nodes_may_stand_in_any_order(tmp_path):
    # Converters to float16 append the casts of the inputs.
    path = save(tmp_path, [helper.make_node("Relu", ["b"], ["a"]), helper.make_node("Abs", ["x"], ["b"])])
    assert problem_of_file(path) == ""
    assert [node.op_type for node in load_graph(path).model.graph] == ["Abs", "Relu", "MatMul"]


def test_a_graph_that_onnx_takes_and_onnx_ir_does_not_is_told(tmp_path):
    made = model(
        [node("Neg", ["b"], ["y"]), node("Neg", ["x"], ["b"]), node("Neg", ["x"], ["y"])],
        [value("x", FLOAT, [2])],
        [value("y", FLOAT, [2])],
    )
    assert problem_of_file(onnx_graphs.save(made, tmp_path / "a.onnx"))


def test_names_that_are_not_utf8_are_refused(tmp_path):
    path = onnx_graphs.save(perceptron(), tmp_path / "a.onnx")
    whole = path.read_bytes()
    for name in (b"fc1/MatMul", b"graph", b"output", b"w1"):
        assert name in whole
        path.write_bytes(whole.replace(name, b"\xff" * len(name)))
        with pytest.raises(ArtifactError, match=r"not UTF-8|not valid|not an ONNX file"):
            load_graph(path)
        with pytest.raises(ArtifactError, match=r"not UTF-8|not an ONNX file"):
            load_graph(path, valid=False)


def test_a_weight_without_a_type_is_damage(tmp_path):
    made = perceptron()
    made.graph.initializer[0].data_type = 0
    path = onnx_graphs.save(made, tmp_path / "a.onnx")
    for look in (inspect_file, lambda file: load_graph(file, valid=False)):
        with pytest.raises(ArtifactError, match="no type"):
            look(path)
