"""Small ONNX files as exporters write them from code that moves elements, in onnx's own text form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
from numpy.typing import NDArray

from s2mlp_deploy.api.adopting import runtime
from s2mlp_deploy.export.adopt import GraphAnalysis, adopt
from s2mlp_deploy.recognition.graph import FreeSize
from s2mlp_deploy.recognition.onnx_graph import OnnxGraph
from s2mlp_deploy.sources.onnx_file import open_onnx

DYNAMO = """
    <ir_version: 10, opset_import: ["": 20]>
    net (float[N,6,5,4] x) => (float[N,6,5,4] y)
    <int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] four = {4}, int64[1] three = {3},
     int64[1] last = {-1}, int64[1] end = {9223372036854775807}, int64 first = {0}, int64 step = {1}, int64 axis = {3},
     int64 rows_axis = {1}>
    {
      a = Relu(x)
      upper = Slice(a, zero, last, one, one)
      left = Slice(upper, zero, two, three, one)
      lower = Slice(a, one, end, one, one)
      shape = Shape(lower)
      channels = Gather(shape, axis)
      all = Range(first, channels, step)
      chosen = Slice(all, zero, two, zero, one)
      table = Unsqueeze(chosen, last)
      updates = Transpose <perm = [3, 1, 2, 0]> (left)
      target = Transpose <perm = [3, 1, 2, 0]> (lower)
      written = ScatterND <reduction = "none"> (target, table, updates)
      whole = Shape(a)
      height = Gather(whole, rows_axis)
      rows = Range(first, height, step)
      below = Slice(rows, one, end, zero, one)
      places = Unsqueeze(below, last)
      moved = Transpose <perm = [1, 3, 2, 0]> (written)
      before = Transpose <perm = [1, 0, 2, 3]> (a)
      after = ScatterND <reduction = "none"> (before, places, moved)
      b = Transpose <perm = [1, 0, 2, 3]> (after)
      y = Sigmoid(b)
    }
"""
"""``x[:, 1:, :, :2] = x[:, :-1, :, :2]`` as torch.onnx.export(dynamo=True) writes it: a row down, for two channels."""

TORCHSCRIPT = """
    <ir_version: 8, opset_import: ["": 17]>
    net (float[N,6,5,4] x) => (float[N,6,5,4] y)
    <int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] three = {3}, int64[1] last = {-1},
     int64[1] end = {9223372036854775807}, int64 first = {0}, int64 step = {1}, int64[4] by_image = {-1, 1, 1, 1},
     int64[4] rows = {1, 2, 3, 4}, int64[4,1,1] row = {1, 2, 3, 4}, int64[5,1] column = {0, 1, 2, 3, 4},
     int64[2] channel = {0, 1}, int64[1] rank = {4}, int64 minus = {-1}>
    {
      a = Relu(x)
      four = Slice(a, zero, last, one, one)
      upper = Slice(four, zero, two, three, one)
      shape = Shape(a)
      images = Gather(shape, first)
      numbers = Range(first, images, step)
      image = Reshape(numbers, by_image)
      rows5 = Slice(a, one, end, one, one)
      part = Slice(rows5, zero, two, three, one)
      size = Shape(part)
      ones = ConstantOfShape <value = int64[1] {1}> (rank)
      signs = Mul(ones, minus)
      never = Equal(size, signs)
      full = Where(never, ones, size)
      row5 = Concat <axis = 0> (row, five)
      i = Expand(image, full)
      r = Expand(row5, full)
      c = Expand(column, full)
      k = Expand(channel, full)
      i1 = Unsqueeze(i, last)
      r1 = Unsqueeze(r, last)
      c1 = Unsqueeze(c, last)
      k1 = Unsqueeze(k, last)
      table = Concat <axis = -1> (i1, r1, c1, k1)
      b = ScatterND(a, table, upper)
      y = Sigmoid(b)
    }
""".replace("int64[4] rows = {1, 2, 3, 4}", "int64[1,1,1] five = {5}")
"""The same by torch's older exporter: a table of the place of every element, images counted as they come."""


def parsed(text: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model)
    return model


def written(path: Path, text: str) -> Path:
    onnx.save(parsed(text), path)
    return path


def adopted(path: Path, **options: Any) -> GraphAnalysis:
    """A file on its way to the canonical graph, without the last comparison with the file."""
    model = open_onnx(path, overrides={})
    return adopt(
        model.model, opset=None, sizes=model.sizes, runtime=runtime, feeds=model.feeds, where="a file", **options
    )


def graph_of(text: str, **free: int) -> OnnxGraph:
    """A graph as recognition reads it; inputs are noise."""
    model = ir.from_proto(onnx.shape_inference.infer_shapes(parsed(text)))
    generator = np.random.default_rng(0)

    def feeds(sizes: Any) -> dict[str, NDArray[Any]]:
        made = {}
        for value in model.graph.inputs:
            shape = [size if isinstance(size, int) else sizes[size.value] for size in value.shape or ()]
            made[str(value.name)] = generator.standard_normal(shape).astype(value.dtype.numpy())  # type: ignore[union-attr]
        return made

    return OnnxGraph(model, runtime, feeds, [FreeSize(name, size, max=max(4, 2 * size)) for name, size in free.items()])
