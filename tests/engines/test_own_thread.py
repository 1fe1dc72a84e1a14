"""Flushing subnormal numbers: done where it is asked for, nowhere else, and never only said to be done."""

from __future__ import annotations

import subprocess
import sys

import nano_artifact
import numpy as np
import onnx_graphs as og
import pytest
from onnx_graphs import FLOAT, constant, node, value

from s2mlp_deploy.engines.own_thread import flushes_here
from s2mlp_deploy.engines.registry import open_graph_file


@pytest.fixture
def halving(tmp_path):
    made = og.model(
        [node("MatMul", ["x", "w"], ["y"])],
        [value("x", FLOAT, ["batch", 16])],
        [value("y", FLOAT, ["batch", 16])],
        [constant("w", np.eye(16) / 2, "float32")],
    )
    return og.save(made, tmp_path / "a.onnx")


def test_openvino_flushes_and_its_caller_does_not(halving):
    pytest.importorskip("openvino")
    engine = open_graph_file(halving, "openvino", threads=1, flush_denormals=True)
    found = engine.run({"x": np.full((2, 16), 1e-39, np.float32)})["y"]
    assert not found.view(np.uint32).any()
    np.testing.assert_array_equal(engine.run({"x": np.ones((2, 16), np.float32)})["y"], 0.5)
    assert not flushes_here()


@pytest.mark.parametrize("before", [False, True])
def test_onnx_runtime_flushes_the_first_file_of_a_process_and_others_are_refused(halving, before):
    pytest.importorskip("onnxruntime")
    code = f"""
import numpy as np
from pathlib import Path
from s2mlp_deploy.engines.own_thread import flushes_here
from s2mlp_deploy.engines.registry import open_graph_file
from s2mlp_deploy.errors import TargetError
path = Path({str(halving)!r})
feeds = {{"x": np.full((2, 16), 1e-39, np.float32)}}
if {before}:
    assert open_graph_file(path, threads=1).run(feeds)["y"].view(np.uint32).all()
try:
    engine = open_graph_file(path, threads=1, flush_denormals=True)
    assert not engine.run(feeds)["y"].view(np.uint32).any()
    print("flushed")
except TargetError as error:
    print("refused", error.fix)
assert not flushes_here()
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": nano_artifact.PACKAGE_ROOT},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("refused open this file before any other" if before else "flushed")
