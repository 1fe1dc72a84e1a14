"""Layers that share one weight: every quantized file loads, with the kernels for processors without VNNI too."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

pytest.importorskip("torch")
from onnx import helper
from small_nets import hand_made, kinds, run, statistics

from s2mlp_deploy.engines.optimized import X64_PRECISION
from s2mlp_deploy.export.write import save_model
from s2mlp_deploy.precision.derive import derive
from s2mlp_deploy.precision.placements import PLACEMENTS
from s2mlp_deploy.precision.rounding import round_like_half

RANDOM = np.random.default_rng(0)
FEEDS = {"x": RANDOM.normal(size=(4, 16, 12)).astype(np.float32)}


def twice() -> ir.Model:
    """Two GEMMs and two convolutions, each pair of one weight."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["c"]),
        helper.make_node("Conv", ["c", "k"], ["d"], kernel_shape=[3], pads=[1, 1]),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("Conv", ["e", "k"], ["y"], kernel_shape=[3], pads=[1, 1]),
    ]
    weights = {
        "w": RANDOM.normal(size=(12, 12)).astype(np.float32),
        "k": (RANDOM.normal(size=(16, 16, 3)) / 7).astype(np.float32),
    }
    return hand_made(nodes, {"x": [4, 16, 12]}, {"y": None}, weights)


@pytest.mark.parametrize("exact", ["0", "1"])
@pytest.mark.parametrize("precision", PLACEMENTS)
def test_the_file_loads_and_is_close(precision, exact):
    model = twice()
    made = derive(model, precision, statistics(model, FEEDS), method="minmax").model
    # A copy for each layer: ONNX Runtime cannot turn one tensor into uint8 twice.
    assert len([value for value in made.graph.initializers.values() if value.shape == (12, 12)]) == 2
    rounded = round_like_half(made) if precision != "int8" else made
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(X64_PRECISION, exact)
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(ir.to_proto(rounded).SerializeToString(), options)
    (found,), (expected,) = session.run(None, FEEDS), run(model, FEEDS)
    error = np.square(found - expected).sum() / np.square(expected).sum()
    # Processors without VNNI saturate products of int8 unless they are told to be exact.
    assert error < (0.01 if exact == "1" else 0.1)


def test_layers_that_read_each_other_without_anything_between(tmp_path):
    weights = {name: RANDOM.normal(size=(12, 12)).astype(np.float32) / 4 for name in ("u", "v", "w")}
    nodes = [
        helper.make_node("MatMul", ["x", "u"], ["a"]),
        helper.make_node("MatMul", ["a", "v"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["c"]),
        helper.make_node("Add", ["c", "a"], ["y"]),
    ]
    model = hand_made(nodes, {"x": [4, 16, 12]}, {"y": None}, weights)
    made = derive(model, "int8", statistics(model, FEEDS), method="minmax").model
    save_model(made, tmp_path / "model.onnx")
    (found,), (expected,) = (run(graph, FEEDS) for graph in (made, model))
    assert np.square(found - expected).sum() / np.square(expected).sum() < 1e-3
    assert len(kinds(made, "Gemm")) == 3
    assert len(kinds(made, "QuantizeLinear")) == 3
