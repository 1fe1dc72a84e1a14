"""Constants as a graph reads them: through the nodes that cast, dequantize, transpose or reshape them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

Array = NDArray[Any]

_THROUGH = frozenset(
    {
        *("Cast", "Identity", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"),
        *("QuantizeLinear", "DequantizeLinear"),
    }
)
"""Operators whose result is never larger than what they are given, but for the type."""

_LONGEST = 16
"""Nodes that a constant may go through."""

FLOATS = frozenset(
    {
        *(ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE),
        *(ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT8E5M2, ir.DataType.FLOAT8E4M3FNUZ, ir.DataType.FLOAT8E5M2FNUZ),
    }
)


@dataclass(frozen=True)
class Constant:
    """A constant and what the graph makes of it before a node reads it.

    Attributes:
        value: What the node reads.
        name: Of the stored tensor.
        stored: The stored tensor.
        nodes: What it goes through, in order.
        opset: Of the graph.
    """

    value: ir.Value
    name: str
    stored: ir.TensorProtocol
    nodes: tuple[ir.Node, ...]
    opset: int

    @property
    def dtype(self) -> ir.DataType | None:
        """Of what the node reads; None where the graph does not say."""
        return self.value.dtype if self.nodes else self.stored.dtype

    @property
    def is_float(self) -> bool:
        """Whether what the node reads is numbers rather than sizes, places or truths."""
        if any(node.op_type == "DequantizeLinear" for node in self.nodes):
            return True
        return (self.dtype or self.stored.dtype) in FLOATS

    @property
    def elements(self) -> int:
        """How many there are."""
        return math.prod(size for size in self.stored.shape if isinstance(size, int))

    def array(self) -> Array:
        """The numbers that the node reads.

        Raises:
            ValueError: The tensor is damaged, or the nodes contradict one another.
        """
        return _through(self, numbers_of(self.stored), ones=False)

    def step(self) -> Array | None:
        """The scale of every element, laid out as in :meth:`array`; None of what is not dequantized.

        Raises:
            ValueError: The nodes cannot be computed.
        """
        last = next((k for k in reversed(range(len(self.nodes))) if self.nodes[k].op_type == "DequantizeLinear"), None)
        if last is None:
            return None
        return _through(self, numbers_of(self.stored), ones=True)


def numbers_of(tensor: ir.TensorProtocol) -> Array:
    """A tensor's numbers.

    Raises:
        ValueError: It has more or fewer bytes than its shape and type say.
    """
    try:
        return tensor.numpy()
    except Exception as error:  # NumPy's and onnx_ir's own, and those of reading another file.
        raise ValueError(f"the tensor {tensor.name} cannot be read: {error}") from error


def bytes_of(tensor: ir.TensorProtocol) -> bytes:
    """A tensor's bytes; none of strings, and of one that is damaged."""
    try:
        return tensor.tobytes()
    except Exception:  # See numbers_of.
        return b""


def tensor_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    """A constant's tensor: an initializer's or that of a Constant node; None for what is computed."""
    if value is None:
        return None
    if value.const_value is not None:
        return value.const_value
    producer = value.producer()
    if producer is None or producer.op_type != "Constant" or producer.domain:
        return None
    try:
        return ir.convenience.get_const_tensor(value)
    except (ValueError, TypeError, AttributeError):  # A damaged Constant.
        return None


def constant_of(value: ir.Value | None, opset: int) -> Constant | None:
    """The constant that a node reads; None for what is computed from the network's inputs, or by other operators."""
    if value is None:
        return None
    nodes: list[ir.Node] = []
    current: ir.Value | None = value
    while current is not None and len(nodes) <= _LONGEST:
        tensor = tensor_of(current)
        if tensor is not None:
            return Constant(value, str(current.name), tensor, tuple(reversed(nodes)), opset)
        producer = current.producer()
        if producer is None or producer.op_type not in _THROUGH or producer.domain or not producer.inputs:
            return None
        if any(given is not None and tensor_of(given) is None for given in producer.inputs[1:]):
            return None
        nodes.append(producer)
        current = producer.inputs[0]
    return None


def _through(constant: Constant, array: Array, *, ones: bool) -> Array:
    """The stored numbers after all nodes; with ``ones``, the last scale instead of them."""
    last = max((k for k, node in enumerate(constant.nodes) if node.op_type == "DequantizeLinear"), default=-1)
    for index, node in enumerate(constant.nodes):
        given = [None if value is None else tensor_of(value) for value in node.inputs[1:]]
        others = [None if tensor is None else numbers_of(tensor) for tensor in given]
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            _check_scale(node, array, others)
        if ones and index == last:
            array, others = np.ones_like(array), [*others[:1], *(np.zeros_like(z) for z in others[1:] if z is not None)]
        array = _run(node, [array, *others], constant.opset)
    return array


def _check_scale(node: ir.Node, array: Array, others: list[Array | None]) -> None:
    """Refuses scales that would make more numbers than there are: a file may claim any shapes."""
    for given in others:
        if given is not None and given.size > max(array.size, 1):
            raise ValueError(f"{node.name} has {given.size:,} scales for {array.size:,} numbers")
    scale = others[0] if others else None
    if scale is None or scale.size == 1 or scale.ndim == array.ndim:
        return
    axis = node.attributes.get("axis")
    where = axis.as_int() if axis is not None else 1
    if scale.ndim != 1 or not -array.ndim <= where < array.ndim or array.shape[where] != scale.size:
        raise ValueError(f"the scales of {node.name} do not fit: {scale.shape} for {array.shape}")


def _run(node: ir.Node, arrays: list[Array | None], opset: int) -> Array:
    """One node, by ONNX's reference implementation."""
    if node.op_type == "Identity":
        assert arrays[0] is not None
        return arrays[0]
    names = ["" if array is None else f"i{index}" for index, array in enumerate(arrays)]
    proto = ir.to_proto(node)
    del proto.input[:], proto.output[:], proto.metadata_props[:]
    proto.input.extend(names)
    proto.output.append("o")
    proto.domain = ""
    feeds = {name: array for name, array in zip(names, arrays, strict=True) if array is not None}
    inputs = [
        onnx.helper.make_tensor_value_info(name, ir.DataType.from_numpy(array.dtype).value, array.shape)
        for name, array in feeds.items()
    ]
    graph = onnx.helper.make_graph([proto], "one", inputs, [onnx.ValueInfoProto(name="o")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)
    try:
        (result,) = ReferenceEvaluator(model).run(None, feeds)
    except Exception as error:  # Whatever NumPy or the implementation raises of shapes that do not fit.
        raise ValueError(f"{node.op_type} {node.name}: {error}") from error
    return np.asarray(result)
