"""Constants too small for float16 (an epsilon of 1e-12), and what depends on them.

They keep a divisor, a root or a logarithm from zero. Rounded to float16 they are zero; clamped to its smallest number,
as nvidia-modelopt does it, ``log(x + 1e-10)`` is -17 where it was -23, and ``rsqrt(x + 1e-12)`` overflows either way.
So whoever reads such a constant computes in float32, and so does what follows, up to the quotient or product that it
protects.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from s2mlp_deploy.graph.operators import array_of, data_inputs, is_movement

_LEAST_NORMAL = 2.0**-14
_ROUNDING = 2.0**-8
"""How far, relatively, a constant may be rounded. Normal numbers are by at most 2 ** -11; below those the error grows
until the number is 0. The usual 1e-5 of a norm is off by 0.0014, 1e-6 by 0.013."""

_FUNCTIONS = frozenset({"Abs", "Exp", "Log", "Neg", "Reciprocal", "Sqrt"})
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Clip", "Where"})
_USES = frozenset({"Div", "Mul", "Pow"})
"""What a number that was kept from zero is there for."""
_FILLED = {"Constant": ("value", "value_float", "value_floats"), "ConstantOfShape": ("value",)}


def of_small_constants(graph: ir.Graph) -> dict[ir.Node, str]:
    """The nodes that float16 would compute with other constants than are written, with the reason, in graph order."""
    small = {value: text for value in graph.initializers.values() if (text := _small(array_of(value)))}
    guarded: dict[ir.Value, str] = {}
    found: dict[ir.Node, str] = {}
    for node in graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        moved = [node.inputs[index] for index in data_inputs(node)] if is_movement(node) else []
        if text := _of_attributes(node):
            small[node.outputs[0]] = text
        elif moved:
            # Moved alone it stays what it is; among other numbers it is one of them.
            if len(moved) > 1 or not (text := _first(moved, small) or _first(moved, guarded)):
                continue
            (small if moved[0] in small else guarded)[node.outputs[0]] = text
        elif text := _first(node.inputs, small) or _of_variances(node):
            if node.op_type in _ARITHMETIC:
                guarded[node.outputs[0]] = text
        elif text := _first(node.inputs, guarded):
            alone = sum(array_of(value) is None for value in node.inputs if value is not None) == 1
            if node.op_type in _FUNCTIONS or (alone and node.op_type in _ARITHMETIC):
                guarded[node.outputs[0]] = text
            elif node.op_type not in _USES:
                continue
        else:
            continue
        found[node] = f"depends on {text}, which float16 cannot hold"
    return found


def _first(values: Iterable[ir.Value | None], known: dict[ir.Value, str]) -> str:
    return next((known[value] for value in values if value is not None and value in known), "")


def _small(array: NDArray[Any] | None) -> str:
    """The largest of a constant's numbers where float16 loses it with all the others; empty where it does not."""
    if array is None or array.dtype not in (np.float32, np.float16) or not array.size:
        return ""
    largest = float(np.abs(array).max())
    return f"{largest:.3g}" if _is_lost(np.asarray(largest)).any() else ""


def _is_lost(numbers: NDArray[Any]) -> NDArray[np.bool_]:
    size = np.abs(numbers.astype(np.float64))
    size = np.where(size < _LEAST_NORMAL, size, 0.0)
    lost: NDArray[np.bool_] = np.abs(size.astype(np.float16) - size) > _ROUNDING * size
    return lost


def _of_attributes(node: ir.Node) -> str:
    for name in _FILLED.get(node.op_type, ()):
        attribute = node.attributes.get(name)
        if attribute is not None:
            tensor = attribute.type == ir.AttributeType.TENSOR
            return _small(attribute.as_tensor().numpy() if tensor else np.asarray(attribute.value, np.float32))
    return ""


def _of_variances(node: ir.Node) -> str:
    """A normalization divides by the root of each of its variances."""
    variances = array_of(node.inputs[4]) if node.op_type == "BatchNormalization" else None
    lost = variances[_is_lost(variances)] if variances is not None else np.zeros(0)
    return f"a variance of {lost.min():.3g}" if lost.size else ""
