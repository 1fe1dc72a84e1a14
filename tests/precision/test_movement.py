"""int8 begins above a shift in every form, and only where nobody else wants the value in float."""

from __future__ import annotations

import functools

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("torch")
from onnx import helper
from small_nets import FORMS, LAYOUTS, graph, hand_made, images, kinds, run, statistics

from s2mlp_deploy.api import build
from s2mlp_deploy.precision import qdq
from s2mlp_deploy.precision.movement import Movement, movement_before
from s2mlp_deploy.precision.placements import PLACEMENTS, Calibrated
from s2mlp_deploy.precision.quantizable import select_ops

INTEGERS = {"int8": ir.DataType.UINT8, "int8-trt": ir.DataType.INT8}
# What each form is made of; around a grouped convolution stand Q and DQ, since TensorRT fuses them into it.
MOVERS = {
    "slice-concat": {"Slice", "Concat", "Split"},
    "pad-slice": {"Pad", "Slice", "Concat", "Split"},
    "gather": {"Gather", "Reshape"},
    "row-gather": {"Gather", "Reshape", "Transpose"},
    "grouped-conv": {"Pad", "Conv"},
}


@functools.cache
def histograms(family: str, form: str, layout: str, border: str):
    return statistics(graph(family, form, layout, border)).histograms


def place(precision: str, family: str, form: str, layout: str = "channels-last", border: str = "keep") -> ir.Model:
    seen = histograms(family, form, layout, border)
    return PLACEMENTS[precision].apply(graph(family, form, layout, border), Calibrated(seen, "minmax"))


def between(model: ir.Model) -> list[list[ir.Node]]:
    """For every Q of an activation, the nodes on the way to the DQs behind it; a Conv between DQ and Q counts."""
    regions = []
    for quantize in kinds(model, "QuantizeLinear"):
        if any(isinstance(r, ir.Node) and r.op_type == "Conv" for r in [quantize.inputs[0].producer()]):
            continue
        found, pending = [], list(quantize.outputs)
        while pending:
            for reader, _ in pending.pop().uses():
                if reader in found or (reader.op_type == "DequantizeLinear" and not _before_one_hot(reader)):
                    continue
                found.append(reader)
                pending.extend(reader.outputs)
        # Reshapes alone are rows and their views, of no shift.
        regions.append(found if any(node.op_type != "Reshape" for node in found) else [])
    return regions


def _before_one_hot(dequantize: ir.Node) -> bool:
    return any(
        r.op_type == "Conv" and r.attributes.get("group") is not None and r.attributes["group"].as_int() > 1
        for r, _ in dequantize.outputs[0].uses()
    )


