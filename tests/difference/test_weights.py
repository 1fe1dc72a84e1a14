"""Weights of two graphs, compared as the graphs read them."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_graphs import FLOAT, constant, fp8_constant, model, node, value

from s2mlp_deploy.difference.graphs import GraphDifference, compare_graphs
from s2mlp_deploy.difference.reading import Graph, read

RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.standard_normal((8, 6)).astype(np.float32)
X, Y = value("x", FLOAT, ["n", 8]), value("y", FLOAT, ["n", 6])
SCALES = (np.abs(WEIGHT).max(axis=0) / 127).astype(np.float32)
INTEGERS = np.clip(np.round(WEIGHT / SCALES), -127, 127).astype(np.int8)


def product(*constants: onnx.TensorProto, reads: str = "fc.weight_t", before: tuple[onnx.NodeProto, ...] = ()) -> Graph:
    made = model([*before, node("MatMul", ["x", reads], ["y"], "fc/MatMul")], [X], [Y], constants)
    return read(ir.from_proto(onnx.shape_inference.infer_shapes(made)))


FP32 = product(constant("fc.weight_t", WEIGHT))


def dequantized(integers: np.ndarray = INTEGERS, scales: np.ndarray = SCALES) -> Graph:
    return product(
        constant("fc.weight_t.quantized", integers),
        constant("s", scales),
        reads="w",
        before=(node("DequantizeLinear", ["fc.weight_t.quantized", "s"], ["w"], "fc/weight/DequantizeLinear", axis=1),),
    )


def only(found: GraphDifference):
    (weight,) = found.weights
    return weight


def test_integers_are_compared_as_what_they_stand_for() -> None:
    weight = only(compare_graphs(FP32, dequantized()))
    assert (weight.kind, weight.before, weight.after) == ("rounded", "fp32 8x6", "int8 8x6")
    expected = np.abs(WEIGHT - INTEGERS * SCALES)
    assert weight.max_abs == pytest.approx(expected.max())
    assert weight.mean_abs == pytest.approx(expected.mean())
    assert weight.relative == pytest.approx(expected.max() / np.abs(WEIGHT).max())
    assert only(compare_graphs(dequantized(), FP32)).kind == "rounded"


@pytest.mark.parametrize("factor", [1.03, 0.97])
def test_a_wrong_scale_is_no_rounding(factor: float) -> None:
    wrong = SCALES.copy()
    wrong[2] *= factor
    assert only(compare_graphs(FP32, dequantized(scales=wrong))).kind == "differs"
    assert only(compare_graphs(dequantized(), dequantized(scales=wrong))).kind != "stored"


def test_a_wrong_integer_is_no_rounding() -> None:
    wrong = INTEGERS.copy()
    wrong[3, 3] += 2
    assert only(compare_graphs(FP32, dequantized(wrong))).kind == "differs"
    assert only(compare_graphs(dequantized(), dequantized(wrong))).unequal == 1


def test_q_and_dq_on_a_float_weight() -> None:
    both = product(
        constant("fc.weight_t", WEIGHT),
        constant("s", SCALES),
        constant("z", np.zeros(6), np.int8),
        reads="w",
        before=(
            node("QuantizeLinear", ["fc.weight_t", "s", "z"], ["q"], "fc/weight/QuantizeLinear", axis=1),
            node("DequantizeLinear", ["q", "s", "z"], ["w"], "fc/weight/DequantizeLinear", axis=1),
        ),
    )
    weight = only(compare_graphs(FP32, both))
    assert weight.kind == "rounded"
    assert weight.max_abs == pytest.approx(np.abs(WEIGHT - INTEGERS * SCALES).max())


def test_float16_and_fp8_and_a_cast_back() -> None:
    half = product(
        constant("fc.weight_t.fp16", WEIGHT, np.float16),
        reads="w",
        before=(node("Cast", ["fc.weight_t.fp16"], ["w"], "fc/Cast", to=FLOAT),),
    )
    weight = only(compare_graphs(FP32, half))
    assert (weight.kind, weight.max_abs) == ("rounded", float(np.abs(WEIGHT - WEIGHT.astype(np.float16)).max()))
    shifted = product(constant("fc.weight_t", WEIGHT + 0.01), reads="fc.weight_t")
    assert only(compare_graphs(half, shifted)).kind == "differs"
    eighth = product(
        fp8_constant("fc.weight_t.quantized", [8, 6], 0.5),
        constant("s", 1.0, np.float32),
        reads="w",
        before=(node("DequantizeLinear", ["fc.weight_t.quantized", "s"], ["w"], "fc/DQ"),),
    )
    halves = product(constant("fc.weight_t", np.full((8, 6), 0.5), np.float32))
    assert only(compare_graphs(halves, eighth)).kind == "stored"


def test_another_layout_is_the_same_weight() -> None:
    turned = product(
        constant("fc.weight", WEIGHT.T),
        reads="w",
        before=(node("Transpose", ["fc.weight"], ["w"], "fc/Transpose", perm=[1, 0]),),
    )
    assert only(compare_graphs(FP32, turned)).kind == "stored"
    conv = model(
        [node("Conv", ["x", "fc.weight"], ["y"], "fc/Conv")],
        [value("x", FLOAT, ["n", 8, 4, 4])],
        [value("y", FLOAT, ["n", 6, 4, 4])],
        [constant("fc.weight", WEIGHT.T.reshape(6, 8, 1, 1))],
    )
    found = compare_graphs(FP32, read(ir.from_proto(conv)))
    assert (only(found).kind, only(found).unequal) == ("stored", 0)


def test_names_that_only_count_are_matched_by_what_reads_them() -> None:
    found = compare_graphs(FP32, product(constant("val_7", WEIGHT), reads="val_7"))
    assert (found.weights, found.same_weights) == ((), 1)


def test_nan_is_never_the_same_number() -> None:
    bad = WEIGHT.copy()
    bad[0, 0] = np.nan
    half = product(constant("fc.weight_t.fp16", bad, np.float16), reads="fc.weight_t.fp16")
    weight = only(compare_graphs(product(constant("fc.weight_t", bad)), half))
    assert (weight.kind, weight.not_finite) == ("differs", 1)
    assert weight.max_abs is not None
    assert weight.max_abs < 0.01


def test_another_size_and_one_side_only() -> None:
    more = RANDOM.standard_normal((8, 7)).astype(np.float32)
    wide = model(
        [node("MatMul", ["x", "fc.weight_t"], ["y"], "fc/MatMul")],
        [X],
        [value("y", FLOAT, ["n", 7])],
        [constant("fc.weight_t", more)],
    )
    weight = only(compare_graphs(FP32, read(ir.from_proto(wide))))
    assert (weight.kind, weight.max_abs, weight.before, weight.after) == ("differs", None, "fp32 8x6", "fp32 8x7")
    bias = product(
        constant("fc.weight_t", WEIGHT),
        constant("fc.bias", WEIGHT[0]),
        reads="w",
        before=(node("Add", ["fc.weight_t", "fc.bias"], ["w"], "fc/Add"),),
    )
    assert {w.kind for w in compare_graphs(FP32, bias).weights} == {"added"}


def test_scales_that_would_grow_a_weight_are_not_computed() -> None:
    many = dequantized(scales=np.ones(1_000_000, np.float32))
    assert only(compare_graphs(FP32, many)).max_abs is None


def test_damaged_tensors_differ() -> None:
    """A file that is only looked at need not be valid."""
    cut = constant("fc.weight_t", WEIGHT)
    cut.raw_data = cut.raw_data[:10]
    made = onnx.helper.make_model(
        onnx.helper.make_graph([node("MatMul", ["x", "fc.weight_t"], ["y"], "fc/MatMul")], "g", [X], [Y], [cut])
    )
    weight = only(compare_graphs(FP32, read(ir.from_proto(made))))
    assert (weight.kind, weight.max_abs) == ("differs", None)
    axes = constant("axes", [1], np.int64)
    axes.raw_data = axes.raw_data[:3]
    sums = [node("ReduceSum", ["x", "axes"], ["y"], "fc/ReduceSum")]
    damaged = read(ir.from_proto(onnx.helper.make_model(onnx.helper.make_graph(sums, "g", [X], [Y], [axes]))))
    assert damaged.nodes["fc"][0].settings["axes"] == "damaged"
