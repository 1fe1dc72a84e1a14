"""Flushing subnormal numbers: done where it is asked for, and nowhere else."""

from __future__ import annotations

import numpy as np
import onnx_graphs as og
import pytest
from onnx_graphs import FLOAT, constant, node, value

from s2mlp_deploy.engines.registry import open_graph_file

TINY = np.float32(1e-39)


@pytest.fixture
def halving(tmp_path):
    made = og.model(
        [node("MatMul", ["x", "w"], ["y"])],
        [value("x", FLOAT, ["batch", 16])],
        [value("y", FLOAT, ["batch", 16])],
        [constant("w", np.eye(16) / 2, "float32")],
    )
    return og.save(made, tmp_path / "a.onnx")


def is_subnormal(array) -> bool:
    # By its bits: a thread that flushes would take it for 0 in any comparison.
    return bool((np.asarray(array).view(np.uint32) != 0).all())


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_engine_flushes_and_the_caller_does_not(halving, engine):
    pytest.importorskip(engine)
    feeds = {"x": np.full((2, 16), TINY, np.float32)}
    flushing = open_graph_file(halving, engine, threads=1, flush_denormals=True)
    assert not is_subnormal(flushing.run(feeds)["y"])
    np.testing.assert_array_equal(flushing.run({"x": np.ones((2, 16), np.float32)})["y"], 0.5)
    assert is_subnormal(np.full(8, TINY, np.float32) * np.float32(0.5))
    assert (flushing.inputs, flushing.metadata) == (
        (plain := open_graph_file(halving, engine, threads=1)).inputs,
        plain.metadata,
    )
    if engine == "onnxruntime":  # OpenVINO flushes in some kernels by itself.
        assert is_subnormal(plain.run(feeds)["y"])