@pytest.mark.parametrize("precision", INTEGERS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
def test_v1_moves_integers_through_every_form(form, layout, precision):
    model = graph("v1", form, layout)
    quantized = place(precision, "v1", form, layout)
    regions = [region for region in between(quantized) if region]
    # One block with one shift, behind which stands one GEMM.
    assert len(regions) == 1
    for region in regions:
        names = {node.op_type for node in region}
        assert names & MOVERS[form], names
        for node in region:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Conv"):
                continue
            assert {value.dtype for value in node.outputs} == {INTEGERS[precision]}, node.name
            if node.op_type == "Pad" and len(node.inputs) > 2 and node.inputs[2] is not None:
                assert node.inputs[2].dtype == INTEGERS[precision]
    # No movement of the shift is left in float.
    moved = {node for region in regions for node in region}
    shifts = [
        node
        for node in kinds(quantized, "Slice", "Concat", "Gather", "Pad", "Split")
        if node.name in {n.name for n in kinds(model, "Slice", "Concat", "Gather", "Pad", "Split")}
    ]
    data = [node for node in shifts if node.inputs[0].dtype != ir.DataType.INT64]
    assert set(data) <= moved


@pytest.mark.parametrize("precision", INTEGERS)
@pytest.mark.parametrize(("layout", "border"), [*((layout, "keep") for layout in LAYOUTS), ("channels-last", "zero")])
@pytest.mark.parametrize("form", FORMS)
def test_moving_integers_changes_no_bit(monkeypatch, form, layout, precision, border):
    quantized = place(precision, "v1", form, layout, border)
    monkeypatch.setattr(qdq, "movement_before", lambda value, readers: Movement((value,), ()))
    below = place(precision, "v1", form, layout, border)
    assert any(between(quantized))
    assert not any(between(below))
    np.testing.assert_array_equal(run(quantized, images(4, 9))[0], run(below, images(4, 9))[0])


@pytest.mark.parametrize("form", FORMS)
def test_v2s_shifts_stay_in_float(form):
    quantized = place("int8-trt", "v2", form)
    assert not any(between(quantized))
    for node in kinds(quantized, "Slice", "Concat", "Gather", "Pad", "Split"):
        assert all(value.dtype in (ir.DataType.FLOAT, ir.DataType.INT64) for value in node.outputs)


def shifted_product(*middle, outputs=None, shape=("n", 4, 6), constants=None, weights=(6, 5)):
    """x, then ``middle`` from x to y, then y times weights."""
    nodes = [*middle, helper.make_node("MatMul", ["y", "w"], ["z"])]
    random = np.random.default_rng(0)
    constants = {"w": random.normal(size=weights).astype(np.float32)} | (constants or {})
    return hand_made(nodes, {"x": shape}, {"z": None} | (outputs or {}), constants)


def movement(model: ir.Model) -> Movement:
    (op,) = select_ops(model).ops
    return movement_before(op.activation, {op.node})


SLICE = {
    "starts": np.array([1]),
    "ends": np.array([4]),
    "axes": np.array([1]),
}


def test_a_slice_is_moved_over():
    model = shifted_product(helper.make_node("Slice", ["x", "starts", "ends", "axes"], ["y"]), constants=SLICE)
    found = movement(model)
    assert [value.name for value in found.sources] == ["x"]
    assert [node.op_type for node in found.nodes] == ["Slice"]


@pytest.mark.parametrize("reader", ["node", "output"])
def test_a_value_that_someone_else_reads_in_float_is_not_moved_over(reader):
    nodes = [helper.make_node("Slice", ["x", "starts", "ends", "axes"], ["y"])]
    outputs = {"y": None}
    if reader == "node":
        nodes.append(helper.make_node("Relu", ["y"], ["other"]))
        outputs = {"other": None}
    found = movement(shifted_product(*nodes, outputs=outputs, constants=SLICE))
    assert [value.name for value in found.sources] == ["y"]
    assert found.nodes == ()


def test_only_what_is_read_by_others_ends_the_movement():
    nodes = [
        helper.make_node("Slice", ["x", "starts", "ends", "axes"], ["a"]),
        helper.make_node("Relu", ["a"], ["other"]),
        helper.make_node("Transpose", ["a"], ["y"], perm=[0, 1, 2]),
    ]
    found = movement(shifted_product(*nodes, outputs={"other": None}, constants=SLICE))
    assert [value.name for value in found.sources] == ["a"]
    assert [node.op_type for node in found.nodes] == ["Transpose"]


def test_half_a_split_that_feeds_something_else_is_not_moved_over():
    nodes = [
        helper.make_node("Split", ["x"], ["y", "b"], axis=2, num_outputs=2),
        helper.make_node("Relu", ["b"], ["other"]),
    ]
    found = movement(shifted_product(*nodes, outputs={"other": None}, shape=("n", 4, 12)))
    assert [value.name for value in found.sources] == ["y"]


def test_arithmetic_is_not_movement():
    assert movement(shifted_product(helper.make_node("Relu", ["x"], ["y"]))).nodes == ()


PADS = np.array([0, 1, 0, 0, 1, 0])


@pytest.mark.parametrize("fill", ["zero", "left out", "edge"])
@pytest.mark.parametrize("precision", INTEGERS)
def test_a_pad_fills_with_what_zero_became(fill, precision):
    constants = {"pads": PADS} | ({"fill": np.float32(0)} if fill == "zero" else {})
    inputs = ["x", "pads"] + (["fill"] if fill == "zero" else [])
    pad = helper.make_node("Pad", inputs, ["y"], mode="edge" if fill == "edge" else "constant")
    model = shifted_product(pad, constants=constants)
    # Values around 3 make uint8's zero-point anything but 0.
    feeds = {"x": np.random.default_rng(1).uniform(-1, 4, (2, 4, 6)).astype(np.float32)}
    seen = statistics(model, feeds)
    quantized = PLACEMENTS[precision].apply(model, Calibrated(seen.histograms, "minmax"))
    (node,) = kinds(quantized, "Pad")
    assert node.inputs[0].dtype == INTEGERS[precision]
    assert len(node.inputs) < 3 or node.inputs[2] is None or precision == "int8", "TensorRT takes no such constant"
    difference = np.abs(run(quantized, feeds)[0] - run(model, feeds)[0]).max()
    assert difference < 0.15, "the padding became something else"


def test_a_pad_with_another_number_is_not_moved_over():
    constants = {"pads": PADS, "fill": np.float32(1)}
    pad = helper.make_node("Pad", ["x", "pads", "fill"], ["y"])
    assert movement(shifted_product(pad, constants=constants)).nodes == ()


def test_sources_that_meet_in_a_concat_share_one_scale():
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Neg", ["x"], ["b"]),
        helper.make_node("Concat", ["a", "b", "c"], ["y"], axis=1),
    ]
    constant = np.full((1, 2, 6), 0.5, np.float32)
    model = shifted_product(*nodes, constants={"c": constant}, shape=(1, 4, 6))
    feeds = {"x": np.random.default_rng(2).normal(size=(1, 4, 6)).astype(np.float32)}
    seen = statistics(model, feeds)
    quantized = PLACEMENTS["int8-trt"].apply(model, Calibrated(seen.histograms, "minmax"))
    (concat,) = kinds(quantized, "Concat")
    assert {value.dtype for value in concat.inputs} == {ir.DataType.INT8}
    assert len({node.inputs[1].name for node in kinds(quantized, "QuantizeLinear")}) == 1
    assert np.abs(run(quantized, feeds)[0] - run(model, feeds)[0]).max() < 0.15


