"""ONNX files: what is seen before any library reads them, and graphs as sources and to be looked at."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.parser
import onnx_graphs
from fuzzing import Reader
from mutating import protobuf

from s2mlp_deploy.api.inspecting_files import inspect_file
from s2mlp_deploy.artifact import METADATA_KEY, check_onnx, read_description, read_limits
from s2mlp_deploy.artifact.onnx_interface import float_weights, read_interface
from s2mlp_deploy.difference.reading import read
from s2mlp_deploy.graph.loading import load_graph
from s2mlp_deploy.sources.onnx_file import open_onnx


def _header(data: bytes, folder: Path) -> None:
    path = folder / "net.onnx"
    path.write_bytes(data)
    check_onnx(path)
    found = read_interface(path)
    for weights in float_weights(path):
        weights.sum()
    read_limits(found.metadata)
    read_description(found.metadata.get(METADATA_KEY), path)


def _graph(data: bytes, folder: Path) -> None:
    path = folder / "net.onnx"
    path.write_bytes(data)
    inspect_file(path)
    read(load_graph(path, valid=False).model)


def _source(data: bytes, folder: Path) -> None:
    path = folder / "net.onnx"
    path.write_bytes(data)
    open_onnx(path, overrides={})


READERS = (
    Reader("onnx/header", _header, protobuf),
    Reader("onnx/graph", _graph, protobuf),
    Reader("onnx/source", _source, protobuf),
)
_SHIFT = """
    <ir_version: 10, opset_import: ["": 20]>
    net (float[N,4,H,3] x) => (float[N,4,H,3] y)
    <int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] last = {-1}, int64[1] end = {9999}>
    {
      a = Relu(x)
      above = Slice(a, zero, last, two)
      row = Slice(a, zero, one, two)
      y = Concat <axis = 2> (row, above)
    }
"""
_BRANCH = """
    <ir_version: 10, opset_import: ["": 20, "own": 1]>
    net (float[N,4] x, bool c) => (float[N,4] y)
    {
      a = own.twice(x)
      y = If (c) <
        then_branch = g1 () => (float[N,4] b) { b = Neg(a) },
        else_branch = g2 () => (float[N,4] d) { d = Abs(a) }
      >
    }
    <domain: "own", opset_import: ["": 20]>
    twice (v) => (w) { w = Add(v, v) }
"""


def seeds() -> dict[str, dict[str, bytes]]:
    """By reader and name the files to begin with."""
    limits = [{"input": "input", "axis": 0, "name": "batch", "min": 2, "multiple": 2}]
    described = onnx_graphs.perceptron(metadata={"precision": "fp32", "limits": limits})
    made = {
        "perceptron": described.SerializeToString(),
        "shift": onnx.parser.parse_model(_SHIFT).SerializeToString(),
        "branch": onnx.parser.parse_model(_BRANCH).SerializeToString(),
    }
    return {item.name: made for item in READERS}
