"""What is quantized, and with which scales and integers, against ONNX Runtime's own quantization."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("torch")
from onnx import helper
from small_nets import graph, hand_made, kinds, run, statistics

from s2mlp_deploy.calibration.ranges import Range
from s2mlp_deploy.errors import InputError, QuantizationError
from s2mlp_deploy.precision.derive import derive
from s2mlp_deploy.precision.exclusion import Exclusion
from s2mlp_deploy.precision.placements import PLACEMENTS, Calibrated, placement_of
from s2mlp_deploy.precision.qdq import Scheme
from s2mlp_deploy.precision.quantizable import select_ops

UINT8 = Scheme(ir.DataType.UINT8, half_scales=False)
INT8 = Scheme(ir.DataType.INT8, half_scales=False)
INT8_HALF = Scheme(ir.DataType.INT8, half_scales=True)
FP8 = Scheme(ir.DataType.FLOAT8E4M3FN, half_scales=True)
RANDOM = np.random.default_rng(0)


# What is selected


@pytest.mark.parametrize(("family", "count"), [("v1", 1 + 4), ("v2", 1 + 4)])
@pytest.mark.parametrize("layout", ["channels-last", "channels-first"])
def test_every_layer_over_cells_is_chosen_and_none_with_a_row_per_image(family, count, layout):
    found = select_ops(graph(family, layout=layout))
    assert len(found.ops) == count
    assert len({op.layer for op in found.ops}) == count
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
    top = 127 if scheme is INT8_HALF else 448
    for magnitude in np.geomspace(1e-12, 1e30, 500):
        scale, _ = scheme.parameters(Range(-magnitude, magnitude))
        # Rounded to the nearest, a subnormal scale could be a third too small for the range.
        assert scale * top >= magnitude * (1 - 1e-6) or scale == 65504
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


def test_seven_bit_weights_cannot_saturate_sixteen_bits():
    """``vpmaddubsw`` of x86 without VNNI adds two products of uint8 and int8 in int16."""
    weights = RANDOM.normal(size=(7, 90)).astype(np.float32)
    worst = {}
    for scheme in (UINT8, replace(UINT8, reduce_range=True)):
        integers, scales = scheme.weights(weights, 0)
        pairs = integers.astype(int)[:, ::2] + integers.astype(int)[:, 1::2]
        worst[scheme.reduce_range] = 255 * np.abs(integers.astype(int)).max() * 2
        np.testing.assert_allclose(integers * scales[:, None], weights, atol=0.51 * scales.max())
        assert pairs.any()
    assert worst[False] > np.iinfo(np.int16).max >= worst[True]
    assert placement_of("int8", reduce_range=True).scheme.reduce_range
    # TensorRT multiplies int8 by int8 and adds in 32 bits.
    assert placement_of("int8-trt", reduce_range=True) == PLACEMENTS["int8-trt"]


# A layer


@pytest.mark.parametrize("shape", [(5,), (1, 5), (1,), (), (1, 1)])
@pytest.mark.parametrize("op_type", ["Gemm", "MatMul"])
def test_a_bias_of_any_shape_that_is_one_number_per_channel(op_type, shape):
    bias = RANDOM.normal(size=shape).astype(np.float32)
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["z"], name="fc/Gemm")]
    if op_type == "MatMul":
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["m"], name="fc/MatMul"),
            helper.make_node("Add", ["m", "b"], ["z"], name="fc/Add"),
        ]
    rows = hand_made(
        [helper.make_node("Reshape", ["y", "s"], ["x"]), *nodes],
        {"y": ["n", 3, 6]},
        {"z": None},
        {"w": W, "b": bias, "s": np.array([-1, 6])},
    )
    feeds = {"y": RANDOM.normal(size=(2, 3, 6)).astype(np.float32)}
    (op,) = select_ops(rows).ops
    np.testing.assert_array_equal(op.bias_values, np.broadcast_to(bias.reshape(-1), 5))
    quantized = PLACEMENTS["int8"].apply(rows, Calibrated(statistics(rows, feeds).histograms, "minmax"))
    assert len(kinds(quantized, "Gemm")) == 1
    assert not kinds(quantized, "Add")
    np.testing.assert_allclose(run(quantized, feeds)[0], run(rows, feeds)[0], atol=0.1)


def test_a_gemm_that_adds_a_matrix_is_left_alone():
    nodes = [
        helper.make_node("Reshape", ["y", "s"], ["x"], name="rows/Reshape"),
        helper.make_node("Gemm", ["x", "w", "b"], ["z"], name="fc/Gemm"),
    ]
    constants = {"w": W, "b": np.zeros((6, 5), np.float32), "s": np.array([6, 6])}
    with pytest.raises(QuantizationError, match="no GEMM or convolution"):
        select_ops(hand_made(nodes, {"y": [2, 3, 6]}, {"z": None}, constants))


def convolution(outputs, inputs, kernel, group=1, first=True):
    nodes = [helper.make_node("Conv", ["x" if first else "r", "w"], ["z"], name="conv/Conv", group=group)]
    if not first:
        nodes.insert(0, helper.make_node("Relu", ["x"], ["r"]))
    # So that the graph has something to quantize in any case.
    other = helper.make_node("MatMul", ["z", "big"], ["y"], name="other/MatMul")
    weights = {
        "w": RANDOM.normal(size=(outputs, inputs // group, *kernel)).astype(np.float32),
        "big": RANDOM.normal(size=(9 - kernel[1], 32)).astype(np.float32),
    }
    return hand_made([*nodes, other], {"x": ["n", inputs, 8, 8]}, {"y": None}, weights)


@pytest.mark.parametrize(
    ("shape", "int8", "fp8"),
    [
        ({"outputs": 64, "inputs": 64, "kernel": (1, 1)}, True, True),
        ({"outputs": 64, "inputs": 16, "kernel": (3, 3)}, True, False),
        ({"outputs": 64, "inputs": 64, "kernel": (7, 7)}, True, False),
        # A patch embedding: few channels, but the first layer, and its results come in eights.
        ({"outputs": 64, "inputs": 3, "kernel": (4, 4)}, True, False),
        ({"outputs": 64, "inputs": 3, "kernel": (4, 2)}, False, False),
        ({"outputs": 65, "inputs": 3, "kernel": (4, 4)}, False, False),
        ({"outputs": 8, "inputs": 8, "kernel": (3, 3), "first": False}, False, False),
        ({"outputs": 8, "inputs": 8, "kernel": (3, 3)}, True, False),
        ({"outputs": 32, "inputs": 32, "kernel": (3, 3), "group": 32}, True, False),
        ({"outputs": 32, "inputs": 32, "kernel": (1, 1), "group": 32}, False, False),
    ],
)
def test_convolutions_with_few_channels_are_left_alone(shape, int8, fp8):
    model = convolution(**shape)
    for dtype, worth in ((ir.DataType.INT8, int8), (ir.DataType.FLOAT8E4M3FN, fp8)):
        found = select_ops(model, dtype=dtype)
        assert ("conv" in [op.layer for op in found.ops]) is worth
        assert ("conv" in found.skipped) is not worth


@pytest.mark.parametrize("exclusion", [Exclusion(("mlp",)), Exclusion(op_types=("Conv",))])
def test_what_the_user_excludes_is_in_float(exclusion):
    model = graph("v2")
    expected = {op.layer for op in select_ops(model).ops if exclusion.reason(op.node)}
    assert expected
    for precision in ("int8", "int8-trt"):
        found = derive(model, precision, statistics(model), method="minmax", exclusion=exclusion)
        told = {item.layer: item.reason for item in found.exceptions if "excluded" in item.reason}
        assert set(told) == expected
        quantized = {
            n.name.split("/weight/")[0] for n in kinds(found.model, "DequantizeLinear") if "/weight/" in n.name
        }
        assert quantized
        assert not quantized & expected
    half = derive(model, "fp16", statistics(model), method="minmax", exclusion=exclusion)
    islands = {item.layer for item in half.exceptions if "excluded" in item.reason}
    assert islands
    assert {n.name: n.outputs[0].dtype for n in half.model.graph if n.name in islands} == dict.fromkeys(
        islands, ir.DataType.FLOAT
    )


def test_an_exclusion_that_cannot_be_meant_is_refused():
    with pytest.raises(InputError, match="no regular expression"):
        Exclusion(("mlp(",))
    nodes = list(graph("v2").graph)
    with pytest.raises(InputError, match="--exclude 'attention7' excludes nothing") as caught:
        Exclusion(("attention7",)).check(nodes)
    assert "stages.0" in str(caught.value.fix)
    with pytest.raises(InputError, match="--exclude-op LSTM excludes nothing") as caught:
        Exclusion(op_types=("LSTM",)).check(nodes)
    assert all(node.op_type in str(caught.value.fix) for node in nodes), "all that can be chosen are listed"
    Exclusion(("mlp",), ("Conv",)).check(nodes)


def test_one_excluded_op_of_a_layer_does_not_exempt_the_others():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="twice/MatMul"),
        helper.make_node("MatMul", ["x", "w"], ["b"], name="twice/MatMul_1"),
        helper.make_node("Add", ["a", "b"], ["z"]),
    ]
    model = hand_made(nodes, {"x": ["n", 7, 6]}, {"z": None}, {"w": W})
    found = select_ops(model, Exclusion(("MatMul_1",)))
    assert [op.node.name for op in found.ops] == ["twice/MatMul"]
    assert list(found.skipped) == ["twice/MatMul_1"]
    feeds = {"x": RANDOM.normal(size=(8, 7, 6)).astype(np.float32)}
    told = derive(
        model, "int8", statistics(model, feeds), method="minmax", exclusion=Exclusion(("MatMul_1",))
    ).exceptions
    assert [item.covers("twice/MatMul_1") for item in told] == [True]
    assert not any(item.covers("twice/MatMul") for item in told)


def test_what_only_fp8_cannot_speed_up_names_fp8():
    nodes = [helper.make_node("Conv", ["x", "k"], ["z"], name="conv/Conv")]
    kernel = RANDOM.normal(size=(16, 16, 3, 3)).astype(np.float32)
    model = hand_made(nodes, {"x": ["n", 16, 8, 8]}, {"z": None}, {"k": kernel})
    assert len(select_ops(model).ops) == 1
    with pytest.raises(QuantizationError, match="that fp8 would speed up") as caught:
        select_ops(model, dtype=ir.DataType.FLOAT8E4M3FN)
    assert caught.value.fix == "leave fp8 out of --precision"


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