@pytest.mark.parametrize("form", FORMS)
def test_tensorrt_builds_integers_that_move_with_zeros_coming_in(form, tmp_path):
    # It takes no constant of integers but before a DQ: not what a padding adds, not what is put beside a tensor.
    pytest.importorskip("tensorrt_rtx")
    path = tmp_path / "model.onnx"
    ir.save(place("int8-trt", "v1", form, "channels-last", "zero"), path)
    shapes = {"input": (2, 3, 16, 16)}
    made = build(path, targets=["sm89"], min_shapes=shapes, opt_shapes=shapes, max_shapes=shapes)
    assert made.contents.matrix_ops


def test_tensorrt_builds_integers_beside_a_constant(tmp_path):
    pytest.importorskip("tensorrt_rtx")
    concat = helper.make_node("Concat", ["x", "c"], ["y"], axis=1)
    model = shifted_product(concat, constants={"c": np.full((1, 2, 6), 0.5, np.float32)}, shape=(1, 4, 6))
    seen = statistics(model, {"x": np.random.default_rng(2).normal(size=(1, 4, 6)).astype(np.float32)})
    path = tmp_path / "model.onnx"
    ir.save(PLACEMENTS["int8-trt"].apply(model, Calibrated(seen.histograms, "minmax")), path)
    assert build(path, targets=["sm89"]).contents.matrix_ops
