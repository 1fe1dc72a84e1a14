"""Adds nodes and constants to a graph that is being built, with names that say what they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

END = np.iinfo(np.int64).max
"""Slice's "to the end", as the ONNX specification recommends."""


class GraphBuilder:
    """Collects nodes and constants.

    Constants become initializers, never Constant nodes: TensorRT wants the axes of Slice and Pad as initializers.

    Args:
        scope: Prefix of every name, unique in the graph.
        opset: The opset the model is written in.
        constants: Initializers of the whole graph by value, shared between builders.
        owner: What the names of constants begin with.
    """

    def __init__(
        self, scope: str, opset: int, constants: dict[tuple[Any, ...], ir.Value], *, owner: str = "shift"
    ) -> None:
        self.scope = scope
        self.opset = opset
        self.nodes: list[ir.Node] = []
        self._constants = constants
        self._owner = owner
        self._counts: dict[str, int] = {}

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        shape: Sequence[int | ir.SymbolicDim | None] | None = None,
        dtype: ir.DataType | None = None,
    ) -> ir.Value:
        """Adds a node with one output and returns the output."""
        return self.ops(op_type, inputs, attributes, outputs=1, shapes=[shape], dtype=dtype)[0]

    def ops(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        outputs: int,
        shapes: Sequence[Sequence[int | ir.SymbolicDim | None] | None],
        dtype: ir.DataType | None = None,
    ) -> list[ir.Value]:
        """Adds a node and returns its outputs."""
        count = self._counts.get(op_type, 0)
        self._counts[op_type] = count + 1
        name = f"{self.scope}/{op_type}" + (f"_{count}" if count else "")
        kind = dtype or next(value.dtype for value in inputs if value is not None)
        values = [
            ir.Value(
                name=f"{name}.out" if outputs == 1 else f"{name}.out{index}",
                type=ir.TensorType(kind) if kind is not None else None,
                shape=ir.Shape(list(shapes[index] or ())) if shapes[index] is not None else None,
            )
            for index in range(outputs)
        ]
        self.nodes.append(
            ir.Node(
                "",
                op_type,
                list(inputs),
                ir.convenience.convert_attributes(attributes or {}),
                outputs=values,
                name=name,
            )
        )
        return values

    def constant(self, array: np.ndarray[Any, Any], label: str) -> ir.Value:
        """An initializer, one for all equal arrays of the graph."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"{self._owner}.{label}.{len(self._constants)}"
            tensor = ir.tensor(array, name=name)
            self._constants[key] = ir.Value(
                name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
            )
        return self._constants[key]

    def ints(self, values: Sequence[int]) -> ir.Value:
        """A 1-D int64 initializer."""
        return self.constant(np.asarray(values, np.int64), "ints")

    def slice(self, x: ir.Value, window: Mapping[int, tuple[int, int]]) -> ir.Value:
        """``x[..., start:end, ...]`` for each axis in ``window``; ends count from the back when negative."""
        window = {axis: bounds for axis, bounds in window.items() if bounds != (0, END)}
        if not window:
            return x
        axes = sorted(window)
        shape = list(_shape(x))
        for axis in axes:
            shape[axis] = _sliced(shape[axis], *window[axis])
        return self.op(
            "Slice",
            [
                x,
                self.ints([window[axis][0] for axis in axes]),
                self.ints([window[axis][1] for axis in axes]),
                self.ints(axes),
            ],
            shape=shape,
        )

    def concat(self, parts: Sequence[ir.Value], axis: int) -> ir.Value:
        """Joins along an axis; one part is itself."""
        if len(parts) == 1:
            return parts[0]
        shape = list(_shape(parts[0]))
        sizes = [_shape(part)[axis] for part in parts]
        shape[axis] = sum(s for s in sizes if isinstance(s, int)) if all(isinstance(s, int) for s in sizes) else None
        return self.op("Concat", list(parts), {"axis": axis}, shape=shape)


def _shape(x: ir.Value) -> tuple[int | ir.SymbolicDim | None, ...]:
    assert x.shape is not None, f"{x.name} has no shape"
    return tuple(x.shape)


def rank_of(x: ir.Value) -> int:
    """The number of axes of a value."""
    return len(_shape(x))


def size_of(x: ir.Value, axis: int) -> int | None:
    """The size along an axis, or None where it is dynamic."""
    size = _shape(x)[axis]
    return size if isinstance(size, int) else None


def _sliced(size: int | ir.SymbolicDim | None, start: int, end: int) -> int | None:
    return len(range(*slice(start, end).indices(size))) if isinstance(size, int) else None
