"""float16 graphs: types that agree, islands where the range asks for them, and what the caller sees."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import pytest

pytest.importorskip("torch")
from onnx import TensorProto, helper
from small_nets import FORMS, LAYOUTS, graph, hand_made, images, kinds, run, statistics

from s2mlp_deploy.errors import QuantizationError
from s2mlp_deploy.precision.half import LARGEST, MARGIN, HalfGraph, to_half
from s2mlp_deploy.precision.placements import PLACEMENTS, Calibrated

FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16}
# Operators whose inputs may differ in type, by position.
FREE = {"Cast": {0}, "QuantizeLinear": {0, 1}, "Resize": {1, 2}}


def check_types(model: ir.Model) -> None:
    """The types as ONNX's own inference has them: those of a node's float inputs and outputs are one."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    # What the graph itself claims is removed, so that every type is inferred.
    del proto.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*inferred.input, *inferred.value_info, *inferred.output)}
    types |= {tensor.name: tensor.data_type for tensor in inferred.initializer}
    for value in (v for node in model.graph for v in node.outputs):
        assert value.dtype is not None
        assert types[value.name] == value.dtype.value, f"{value.name} claims to be another type than it is"
    for node in inferred.node:
        free = FREE.get(node.op_type, set())
        found = {types[name] for i, name in enumerate(node.input) if name and i not in free}
        if node.op_type not in ("Cast", "QuantizeLinear", "DequantizeLinear"):
            found |= {types[name] for name in node.output if name}
        assert len(found & FLOATS) <= 1, f"{node.name} mixes types"
    casts = [node for node in inferred.node if node.op_type == "Cast"]
    for node in casts:
        assert types[node.input[0]] != types[node.output[0]], f"{node.name} casts to what it is"
    # Nothing is cast twice.
    assert len({(node.input[0], types[node.output[0]]) for node in casts}) == len(casts)


def half(model: ir.Model, *feeds, keep_io: bool = True) -> HalfGraph:
    found = to_half(model, statistics(model, *feeds, histograms=False).magnitudes, keep_io=keep_io)
    check_types(found.model)
    return found


def test_a_number_below_float16_among_others_does_not_become_a_division_by_zero():
    nodes = [
        helper.make_node("Abs", ["x"], ["a"]),
        helper.make_node("Add", ["a", "epsilon"], ["d"]),
        helper.make_node("Div", ["x", "d"], ["y"]),
        helper.make_node("Max", ["a", "floor"], ["m"]),
        helper.make_node("Div", ["x", "m"], ["z"]),
    ]
    constants = {"epsilon": np.float32([1e-12, 0, 1e-4, 0]), "floor": np.float32([1e-30, 1e-9, 1e-3, 1e-30])}
    model = hand_made(nodes, {"x": [2, 4]}, {"y": None, "z": None}, constants)
    feeds = {"x": np.array([[0, 5, 1, -2], [3, 2, -0.5, 1]], np.float32)}
    found = half(model, feeds, keep_io=False)
    assert not islands(found)
    # The reference computes in true float16, which ONNX Runtime's CPU provider does not.
    reference = onnx.reference.ReferenceEvaluator(ir.to_proto(found.model))
    for result in reference.run(None, {"x": feeds["x"].astype(np.float16)}):
        np.testing.assert_array_equal(result, np.sign(feeds["x"]))


