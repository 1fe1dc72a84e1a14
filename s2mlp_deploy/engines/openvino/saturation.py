"""Where 8-bit products of a graph may be cut off: x86 processors without VNNI add two of them in 16 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SAFE_WEIGHT = 64
"""2 · 255 · 64 fits 16 bits. Measured without VNNI: a product of 64 ones at full range is 32.4 with uint8 activations
and 0.5 with int8 ones, and 64 in both with such weights."""

_PASSED = frozenset(
    (
        *("Convert", "Subtract", "Multiply"),  # DQ.
        *(
            "AvgPool",
            "BatchToSpace",
            "Broadcast",
            "Clamp",
            "Concat",
            "DepthToSpace",
            "Gather",
            "Identity",
            "Interpolate",
        ),
        *("MaxPool", "Pad", "ReduceMax", "ReduceMin", "Relu", "Reshape", "ShuffleChannels", "Slice", "SpaceToBatch"),
        *("SpaceToDepth", "Split", "Squeeze", "StridedSlice", "Transpose", "Unsqueeze", "VariadicSplit"),
    )
)
"""What integers pass through on their way to a product, as OpenVINO's transformations for low precision move them."""

_PRODUCTS = frozenset(
    ("Convolution", "ConvolutionBackpropData", "GroupConvolution", "GroupConvolutionBackpropData", "MatMul")
)


def may_saturate(model: Any) -> bool:
    """Whether a sum of two products may pass 16 bits, as far as the graph tells before it is compiled.

    Args:
        model: As OpenVINO read it.
    """
    return any(_has_large_weights(node) or _multiplies_activations(node) for node in model.get_ops())


def _has_large_weights(node: Any) -> bool:
    kind = node.get_type_name()
    weights: NDArray[Any] | None = None
    # One number is a zero point.
    if kind == "Constant" and node.get_element_type().to_string() == "i8" and node.data.size > 1:
        weights = node.data.astype(np.int16)
    elif kind == "FakeQuantize":
        weights = _folded(node)
    return weights is not None and bool(np.any(np.abs(weights) > _SAFE_WEIGHT))


def _folded(node: Any) -> NDArray[np.float32] | None:
    """What weights in float32 with a Q of their own become, which OpenVINO folds; None for activations."""
    data, *bounds = (_constant(node.input_value(index)) for index in range(5))
    if data is None:
        return None
    known = [bound for bound in bounds if bound is not None]
    if len(known) < len(bounds):
        return np.array([np.inf], np.float32)  # Bounds that are computed may be any.
    low, high, least, most = known
    with np.errstate(divide="ignore", invalid="ignore"):  # A scale of 0.
        share = (np.clip(data, low, high) - low) / (high - low)
    found: NDArray[np.float32] = np.rint(share * (most - least) + least)
    return found


def _multiplies_activations(node: Any) -> bool:
    """Whether a node multiplies two quantized tensors that are computed, whose numbers may be any.

    Weights that are reshaped before their Q count as such: what they become is known only when it is folded.
    """
    return node.get_type_name() in _PRODUCTS and all(_is_quantized(node.input_value(index)) for index in (0, 1))


def _is_quantized(value: Any) -> bool:
    to_see, seen = [value.get_node()], set[str]()
    while to_see:
        node = to_see.pop()
        if node.get_name() in seen:
            continue
        seen.add(node.get_name())
        if node.get_type_name() == "FakeQuantize" and _constant(node.input_value(0)) is None:
            return True
        if node.get_type_name() in _PASSED:
            to_see.extend(source.get_node() for source in node.input_values())
    return False


def _constant(value: Any) -> NDArray[np.float32] | None:
    node = value.get_node()
    while node.get_type_name() == "Convert":  # Of weights in float16.
        node = node.input_value(0).get_node()
    return node.data.astype(np.float32) if node.get_type_name() == "Constant" else None
