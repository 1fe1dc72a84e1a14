"""Every command that reads an ONNX file, on graphs that mean nothing: words, no traces of other libraries."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

NODES = {
    "nothing makes an input": helper.make_node("Add", ["x", "nowhere"], ["a"]),
    "no such operator": helper.make_node("Frobnicate", ["x"], ["a"]),
    "no such axis": helper.make_node("Transpose", ["x"], ["a"], perm=[0, 5]),
    "sizes do not fit": helper.make_node("Concat", ["x", "x"], ["a"], axis=1),
}


@pytest.fixture(params=NODES)
def graph(request, tmp_path):
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]) for name in "xy")
    nodes = [NODES[request.param], helper.make_node("MatMul", ["a", "w"], ["y"])]
    weights = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    made = helper.make_graph(nodes, "g", [x], [y], [weights])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, tmp_path / "model.onnx")
    return request.param, tmp_path / "model.onnx"


def without_traces(result):
    text = result.out + result.err
    assert "Traceback" not in text
    assert "Shape inference failed" not in text
    assert "cannot be found in any scope" not in text
    return text


@pytest.mark.parametrize("engine", ["tensorrt", "tensorrt-rtx"])
def test_a_dry_run_never_says_that_it_would_build(cli, graph, engine):
    target = ("--target", "sm89") if engine == "tensorrt-rtx" else ()
    result = cli("build", str(graph[1]), "--engine", engine, *target, "--dry-run")
    assert result.code in (1, 2), result.out
    assert "would build" not in without_traces(result)


def test_inspect_shows_what_it_can_and_says_it(cli, graph):
    kind, path = graph
    result = cli("inspect", str(path))
    assert result.code == 0, result.err
    text = without_traces(result)
    assert "MatMul" in text
    assert ("is not valid ONNX" in text) == (kind in ("nothing makes an input", "no such operator"))


@pytest.mark.parametrize("graph", ["no such axis"], indirect=True)
def test_nothing_else_is_on_stderr_of_a_process_of_its_own(graph):
    # Inside pytest, which handles every logger, what onnx-ir logs would not reach stderr.
    command = [sys.executable, "-m", "s2mlp_deploy", "inspect", str(graph[1])]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    # A line of progress comes every five seconds, on a machine that takes so long.
    assert [line for line in ended.stderr.splitlines() if not re.fullmatch(r".* \(\d+ s\)", line)] == []
