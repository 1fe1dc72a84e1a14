"""What is quantized, and with which scales and integers, against ONNX Runtime's own quantization."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("torch")
from onnx import helper
from small_nets import graph, hand_made, kinds, run, statistics

from s2mlp_deploy.calibration.ranges import Range
from s2mlp_deploy.errors import QuantizationError
from s2mlp_deploy.precision.placements import PLACEMENTS, Calibrated
from s2mlp_deploy.precision.qdq import Scheme
from s2mlp_deploy.precision.quantizable import select_ops

UINT8 = Scheme(ir.DataType.UINT8, half_scales=False)
INT8 = Scheme(ir.DataType.INT8, half_scales=False)
INT8_HALF = Scheme(ir.DataType.INT8, half_scales=True)
FP8 = Scheme(ir.DataType.FLOAT8E4M3FN, half_scales=True)
RANDOM = np.random.default_rng(0)


# OpSelection


@pytest.mark.parametrize(("family", "products"), [("v1", 1 + 4), ("v2", 1 + 4)])
@pytest.mark.parametrize("layout", ["channels-last", "channels-first"])
def test_every_layer_over_cells_is_chosen_and_none_with_a_row_per_image(family, products, layout):
    found = select_ops(graph(family, layout=layout))
    assert len(found.ops) == products
    assert len({op.layer for op in found.ops}) == products
    assert "head" in found.skipped
    assert set(found.skipped.values()) == {"one row per image"}
    assert len(found.skipped) == (1 if family == "v1" else 3)
    for op in found.ops:
        assert op.bias is not None
        assert op.weights.shape[op.axis] == op.bias.shape[0]


def test_a_grouped_convolution_that_only_shifts_is_no_site():
    plain, grouped = (select_ops(graph("v1", form)).ops for form in ("slice-concat", "grouped-conv"))
    assert [op.layer for op in plain] == [op.layer for op in grouped]


W = RANDOM.normal(size=(6, 5)).astype(np.float32)


@pytest.mark.parametrize(
    ("node", "shapes"),
    [
        (helper.make_node("Gemm", ["x", "w"], ["z"], alpha=2.0), [7, 6]),
        (helper.make_node("Gemm", ["x", "w"], ["z"], transA=1), [6, 7]),
        (helper.make_node("MatMul", ["x", "x"], ["z"]), [6, 6]),
        (helper.make_node("Relu", ["x"], ["z"]), [7, 6]),
    ],
)
def test_a_graph_without_a_product_to_speed_up_is_refused(node, shapes):
    model = hand_made([node], {"x": shapes}, {"z": None}, {"w": W})
    with pytest.raises(QuantizationError, match="no GEMM or convolution"):
        select_ops(model)


@pytest.mark.parametrize("kind", ["quantize", "dequantize"])
def test_a_quantized_graph_is_refused(kind):
    constants = {"w": W, "s": np.float32(0.1), "zp": np.int8(0), "q": np.zeros((6, 5), np.int8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "zp"], ["i"]),
        helper.make_node("DequantizeLinear", ["i", "s", "zp"], ["y"]),
        helper.make_node("MatMul", ["y", "w"], ["z"]),
    ]
    if kind == "dequantize":
        nodes = [
            helper.make_node("DequantizeLinear", ["q", "s", "zp"], ["v"]),
            helper.make_node("MatMul", ["x", "v"], ["z"]),
        ]
    model = hand_made(nodes, {"x": [2, 3, 6]}, {"z": None}, constants)
    with pytest.raises(QuantizationError, match="quantized already"):
        select_ops(model)


# Scales and integers


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.0, 2.5), (-4.0, 0.0), (-0.17, 9.0), (-1e-6, 3e-6)])
def test_activation_parameters_are_onnxruntimes(low, high):
    tools = pytest.importorskip("onnxruntime.quantization.quant_utils")
    for scheme, qmin, qmax, symmetric in ((UINT8, 0, 255, False), (INT8, -127, 127, True)):
        chosen = Range(-max(-low, high), max(-low, high)) if symmetric else Range(low, high)
        scale, zero = scheme.parameters(chosen)
        ends = (np.float32(chosen.low), np.float32(chosen.high), np.array(qmin), np.array(qmax))
        expected_zero, expected_scale = tools.compute_scale_zp(*ends, symmetric=symmetric)
        np.testing.assert_allclose(scale, expected_scale, rtol=1e-6)
        assert int(zero) == int(expected_zero)
        assert scale.dtype == np.float32
        assert scale.shape == zero.shape == ()


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_are_onnxruntimes(axis):
    tools = pytest.importorskip("onnxruntime.quantization.quant_utils")
    from onnx import TensorProto

    weights = (
        RANDOM.normal(size=(7, 9)) * np.logspace(-3, 2, 9 if axis else 7)[:, None].T
        if axis
        else RANDOM.normal(size=(7, 9)) * np.logspace(-3, 2, 7)[:, None]
    ).astype(np.float32)
    integers, scales = UINT8.weights(weights, axis)
    for channel in range(weights.shape[axis]):
        row = weights.take(channel, axis)
        _, scale, expected = tools.quantize_data(row, TensorProto.INT8, symmetric=True, reduce_range=False)
        np.testing.assert_allclose(scales[channel], scale, rtol=1e-6)
        np.testing.assert_array_equal(integers.take(channel, axis), expected)
    assert integers.dtype == np.int8
    assert np.abs(integers.astype(int)).max() == 127


@pytest.mark.parametrize("scheme", [INT8_HALF, FP8])
def test_scales_for_float16_graphs_are_float16_numbers(scheme):
    weights = (RANDOM.normal(size=(40, 5)) * np.logspace(-9, 6, 40)[:, None]).astype(np.float32)
    integers, scales = scheme.weights(weights, 0)
    np.testing.assert_array_equal(scales.astype(np.float16).astype(np.float32), scales)
    assert (scales > 0).all()
    assert np.isfinite(scales).all()
    # Where the scale is an ordinary float16 number, the weights come back to half a step.
    normal = scales > 2.0**-14
    restored = integers.astype(np.float32) * scales[:, None]
    step = scales[:, None] if scheme is INT8_HALF else np.abs(weights) * 2.0**-3 + scales[:, None]
    assert (np.abs(restored - weights) <= 0.57 * step)[normal].all()
    for magnitude in (1e-12, 1.0, 1e5, 1e9, 1e30):
        scale, _ = scheme.parameters(Range(-magnitude, magnitude))
        assert 0 < scale <= 65504
        assert np.float32(np.float16(scale)) == scale


@pytest.mark.parametrize("scheme", [UINT8, INT8, INT8_HALF, FP8])
def test_an_activation_that_is_always_zero_gets_the_scale_one(scheme):
    scale, zero = scheme.parameters(Range(0.0, 0.0))
    assert (float(scale), float(zero)) == (1.0, 0.0)
    integers, scales = scheme.weights(np.zeros((3, 4), np.float32), 0)
    np.testing.assert_array_equal(scales, 1)
    np.testing.assert_array_equal(integers.astype(np.float32), 0)


def test_zero_is_exact_in_every_scheme():
    for low, high in RANDOM.uniform(0, 5, (50, 2)):
        scale, zero = UINT8.parameters(Range(-low, high))
        assert 0 <= int(zero) <= 255
        assert zero.dtype == np.uint8
        ends = (np.array([0, 255]) - int(zero)) * float(scale)
        assert ends[0] <= -low + float(scale)
        assert ends[1] >= high - float(scale)


def test_fp8_weights_are_those_of_the_format():
    weights = RANDOM.normal(size=(4, 50)).astype(np.float32)
    values, scales = FP8.weights(weights, 0)
    assert values.dtype == ml_dtypes.float8_e4m3fn
    assert np.isfinite(values.astype(np.float32)).all()
    np.testing.assert_allclose(values.astype(np.float32) * scales[:, None], weights, rtol=2.0**-3, atol=0.01)


# A layer


def quantized_layer(weights, bias, feeds, precision="int8"):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="fc/MatMul"),
        helper.make_node("Add", ["m", "b"], ["z"], name="fc/Add"),
    ]
    model = hand_made(nodes, {"x": ["n", 4, weights.shape[0]]}, {"z": None}, {"w": weights, "b": bias})
    seen = statistics(model, feeds)
    return model, PLACEMENTS[precision].apply(model, Calibrated(seen.histograms, "minmax"))


def test_a_layer_is_onnxruntimes_quantize_static(tmp_path):
    """One layer through quantize_static with the same settings gives the same integers and scales."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    import onnx

    feeds = {"x": RANDOM.normal(0.4, 1, (3, 4, 6)).astype(np.float32)}
    model, ours = quantized_layer(W, np.arange(5, dtype=np.float32), feeds)
    ir.save(model, tmp_path / "float.onnx")

    class Once(quantization.CalibrationDataReader):
        def __init__(self):
            self.left = [feeds]

        def get_next(self):
            return self.left.pop() if self.left else None

    quantization.quantize_static(
        tmp_path / "float.onnx",
        tmp_path / "int8.onnx",
        Once(),
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        extra_options={"WeightSymmetric": True},
    )
    theirs = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(tmp_path / "int8.onnx").graph.initializer
    }
    own = {name: value.const_value.numpy() for name, value in ours.graph.initializers.items()}
    np.testing.assert_array_equal(own["w.quantized"], theirs["w_quantized"])
    np.testing.assert_allclose(own["w.scale"], theirs["w_scale"], rtol=1e-6)
    np.testing.assert_allclose(own["x.scale"], theirs["x_scale"], rtol=1e-6)
    assert own["x.zero_point"] == theirs["x_zero_point"]


