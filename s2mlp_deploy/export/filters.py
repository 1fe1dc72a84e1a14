"""Formulas as ONNX nodes, and Pillow's resampling filters written with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.export.graph_builder import GraphBuilder

SCOPE = "preprocessing"
"""Prefix of every name."""


class Builder:
    """The nodes and constants of the preprocessing; :meth:`part` names those of one step."""

    def __init__(self, opset: int) -> None:
        self.constants: dict[tuple[Any, ...], ir.Value] = {}
        self.nodes: list[ir.Node] = []
        self._opset = opset
        self._parts: dict[str, Part] = {}

    def part(self, name: str) -> Part:
        """The step of this name; one for ever, since it counts the names it gave."""
        return self._parts.setdefault(name, Part(name, self._opset, self))


class Part(GraphBuilder):
    """One step. Numbers among the inputs become initializers, so that formulas read like formulas."""

    def __init__(self, name: str, opset: int, whole: Builder) -> None:
        super().__init__(f"{SCOPE}/{name}", opset, whole.constants, owner=SCOPE)
        self.nodes = whole.nodes

    def __call__(self, op_type: str, *inputs: ir.Value | float | np.ndarray[Any, Any], **attributes: Any) -> ir.Value:
        """Adds a node; its output and the numbers have the dtype of its first tensor, unless it casts or compares."""
        tensors = [item for item in inputs if isinstance(item, ir.Value)]
        kind = tensors[1 if op_type == "Where" else 0].dtype
        assert kind is not None
        values = [
            item
            if isinstance(item, ir.Value)
            else self.constant(np.asarray(item, kind.numpy()), "number" if np.ndim(item) == 0 else "numbers")
            for item in inputs
        ]
        dtype = {
            "Cast": ir.DataType(attributes.get("to", kind)),
            "Shape": ir.DataType.INT64,
            **dict.fromkeys(("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "And"), ir.DataType.BOOL),
        }.get(op_type, kind)
        return self.op(op_type, values, attributes, dtype=dtype)

    def index(self, values: Sequence[int]) -> ir.Value:
        """Axes and positions, which are int64 whatever they belong to."""
        return self.constant(np.asarray(values, np.int64), "index")

    def cast(self, x: ir.Value, dtype: ir.DataType) -> ir.Value:
        """The same numbers in another type."""
        return x if x.dtype == dtype else self("Cast", x, to=dtype.value)


def _linear(build: Part, x: ir.Value) -> ir.Value:
    return build("Relu", build("Sub", np.asarray(1.0), build("Abs", x)))


def _cubic(build: Part, x: ir.Value) -> ir.Value:
    """Keys' kernel with a = -0.5."""
    x = build("Abs", x)
    square = build("Mul", x, x)
    inner = build("Add", build("Mul", build("Sub", build("Mul", x, 1.5), 2.5), square), 1.0)
    outer = build("Sub", build("Mul", build("Add", build("Mul", build("Sub", x, 5.0), x), 8.0), x), 4.0)
    outer = build("Where", build("Less", x, 2.0), build("Mul", outer, -0.5), 0.0)
    return build("Where", build("Less", x, 1.0), inner, outer)


def _box(build: Part, x: ir.Value) -> ir.Value:
    # Half open, so that a pixel on the edge of two windows counts in one.
    inside = build("And", build("Greater", x, -0.5), build("LessOrEqual", x, 0.5))
    return build.cast(inside, ir.DataType.FLOAT)


def _hamming(build: Part, x: ir.Value) -> ir.Value:
    x = build("Abs", x)
    cosine = build("Cos", build("Mul", x, math.pi))
    value = build("Mul", _sinc(build, x), build("Add", build("Mul", cosine, 0.46), 0.54))
    return build("Where", build("Less", x, 1.0), value, 0.0)


def _lanczos(build: Part, x: ir.Value) -> ir.Value:
    x = build("Abs", x)
    value = build("Mul", _sinc(build, x), _sinc(build, build("Div", x, 3.0)))
    return build("Where", build("Less", x, 3.0), value, 0.0)


def _sinc(build: Part, x: ir.Value) -> ir.Value:
    # sin(1e-6) / 1e-6 is 1 in float32, so zero needs no case of its own.
    angle = build("Max", build("Mul", x, math.pi), 1e-6)
    return build("Div", build("Sin", angle), angle)


FILTERS: Mapping[str, Callable[[Part, ir.Value], ir.Value]] = {
    "bilinear": _linear,
    "bicubic": _cubic,
    "box": _box,
    "hamming": _hamming,
    "lanczos": _lanczos,
}
"""Pillow's filters, as a function of the distance in units of the filter's own scale."""
