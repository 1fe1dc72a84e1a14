"""The numbers that a quantized value can have: what quantization alone makes of a tensor, clipping included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from s2mlp_deploy.graph.operators import array_of
from s2mlp_deploy.parity.exits import GraphTap


@dataclass(frozen=True)
class Grid:
    """Equally spaced numbers.

    Attributes:
        scale: The distance between two.
        zero: The integer that stands for 0.
        least: The smallest integer.
        most: The largest.
    """

    scale: float
    zero: int
    least: int
    most: int

    def nearest(self, array: NDArray[Any]) -> NDArray[Any]:
        """Each value as the nearest number of the grid; NaN stays, infinities are clipped."""
        with np.errstate(invalid="ignore", over="ignore"):
            integers = np.clip(np.rint(array / np.float32(self.scale)) + self.zero, self.least, self.most)
            return np.asarray((integers - self.zero) * np.float32(self.scale), np.float32)


def grid_of(graph: ir.Graph, tap: GraphTap) -> Grid | None:
    """The grid that a tapped value lies on.

    Args:
        graph: That it is of.
        tap: Integers with their scale, or floats.

    Returns:
        None where it is computed in floats, or each channel has a scale of its own.
    """
    if tap.scale:
        return _grid(graph.initializers.get(tap.scale), graph.initializers.get(tap.zero))
    made = next((node for node in graph for value in node.outputs if value.name == tap.value), None)
    return _grid(*made.inputs[1:3]) if made is not None and made.op_type == "DequantizeLinear" else None


def input_grids(graph: ir.Graph) -> dict[str, Grid]:
    """The grids of the inputs that are read in one quantized form alone, by their names."""
    found = {}
    for value in graph.inputs:
        grids = {_grid(*node.inputs[1:3]) if node.op_type == "QuantizeLinear" else None for node in _readers(value)}
        if len(grids) == 1 and (grid := grids.pop()) is not None:
            found[str(value.name)] = grid
    return found


def _readers(value: ir.Value) -> list[ir.Node]:
    """The nodes that read a value, behind casts too."""
    found = []
    for node, _ in value.uses():
        found += _readers(node.outputs[0]) if node.op_type == "Cast" else [node]
    return found


def _grid(scale: ir.Value | None, zero: ir.Value | None = None) -> Grid | None:
    step, point = array_of(scale), array_of(zero)
    if step is None or step.size != 1 or point is None or point.size != 1 or not np.issubdtype(point.dtype, np.integer):
        return None
    limits = np.iinfo(point.dtype)
    return Grid(float(step.item()), int(point.item()), int(limits.min), int(limits.max))