def test_a_bias_is_kept_where_weights_are_tiny_or_zero():
    """int32 counts a bias in units of both scales, which pass it out of range where the weights are tiny."""
    weights = (W * np.array([1, 1e-12, 0, 1e-20, 1])).astype(np.float32)
    bias = np.array([0.3, 0.3, -0.3, 40.0, 0.0], np.float32)
    feeds = {"x": RANDOM.normal(size=(3, 4, 6)).astype(np.float32)}
    model, quantized = quantized_layer(weights, bias, feeds)
    difference = np.abs(run(quantized, feeds)[0] - run(model, feeds)[0]).reshape(-1, 5).max(axis=0)
    assert (difference[1:4] < 1e-5).all(), difference
    assert difference[0] < 0.1
    assert difference[4] < 0.1
    integers = {name: v.const_value.numpy() for name, v in quantized.graph.initializers.items()}["fc.bias.quantized"]
    assert integers.dtype == np.int32
    # The accumulator has room for the products beside it.
    assert np.abs(integers.astype(np.int64)).max() <= 2**30


def test_tied_weights_are_stored_once():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="one/MatMul"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["z"], name="two/MatMul"),
    ]
    square = RANDOM.normal(size=(6, 6)).astype(np.float32)
    model = hand_made(nodes, {"x": ["n", 4, 6]}, {"z": None}, {"w": square})
    feeds = {"x": RANDOM.normal(size=(3, 4, 6)).astype(np.float32)}
    for precision in PLACEMENTS:
        quantized = PLACEMENTS[precision].apply(model, Calibrated(statistics(model, feeds).histograms, "minmax"))
        big = [v for v in quantized.graph.initializers.values() if v.shape == (6, 6)]
        assert len(big) == 1
        assert len(kinds(quantized, "QuantizeLinear")) == 2