def test_a_tiny_weight_becomes_zero_and_keeps_its_neighbours_exact():
    weights = np.array([[1e-12, 0.5], [-1e-9, 0.25]], np.float32)
    model = hand_made([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": [3, 2]}, {"y": None}, {"w": weights})
    found = half(model, {"x": np.ones((3, 2), np.float32)})
    (kept,) = [v.const_value.numpy() for v in found.model.graph.initializers.values()]
    np.testing.assert_array_equal(kept, [[0, 0.5], [0, 0.25]])


def islands(found: HalfGraph) -> dict[str, str]:
    return {item.node: item.reason for item in found.islands}


@pytest.mark.parametrize("keep_io", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("family", ["v1", "v2"])
def test_types_agree_in_the_papers_networks(family, layout, keep_io):
    for form in FORMS:
        found = half(graph(family, form, layout), keep_io=keep_io)
        wanted = ir.DataType.FLOAT if keep_io else ir.DataType.FLOAT16
        assert {v.dtype for v in (*found.model.graph.inputs, *found.model.graph.outputs)} == {wanted}
        assert len(found.islands) < len(found.model.graph) / 2
        weights = [v for v in found.model.graph.initializers.values() if v.const_value.nbytes > 200]
        assert {v.dtype for v in weights} - {ir.DataType.INT64} == {ir.DataType.FLOAT16}


@pytest.mark.parametrize("precision", PLACEMENTS)
def test_types_agree_with_q_and_dq(precision):
    for family, form, layout in (("v1", "grouped-conv", "channels-first"), ("v2", "slice-concat", "channels-last")):
        model = graph(family, form, layout)
        seen = statistics(model)
        quantized = PLACEMENTS[precision].apply(model, Calibrated(seen.histograms, "minmax"))
        check_types(to_half(quantized, seen.magnitudes).model)


def test_split_attentions_sum_and_softmax_are_islands():
    found = half(graph("v2"))
    kept = {node.op_type for node in found.model.graph if node.name in islands(found)}
    assert {"ReduceSum", "Softmax"} <= kept
    for node in kinds(found.model, "ReduceSum", "Softmax", "ReduceMean"):
        assert node.outputs[0].dtype == ir.DataType.FLOAT


def test_the_variance_of_a_written_out_norm_is_an_island():
    found = half(graph("v2", layout="channels-first"))
    squares = [node for node in found.model.graph if node.op_type == "Mul" and node.inputs[0] is node.inputs[1]]
    squares += kinds(found.model, "Pow")
    roots = kinds(found.model, "Sqrt")
    assert squares
    assert roots
    for node in (*squares, *roots):
        assert node.outputs[0].dtype == ir.DataType.FLOAT, node.name
        assert "variance" in islands(found)[node.name]


def chain(*nodes, constants=None, shape=("n", 8), outputs=("z",)):
    return hand_made(list(nodes), {"x": list(shape)}, dict.fromkeys(outputs), constants)


@pytest.mark.parametrize(("peak", "wide"), [(LARGEST / MARGIN * 0.99, False), (LARGEST / MARGIN * 1.01, True)])
def test_what_may_overflow_is_an_island(peak, wide):
    model = chain(
        helper.make_node("Mul", ["x", "c"], ["a"]),
        helper.make_node("Sub", ["a", "a"], ["b"]),
        helper.make_node("Relu", ["b"], ["z"]),
        constants={"c": np.float32(10)},
    )
    found = half(model, {"x": np.full((2, 8), peak / 10, np.float32)})
    assert set(islands(found)) == ({"layer0/Mul", "layer1/Sub"} if wide else set())
    assert all("a reaches" in reason for reason in islands(found).values())


def test_a_wide_value_stays_float32_through_all_data_movement():
    """What only moves is not measured, and must not be taken for small."""
    nodes = [
        helper.make_node("Mul", ["x", "c"], ["wide"]),
        helper.make_node("Transpose", ["wide"], ["b"], perm=[1, 0]),
        helper.make_node("Concat", ["b", "b"], ["d"], axis=0),
        helper.make_node("Split", ["d"], ["e", "f"], axis=0, num_outputs=2),
        helper.make_node("Identity", ["f"], ["g"]),
        helper.make_node("Mul", ["g", "tiny"], ["z"]),
    ]
    model = chain(*nodes, constants={"c": np.float32(1e6), "tiny": np.float32(1e-6)})
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)}
    found = half(model, feeds)
    for name in ("wide", "b", "d", "e", "f", "g"):
        (value,) = [v for node in found.model.graph for v in node.outputs if v.name == name]
        assert value.dtype == ir.DataType.FLOAT, name
    np.testing.assert_allclose(run(found.model, feeds)[0], run(model, feeds)[0], rtol=2e-3)


def test_a_wide_quantized_activation_does_not_overflow_behind_its_dq():
    weights = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32) * 1e-6
    model = chain(
        helper.make_node("Mul", ["x", "c"], ["wide"]),
        helper.make_node("MatMul", ["wide", "w"], ["z"]),
        constants={"c": np.float32(1e6), "w": weights},
        shape=("n", 2, 8),
    )
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 2, 8)).astype(np.float32)}
    seen = statistics(model, feeds)
    for precision in ("int8-trt", "fp8-trt"):
        quantized = PLACEMENTS[precision].apply(model, Calibrated(seen.histograms, "minmax"))
        found = to_half(quantized, seen.magnitudes)
        check_types(found.model)
        restored = [n for n in kinds(found.model, "DequantizeLinear") if n.inputs[0].producer() is not None]
        assert [node.outputs[0].dtype for node in restored] == [ir.DataType.FLOAT]


def test_a_large_weight_needs_no_margin():
    model = chain(helper.make_node("Mul", ["x", "c"], ["z"]), constants={"c": np.float32([60000] + [0] * 7)})
    assert islands(half(model, {"x": np.full((2, 8), 1e-3, np.float32)})) == {}
    model = chain(helper.make_node("Mul", ["x", "c"], ["z"]), constants={"c": np.float32([70000] + [0] * 7)})
    assert "c reaches" in islands(half(model, {"x": np.full((2, 8), 1e-3, np.float32)}))["layer0/Mul"]


