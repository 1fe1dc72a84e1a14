"""The float32 graph that rounds like float16, against ONNX's own evaluation of the float16 graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("torch")
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from small_nets import graph, hand_made, images, kinds, run, statistics

from s2mlp_deploy.precision.accuracy import engine_of
from s2mlp_deploy.precision.half import to_half
from s2mlp_deploy.precision.placements import PLACEMENTS, Calibrated
from s2mlp_deploy.precision.rounding import round_like_half


def reference(model: ir.Model, feeds) -> list[np.ndarray]:
    with np.errstate(over="ignore", invalid="ignore"):
        return ReferenceEvaluator(ir.to_proto(model)).run(None, dict(feeds))


def small_half(nodes, inputs, constants, magnitudes=None) -> ir.Model:
    """A float16 graph without islands."""
    return to_half(hand_made(nodes, inputs, {"z": None}, constants), magnitudes or {}).model


def test_no_arithmetic_is_left_in_float16():
    for keep_io in (True, False):
        half = to_half(graph("v2"), statistics(graph("v2")).magnitudes, keep_io=keep_io).model
        rounded = round_like_half(half)
        for node in rounded.graph:
            if node.op_type == "Cast":
                continue
            assert all(v.dtype != ir.DataType.FLOAT16 for v in (*node.inputs, *node.outputs) if v is not None)
        assert {v.dtype for v in (*rounded.graph.inputs, *rounded.graph.outputs)} == {ir.DataType.FLOAT}
        assert [v.name for v in rounded.graph.outputs] == ["logits"]
        assert len(kinds(half, "Cast")) < len(kinds(rounded, "Cast"))


@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul"])
def test_elementwise_arithmetic_is_float16s_to_the_bit(op_type):
    random = np.random.default_rng(0)
    constant = random.normal(0, 50, 500).astype(np.float32)
    constant[:2] = 6e4, -6e4
    half = small_half([helper.make_node(op_type, ["x", "c"], ["z"])], {"x": ["n", 500]}, {"c": constant})
    feeds = {"x": (random.normal(size=(20, 500)) * 10.0 ** random.integers(-7, 5, (20, 500))).astype(np.float32)}
    feeds["x"][:, :2] = 6e4
    expected = reference(half, feeds)[0]
    np.testing.assert_array_equal(run(round_like_half(half), feeds)[0], expected)
    assert not np.isfinite(expected).all(), "no overflow was tried"
    # ONNX Runtime's optimizations leave the rounding where it is.
    np.testing.assert_array_equal(engine_of(half, rounded=True, threads=1).run(feeds)["z"], expected)


def test_an_overflow_that_onnxruntime_hides_is_seen():
    half = small_half(
        [helper.make_node("Mul", ["x", "a"], ["y"]), helper.make_node("Mul", ["y", "b"], ["z"])],
        {"x": [1]},
        {"a": np.float32([1000]), "b": np.float32([0.001])},
    )
    feeds = {"x": np.float32([300])}
    assert np.isinf(reference(half, feeds)[0]).all()
    assert np.isinf(run(round_like_half(half), feeds)[0]).all()
    assert np.isinf(engine_of(half, rounded=True, threads=1).run(feeds)["z"]).all()
    # The reason for all this; should ONNX Runtime ever compute in float16, this can go.
    np.testing.assert_allclose(engine_of(half, rounded=False, threads=1).run(feeds)["z"], 300, rtol=1e-2)


def test_a_sum_that_overflows_is_an_island_and_survives():
    model = hand_made(
        [helper.make_node("ReduceSum", ["x", "axes"], ["y"]), helper.make_node("Mul", ["y", "c"], ["z"])],
        {"x": ["n", 4096]},
        {"z": None},
        {"axes": np.array([1]), "c": np.float32(1e-3)},
    )
    feeds = {"x": np.full((2, 4096), 50, np.float32)}
    half = to_half(model, statistics(model, feeds, histograms=False).magnitudes).model
    expected = run(model, feeds)[0]
    for found in (run(round_like_half(half), feeds)[0], reference(half, feeds)[0]):
        np.testing.assert_allclose(found, expected, rtol=2e-3)


def test_inputs_are_rounded_too():
    model = hand_made([helper.make_node("Mul", ["x", "c"], ["z"])], {"x": [3]}, {"z": None}, {"c": np.float32(1)})
    half = to_half(model, {}, keep_io=False).model
    values = np.float32([1 + 2**-13, 70000, 1e-9])
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(run(round_like_half(half), {"x": values})[0], expected)


def test_types_in_attributes_are_float32_again():
    filled = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.1])
    half = small_half(
        [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("ConstantOfShape", ["s"], ["a"], value=filled),
            helper.make_node("Add", ["x", "a"], ["z"]),
        ],
        {"x": ["n", 3]},
        {},
    )
    feeds = {"x": np.float32([[1, 2, 3]])}
    np.testing.assert_array_equal(run(round_like_half(half), feeds)[0], reference(half, feeds)[0])


def in_steps(found, expected) -> float:
    """The largest difference in units of float16's spacing at the largest expected value."""
    step = float(np.spacing(np.abs(expected).max().astype(np.float16)))
    return float(np.abs(found.astype(np.float64) - expected).max()) / step


@pytest.mark.parametrize("layout", ["channels-last", "channels-first"])
@pytest.mark.parametrize("family", ["v1", "v2"])
def test_a_network_is_that_of_onnxs_reference(family, layout):
    """The reference adds products up in float16 or float32, as NumPy does, so a few last bits differ."""
    model = graph(family, layout=layout)
    half = to_half(model, statistics(model).magnitudes).model
    feeds = images(4, 11)
    expected, exact = reference(half, feeds)[0], run(model, feeds)[0]
    found = run(round_like_half(half), feeds)[0]
    assert in_steps(found, expected) <= 6
    assert not np.array_equal(found, exact), "nothing was rounded"


@pytest.mark.parametrize("precision", ["int8-trt"])
def test_quantized_networks_over_float16_are_too(precision):
    model = graph("v1")
    seen = statistics(model)
    quantized = PLACEMENTS[precision].apply(model, Calibrated(seen.histograms, "minmax"))
    half = to_half(quantized, seen.magnitudes).model
    expected, found = reference(half, images(2, 11))[0], run(round_like_half(half), images(2, 11))[0]
    # A last bit before a Q may become a whole step of int8 behind it.
    assert np.abs(found - expected).max() < 0.03 * np.abs(expected).max()
    assert np.abs(found - expected).mean() < 0.01 * np.abs(expected).max()
