"""Canonical graphs of shifts without the exporter, and running what they become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from torch import nn

from s2mlp_deploy.capture.program import Captured, capture
from s2mlp_deploy.export.shift_node import DOMAIN
from s2mlp_deploy.shift.origin import Origin
from s2mlp_deploy.shift.spec import ShiftSpec

Shape = Sequence[int | str]
NAME = "blocks.0.shift/Shift"


@dataclass(frozen=True)
class Exported:
    """A module, its capture, and its canonical graph. Not to be changed."""

    module: nn.Module
    captured: Captured
    canonical: ir.Model


def shift_node(x: ir.Value, spec: ShiftSpec, name: str, output: str) -> ir.Node:
    channels, offsets, axes, channel_axis, border = spec.op_args()
    attributes = {
        "channels": channels,
        "offsets": offsets,
        "axes": axes,
        "channel_axis": channel_axis,
        "border": border,
        "origin": Origin(name.rpartition("/")[0]).to_text(),
    }
    y = ir.Value(name=output, type=x.type, shape=ir.Shape(list(x.shape or ())))
    return ir.Node(DOMAIN, "Shift", [x], ir.convenience.convert_attributes(attributes), outputs=[y], name=name)


def one_shift(
    shape: Shape, spec: ShiftSpec, *, dtype: ir.DataType = ir.DataType.FLOAT, opset: int = 20, relu: bool = False
) -> ir.Model:
    """``input`` -> Shift -> ``output``, or with a Relu before and after the shift."""
    x = ir.Value(name="input", type=ir.TensorType(dtype), shape=ir.Shape(list(shape)))
    nodes = []
    last = x
    if relu:
        before = ir.Value(name="before", type=x.type, shape=ir.Shape(list(shape)))
        nodes.append(ir.Node("", "Relu", [x], outputs=[before], name="before"))
        last = before
    nodes.append(shift_node(last, spec, NAME, "shifted" if relu else "output"))
    last = nodes[-1].outputs[0]
    if relu:
        after = ir.Value(name="output", type=x.type, shape=ir.Shape(list(shape)))
        nodes.append(ir.Node("", "Relu", [last], outputs=[after], name="after"))
        last = after
    return model_of(x, nodes, last, opset)


def model_of(x: ir.Value, nodes: Sequence[ir.Node], y: ir.Value, opset: int = 20) -> ir.Model:
    graph = ir.Graph([x], [y], nodes=nodes, opset_imports={"": opset, DOMAIN: 1}, name="shifts")
    return ir.Model(graph, ir_version=10)


def runner(model: ir.Model) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """ONNX Runtime on one thread, with its usual optimisations."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(serialized(model), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def serialized(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString(deterministic=True)


def assert_same_bits(actual: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    if actual.tobytes() != expected.tobytes():
        np.testing.assert_array_equal(actual, expected)
        raise AssertionError("equal numbers, but not the same bits")


def captured(module: nn.Module, *size: int, dynamic: Sequence[str] = ("batch",)) -> Captured:
    """Captured with the names that the zoo's models have."""
    return capture(module, [torch.zeros(size)], input_names=["input"], output_names=["logits"], dynamic=dynamic)


def lively(model: nn.Module) -> nn.Module:
    """Random numbers in every weight: zero biases and unit scales would hide a wrong or swapped one."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model
