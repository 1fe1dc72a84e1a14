"""Convolutions between DQ and Q that only move integers.

int8 files write a one-hot convolution as they write any other: DQ, Conv, Q. Where both scales and zero points are the
same, each integer that comes out is one that went in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from s2mlp_deploy.recognition.cost import Cost, copying
from s2mlp_deploy.recognition.onnx_ops import CONVOLUTIONS, constant_of, convolve, has_one_hot_kernel

_INTEGERS = frozenset({ir.DataType.INT8, ir.DataType.UINT8})


@dataclass(frozen=True)
class IntegerConvolution:
    """A one-hot convolution between DQ and Q.

    Attributes:
        source: The integers that enter the DQ.
        dequantize: The DQ.
        node: The convolution.
        kernel: Its kernel in floating point.
    """

    source: ir.Value
    dequantize: ir.Node
    node: ir.Node
    kernel: Tensor

    def run(self, x: Tensor) -> Tensor:
        """The index map of what leaves the Q from that of what enters the DQ."""
        return convolve(self.node, x, self.kernel)

    def cost(self, out: tuple[int, ...]) -> Cost:
        """What the convolution costs in ONNX Runtime, without DQ and Q."""
        return copying(out) + Cost(products=self.kernel[0].numel() * int(np.prod(out)))


def integer_convolutions(graph: ir.Graph) -> dict[ir.Value, IntegerConvolution]:
    """All of a graph, by the results of their Qs."""
    found = {}
    for node in graph:
        if node.op_type == "QuantizeLinear" and not node.domain and (conv := _convolution(node)) is not None:
            found[node.outputs[0]] = conv
    return found


def _convolution(quantize: ir.Node) -> IntegerConvolution | None:
    conv = _producer(quantize.inputs[0], *CONVOLUTIONS)
    dequantize = _producer(conv.inputs[0], "DequantizeLinear") if conv is not None else None
    if conv is None or dequantize is None or not (_is_read_once(conv) and _is_read_once(dequantize)):
        return None
    source = dequantize.inputs[0]
    if source is None or source.dtype not in _INTEGERS or source.dtype != quantize.outputs[0].dtype:
        return None
    scheme = _scheme(dequantize)
    if scheme is None or scheme != _scheme(quantize) or not _gives_back(*scheme, source.dtype.numpy()):
        return None
    kernel = _kernel(conv.inputs[1])
    if kernel is None or not has_one_hot_kernel(conv, kernel):
        return None
    pads = conv.attributes.get("pads")
    # A transposed one has zeros at its ends without any padding.
    has_zeros = conv.op_type == "ConvTranspose" or (pads is not None and any(pads.as_ints()))
    if scheme[1] and has_zeros:
        return None  # They are integers other than 0.
    return IntegerConvolution(source, dequantize, conv, torch.from_numpy(np.array(kernel)))


def _producer(value: ir.Value | None, *kinds: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type in kinds and not node.domain else None


def _is_read_once(node: ir.Node) -> bool:
    value = node.outputs[0]
    return len(value.uses()) == 1 and not value.is_graph_output()


def _scheme(node: ir.Node) -> tuple[np.floating[Any], int] | None:
    """Scale and zero point of a Q or DQ of whole tensors; None where they are others, or are computed."""
    scale = constant_of(node.inputs[1])
    if scale is None or scale.size != 1 or scale.dtype.kind != "f":
        return None
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return scale.flat[0], 0
    zero = constant_of(node.inputs[2])
    return None if zero is None or zero.size != 1 else (scale.flat[0], int(zero.flat[0]))


def _gives_back(scale: np.floating[Any], zero: int, dtype: np.dtype[Any]) -> bool:
    """Whether every integer is itself again after DQ and Q."""
    limits = np.iinfo(dtype)
    steps = np.arange(limits.min, limits.max + 1) - zero
    with np.errstate(all="ignore"):
        return bool((np.rint(steps.astype(scale.dtype) * scale / scale) == steps).all())


def _kernel(value: ir.Value | None) -> NDArray[Any] | None:
    """The constant kernel of a convolution, which may be integers and a DQ."""
    if (known := constant_of(value)) is not None:
        return known
    dequantize = _producer(value, "DequantizeLinear")
    parts = [constant_of(part) for part in dequantize.inputs] if dequantize is not None else []
    if (
        dequantize is None
        or len(parts) < 2
        or parts[0] is None
        or parts[1] is None
        or "block_size" in dequantize.attributes
    ):
        return None
    integers, scale = parts[0].astype(np.float32), parts[1]
    zero = parts[2] if len(parts) > 2 and parts[2] is not None else np.zeros((), np.float32)
    if scale.size != 1:
        attribute = dequantize.attributes.get("axis")
        axis = attribute.as_int() if attribute is not None else 1
        aside = [-1 if k == axis % integers.ndim else 1 for k in range(integers.ndim)]
        scale, zero = scale.reshape(aside), zero.reshape(aside) if zero.size != 1 else zero
    result: NDArray[Any] = (integers - zero.astype(np.float32)) * scale.astype(np.float32)
    return result
