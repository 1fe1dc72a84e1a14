"""A file's constants beside those that they were made of.

Weights are data, so they need no tolerance: those of a float32 file are the module's, those in float16 their rounding,
and integers times their scale lie within half a step. Scales of activations follow from the saved calibration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from torch import nn

from s2mlp_deploy.evidence.calibration import CalibrationReport
from s2mlp_deploy.graph.derived import original
from s2mlp_deploy.graph.operators import array_of
from s2mlp_deploy.graph.subnormals import flushed

Arrays = Mapping[str, NDArray[Any]]

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

_HALF, _INTEGERS, _SCALE, _ZERO = ".fp16", ".quantized", ".scale", ".zero_point"
_HALF_STEP, _SUBNORMAL = 2.0**-11, 2.0**-24
"""float16 rounds by less than the first, relatively; what would become 0 becomes the second."""
_LEVELS = {"uint8": 255.0, "int8": 127.0, "float8e4m3fn": 448.0}
"""Steps between the ends of a range for uint8, else between 0 and its end."""
_SCALE_SLACK = 2e-3
"""Scales are rounded to float16, upwards."""


def constants_of(graph: ir.Graph) -> dict[str, NDArray[Any]]:
    """The constants of a graph by name."""
    found = {name: array_of(value) for name, value in graph.initializers.items()}
    return {name: array for name, array in found.items() if array is not None}


def state_of(module: Any) -> dict[str, NDArray[Any]]:
    """A module's parameters and buffers under the names that an export gives them.

    Where there are batch norms, without those of the layers that an export may fold one into.

    Args:
        module: A ``torch.nn.Module`` or an exported program.
    """
    found = {}
    folded = _folded_into(module) if isinstance(module, nn.Module) else frozenset()
    if not isinstance(module, nn.Module) and any("batch_norm" in str(node.target) for node in module.graph.nodes):
        return {}
    state = module.state_dict
    for name, tensor in (state() if callable(state) else state).items():
        if name.rpartition(".")[0] in folded:
            continue
        array = tensor.detach().cpu().float().numpy() if tensor.is_floating_point() else tensor.detach().cpu().numpy()
        found[name] = array
        if array.ndim == 2 and name.endswith(".weight"):
            found[f"{name}_t"] = array.T
    return found


def _folded_into(module: nn.Module) -> frozenset[str]:
    """Paths of the layers that a batch norm may be folded into; none where there is no batch norm."""
    parts = dict(module.named_modules())
    if not any(isinstance(part, _BATCH_NORMS) for part in parts.values()):
        return frozenset()
    return frozenset(name for name, part in parts.items() if "weight" in part._parameters)


def compare_constants(
    graph: ir.Graph, originals: Arrays, calibration: CalibrationReport | None = None
) -> tuple[int, tuple[str, ...]]:
    """Compares each constant that has an original with it, or with the part of it that it is by its name.

    Args:
        graph: Of the file that is judged.
        originals: Constants of the float32 file that it was made of, or the module's.
        calibration: The ranges that it was quantized by, where they are known.

    Returns:
        How many were compared, and what is wrong with them, in words.
    """
    count, failures = 0, []
    for name, problem in _judged(graph, originals, calibration):
        count += 1
        if problem is not None:
            failures.append(f"the constant {name} {problem}")
    return count, tuple(failures)


def _judged(
    graph: ir.Graph, originals: Arrays, calibration: CalibrationReport | None
) -> Iterator[tuple[str, str | None]]:
    chosen = {item.name: item.ranges for item in calibration.activations} if calibration is not None else {}
    constants = constants_of(graph)
    for name, array in constants.items():
        base = name.removesuffix(_HALF)
        if (own := original(name, originals)) is not None:
            yield name, None if _same(array, own) else "is another than the original"
        elif name.endswith(_HALF) and (own := original(base, originals)) is not None:
            yield name, _rounded(array, own)
        elif base.endswith(_SCALE) and base.removesuffix(_SCALE) in chosen:
            value = base.removesuffix(_SCALE)
            yield name, _scaled(array, constants.get(f"{value}{_ZERO}"), chosen[value])
    for node in graph:
        stored = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        integers, called = array_of(stored), str(stored.name) if stored is not None else ""
        base = called.removesuffix(_INTEGERS)
        if integers is not None and (own := original(base, originals)) is not None:
            yield called, _quantized(node, integers, own)


def _same(array: NDArray[Any], original: NDArray[Any]) -> bool:
    """Whether a constant is the original, or that with zeros in place of its subnormal numbers."""
    if array.dtype != original.dtype or not np.issubdtype(array.dtype, np.floating):
        return array.dtype == original.dtype and np.array_equal(array, original)
    return np.array_equal(array, original, equal_nan=True) or (
        array.dtype.itemsize >= 4 and np.array_equal(array, flushed(original), equal_nan=True)
    )


def _rounded(array: NDArray[Any], original: NDArray[Any]) -> str | None:
    if array.shape != original.shape:
        return f"has the shape {array.shape}, the original {original.shape}"
    ours, wanted = array.astype(np.float64), original.astype(np.float64)
    with np.errstate(invalid="ignore"):
        fine = np.abs(ours - wanted) <= np.maximum(_HALF_STEP * np.abs(wanted), _SUBNORMAL)
    fine |= (ours == wanted) | (np.isnan(ours) & np.isnan(wanted)) | (np.isinf(ours) & (np.abs(wanted) > 65504.0))
    return None if fine.all() else f"is no rounding of the original in {int((~fine).sum())} places"


def _scaled(
    scale: NDArray[Any], zero: NDArray[Any] | None, ranges: Mapping[str, tuple[float | None, float | None]]
) -> str | None:
    """Whether a scale is that of the range that the calibration chose."""
    kind = str(zero.dtype) if zero is not None else ""
    kind = "float8e4m3fn" if kind.startswith("float8") else kind
    low, high = ranges.get(kind, (None, None))
    if low is None or high is None or scale.size != 1:
        return None
    reach = high - low if kind == "uint8" else max(abs(low), abs(high))
    wanted, given = reach / _LEVELS[kind], float(scale)
    if wanted <= _SUBNORMAL * 1024 or given == 1.0:
        return None  # Below float16's normal numbers, or of a tensor of zeros.
    if abs(given / wanted - 1) > _SCALE_SLACK:
        return f"is {given:.6g}, and the calibration chose {wanted:.6g}"
    wrong = zero is not None and kind == "uint8" and abs(float(zero) + low / given) > 1
    return "has a zero point that is not the calibration's" if wrong else None


def _quantized(node: ir.Node, integers: NDArray[Any], original: NDArray[Any]) -> str | None:
    """Whether integers, or 8-bit floats, times their scale are the original but for rounding."""
    if integers.shape != original.shape:
        return f"has the shape {integers.shape}, the original {original.shape}"
    scale, zero = array_of(node.inputs[1]), array_of(node.inputs[2]) if len(node.inputs) > 2 else None
    if scale is None:
        return "has a scale that is computed"
    scale = scale.astype(np.float64)
    if scale.ndim == 1:
        axis = node.attributes.get("axis")
        others = [index for index in range(original.ndim) if index != (axis.as_int() if axis is not None else 1)]
        scale = np.expand_dims(scale, others)
    offset = np.zeros(1) if zero is None else zero.astype(np.float64)
    if offset.ndim == 1 and offset.size > 1:
        offset = offset.reshape(scale.shape)
    values, wanted = (integers.astype(np.float64) - offset) * scale, original.astype(np.float64)
    step = scale * 0.5 if np.issubdtype(integers.dtype, np.integer) else np.maximum(np.abs(wanted) / 16, scale / 512)
    fine = np.abs(values - wanted) <= step * 1.001
    if fine.all():
        return None
    return f"times its scale differs from the original by more than rounding in {int((~fine).sum())} places"