@pytest.mark.parametrize(("size", "wide"), [(100.0, False), (200.0, True)])
def test_a_norm_of_large_values_is_an_island_because_it_squares_them(size, wide):
    model = chain(helper.make_node("LayerNormalization", ["x", "s"], ["z"]), constants={"s": np.ones(8, np.float32)})
    feeds = {"x": np.float32([[size, -size] * 4])}
    assert bool(islands(half(model, feeds))) is wide


def test_values_that_were_never_measured_and_are_not_finite_are_islands():
    model = chain(helper.make_node("Relu", ["x"], ["z"]))
    for magnitude in (np.nan, np.inf):
        assert to_half(model, {"z": magnitude}).islands
    assert not to_half(model, {}).islands


# Inputs and outputs


@pytest.mark.parametrize("keep_io", [True, False])
def test_an_output_that_is_also_used_inside(keep_io):
    model = chain(helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["y"], ["z"]), outputs=("z", "y"))
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)}
    found = half(model, feeds, keep_io=keep_io)
    dtype = np.float32 if keep_io else np.float16
    assert [value.name for value in found.model.graph.outputs] == ["z", "y"]
    for result, expected in zip(run(found.model, {"x": feeds["x"].astype(dtype)}), run(model, feeds), strict=True):
        assert result.dtype == dtype
        np.testing.assert_allclose(result, expected, rtol=1e-3)


@pytest.mark.parametrize("keep_io", [True, False])
def test_an_input_that_is_an_output(keep_io):
    model = chain(helper.make_node("Relu", ["x"], ["z"]), outputs=("z",))
    model.graph.outputs.append(model.graph.inputs[0])
    found = to_half(model, {}, keep_io=keep_io).model
    dtype = np.float32 if keep_io else np.float16
    assert [value.name for value in found.graph.outputs] == ["z", "x"]
    values = np.random.default_rng(0).normal(size=(2, 8)).astype(dtype)
    result = run(found, {"x": values})
    np.testing.assert_array_equal(result[1], values)
    assert result[0].dtype == dtype


def test_an_island_may_be_the_output():
    model = chain(helper.make_node("Softmax", ["x"], ["z"]))
    for keep_io in (True, False):
        found = half(model, {"x": np.ones((2, 8), np.float32)}, keep_io=keep_io)
        assert found.model.graph.outputs[0].name == "z"
        assert len(kinds(found.model, "Cast")) == (0 if keep_io else 2)


def test_the_original_graph_stays_as_it_is():
    model = graph("v2")
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    half(model, keep_io=False)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


# Attributes and odd operators


def test_types_in_attributes_follow():
    filled = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.5])
    model = chain(
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("ConstantOfShape", ["s"], ["a"], value=filled),
        helper.make_node("Cast", ["s"], ["b"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "a"], ["c"]),
        helper.make_node("Constant", [], ["k"], value=helper.make_tensor("k", TensorProto.FLOAT, [], [2.0])),
        helper.make_node("Mul", ["c", "k"], ["d"]),
        helper.make_node("ReduceMax", ["b"], ["m"], keepdims=0),
        helper.make_node("Add", ["d", "m"], ["z"]),
    )
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)}
    found = half(model, feeds)
    (node,) = kinds(found.model, "ConstantOfShape")
    assert node.attributes["value"].as_tensor().dtype == ir.DataType.FLOAT16
    np.testing.assert_allclose(run(found.model, feeds)[0], run(model, feeds)[0], rtol=2e-3, atol=1e-2)


@pytest.mark.parametrize(
    ("node", "dtype"),
    [
        (helper.make_node("ConstantOfShape", ["shape"], ["k"]), ir.DataType.FLOAT16),
        (helper.make_node("EyeLike", ["i"], ["k"], dtype=TensorProto.FLOAT), ir.DataType.FLOAT),
        (helper.make_node("EyeLike", ["x"], ["k"]), ir.DataType.FLOAT16),
        (helper.make_node("RandomNormal", [], ["k"], shape=[2, 8]), ir.DataType.FLOAT),
        (helper.make_node("RandomNormal", [], ["k"], shape=[2, 8], dtype=TensorProto.FLOAT), ir.DataType.FLOAT),
        (helper.make_node("RandomUniform", [], ["k"], shape=[2, 8]), ir.DataType.FLOAT),
        (helper.make_node("RandomNormalLike", ["x"], ["k"]), ir.DataType.FLOAT16),
        (helper.make_node("RandomNormalLike", ["x"], ["k"], dtype=TensorProto.FLOAT), ir.DataType.FLOAT16),
        (helper.make_node("RandomUniformLike", ["i"], ["k"], dtype=TensorProto.FLOAT), ir.DataType.FLOAT),
        (helper.make_node("Bernoulli", ["half"], ["k"]), ir.DataType.FLOAT16),
        (helper.make_node("HannWindow", ["eight"], ["k"]), ir.DataType.FLOAT),
        (helper.make_node("HannWindow", ["eight"], ["k"], output_datatype=TensorProto.FLOAT), ir.DataType.FLOAT),
        (helper.make_node("Constant", [], ["k"], value_float=0.5), ir.DataType.FLOAT),
        (helper.make_node("Constant", [], ["k"], value_floats=[0.5] * 8), ir.DataType.FLOAT),
        (helper.make_node("CastLike", ["i", "x"], ["k"]), ir.DataType.FLOAT16),
        (helper.make_node("OneHot", ["first", "eight", "values"], ["k"]), ir.DataType.FLOAT16),
    ],
    ids=lambda item: f"{item.op_type}({', '.join(a.name for a in item.attribute)})" if hasattr(item, "op_type") else "",
)
def test_types_that_an_operator_has_by_default_are_float32(node, dtype):
    constants = {
        "shape": np.array([2, 8]),
        "i": np.eye(2, 8, dtype=np.int64),
        "half": np.full((2, 8), 0.5, np.float32),
        "eight": np.array(8),
        "first": np.array([0, 3]),
        "values": np.float32([0, 1]),
    }
    wanted = {name: array for name, array in constants.items() if name in node.input}
    model = chain(node, helper.make_node("Add", ["x", "k"], ["z"]), constants=wanted)
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)}
    found = half(model, feeds)
    (made,) = kinds(found.model, node.op_type)
    assert made.outputs[0].dtype == dtype
    if not node.op_type.startswith(("Random", "Bernoulli")):
        np.testing.assert_allclose(run(found.model, feeds)[0], run(model, feeds)[0], rtol=2e-3, atol=1e-2)


def test_whole_numbers_stay_whole():
    model = chain(
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT32),
        helper.make_node("Cast", ["i"], ["z"], to=TensorProto.FLOAT),
    )
    found = half(model, {"x": np.ones((2, 8), np.float32)})
    assert [v.dtype for node in found.model.graph for v in node.outputs if v.name == "i"] == [ir.DataType.INT32]


def test_resizes_scales_stay_float32():
    nodes = [helper.make_node("Resize", ["x", "", "s"], ["z"], mode="nearest")]
    model = hand_made(nodes, {"x": [1, 2, 4, 4]}, {"z": None}, {"s": np.float32([1, 1, 2, 2])})
    found = half(model, {"x": np.ones((1, 2, 4, 4), np.float32)})
    (node,) = kinds(found.model, "Resize")
    assert node.inputs[0].dtype == ir.DataType.FLOAT16
    assert node.inputs[2].dtype == ir.DataType.FLOAT


@pytest.mark.parametrize(
    ("node", "constants"),
    [
        (helper.make_node("Range", ["zero", "x0", "one"], ["z"]), {"zero": np.float32(0), "one": np.float32(1)}),
        (helper.make_node("DynamicQuantizeLinear", ["x0"], ["q", "z", "p"]), {}),
    ],
)
def test_operators_without_float16_stay_in_float32(node, constants):
    nodes = [helper.make_node("ReduceMax", ["x"], ["x0"], keepdims=0), node]
    model = hand_made(nodes, {"x": [2, 3]}, {"z": None}, constants)
    found = half(model, {"x": np.full((2, 3), 5, np.float32)})
    (kept,) = kinds(found.model, node.op_type)
    assert kept.inputs[0].dtype == ir.DataType.FLOAT
    assert run(found.model, {"x": np.full((2, 3), 5, np.float32)})[0].dtype == np.float32


def test_a_branch_is_refused():
    branch = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "b", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    )
    nodes = [helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch, name="choice")]
    model = hand_made(nodes, {"x": [2]}, {"z": [2]}, {"c": np.array(True)})
    with pytest.raises(QuantizationError, match="branches or loops") as caught:
        to_half(model, {})
    assert "choice" in str(caught.value)


def test_the_results_are_close_in_every_form():
    for layout in LAYOUTS:
        model = graph("v2", layout=layout)
        expected, found = run(model, images(16, 5))[0], run(half(model).model, images(16, 5))[0]
        assert np.abs(found - expected).max() < 2e-3 * np.abs(expected).max()
