"""Writing explicit quantization: scales, integers, and the Q and DQ nodes around them.

Own code, because ``quantize_static`` places the nodes for neither runtime (see :mod:`.placements`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from s2mlp_deploy.calibration.ranges import LARGEST_E4M3, NumberType, Range
from s2mlp_deploy.graph.derived import part_name, part_of
from s2mlp_deploy.graph.editing import Editor
from s2mlp_deploy.graph.operators import array_of, data_inputs, fills_with_constant, is_one_hot_convolution
from s2mlp_deploy.precision.movement import movement_before
from s2mlp_deploy.precision.quantizable import QuantizableOp

_SMALLEST = 2.0**-24
"""float16's smallest number: a smaller scale would become zero in a float16 graph."""

_LARGEST_HALF = 65504.0
"""float16's largest number; larger activations are clipped at 127 times this."""

_LARGEST_BIAS = 2.0**30
"""Of int32 a quarter is left to the sum that is added to a bias."""


@dataclass(frozen=True)
class Scheme:
    """How activations become integers (or fp8).

    Attributes:
        dtype: UINT8 (with a zero-point), INT8 or FLOAT8E4M3FN (both symmetric around 0).
        half_scales: Whether scales are numbers that float16 holds exactly, because the graph will be cast to it.
        reduce_range: Whether int8 weights have 7 bits, from -63 to 63. x86 processors without VNNI add two products of
            uint8 and int8 in 16 bits, and 255 * 127 * 2 is more than 32,767, while 255 * 63 * 2 is not:
            https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html.
    """

    dtype: ir.DataType
    half_scales: bool
    reduce_range: bool = False

    @property
    def number_type(self) -> NumberType:
        """What a range is chosen for."""
        return NumberType(self.dtype.name.lower())

    @property
    def symmetric(self) -> bool:
        """Whether the zero-point is 0."""
        return self.number_type.symmetric

    def parameters(self, chosen: Range) -> tuple[NDArray[np.float32], NDArray[np.generic]]:
        """Scale and zero-point of a tensor, as 0-d arrays.

        A tensor that is 0 in all of the calibration data gets the scale 1, as ONNX Runtime gives it.
        """
        top = _largest(self.dtype)
        if not self.symmetric:
            scale = self._representable((chosen.high - chosen.low) / 255)
            zero = np.clip(np.rint(-chosen.low / scale), 0, 255)
            return np.asarray(scale, np.float32), np.asarray(zero, np.uint8)
        scale = self._representable(chosen.magnitude / top)
        return np.asarray(scale, np.float32), np.asarray(0, self.dtype.numpy())

    def weight_dtype(self) -> ir.DataType:
        """Weights are symmetric always."""
        return self.dtype if self.symmetric else ir.DataType.INT8

    def weights(
        self, array: NDArray[np.float32], axis: int, least: NDArray[np.float32] | None = None
    ) -> tuple[NDArray[np.generic], NDArray[np.float32]]:
        """Weights as integers (or fp8) and their scales, one per output channel.

        Args:
            array: The weights.
            axis: The one that counts output channels.
            least: Smallest scales, where smaller ones cannot be used.
        """
        dtype = self.weight_dtype()
        top = 63.0 if self.reduce_range and dtype == ir.DataType.INT8 else _largest(dtype)
        others = tuple(index for index in range(array.ndim) if index != axis)
        peaks = np.abs(array).max(axis=others)
        scale = np.array([self._representable(peak / top) for peak in peaks], np.float32)
        if least is not None:
            # Any scale does for a channel of zeros.
            scale = np.where((peaks == 0) & (least > 0), least, np.maximum(scale, least))
        divided = array / np.expand_dims(scale, others)
        if dtype == ir.DataType.INT8:
            # -128 stays unused, so that the range is the same on both sides of 0.
            return np.clip(np.rint(divided), -top, top).astype(np.int8), scale
        return np.clip(divided, -top, top).astype(dtype.numpy()), scale

    def _representable(self, scale: float) -> float:
        if not scale > 0:
            return 1.0
        if self.half_scales:
            half = np.float16(np.clip(scale, _SMALLEST, _LARGEST_HALF))
            # Never rounded down, which would clip the range's end: by up to a third where the scale is subnormal.
            return float(half if float(half) >= min(scale, _LARGEST_HALF) else np.nextafter(half, np.float16(np.inf)))
        return float(np.float32(scale))


def _largest(dtype: ir.DataType) -> float:
    return 127.0 if dtype == ir.DataType.INT8 else LARGEST_E4M3


class Quantizer:
    """Puts Q and DQ into a graph, in place.

    Args:
        model: A float32 graph.
        scheme: Of the activations.

    Attributes:
        moved: What stands for results of ops that were written anew; another op may read such a result directly.
    """

    def __init__(self, model: ir.Model, scheme: Scheme) -> None:
        self.editor = Editor(model.graph)
        self.scheme = scheme
        self.moved: dict[ir.Value, ir.Value] = {}

    def activation(
        self, value: ir.Value, chosen: Range, ops: Sequence[QuantizableOp], *, through_movement: bool
    ) -> None:
        """Quantizes what GEMMs and convolutions read.

        Args:
            value: The activation.
            chosen: Its range.
            ops: Those that read it.
            through_movement: Whether Q moves above the data movement in front of the ops, so that the integers
                are what is moved.
        """
        readers = {op.node for op in ops}
        movement = movement_before(value, readers) if through_movement else None
        scale, zero = self._parameters(value, chosen)
        if movement is None or not movement.nodes:
            integers = self._quantize(value, scale, zero, before=ops[0].node)
        else:
            integers = self._move_integers(movement.sources, movement.nodes, scale, zero, value)
        restored = self._dequantize(
            [integers, scale, zero], name=str(value.name), shape=value.shape, before=ops[0].node
        )
        for op in ops:
            op.node.replace_input_with(0, restored)

    def result(self, value: ir.Value, chosen: Range) -> None:
        """Puts Q and DQ behind a value, for all who read it."""
        producer = value.producer()
        assert producer is not None
        readers = list(value.uses())
        scale, zero = self._parameters(value, chosen)
        integers = self._quantize(value, scale, zero, after=producer)
        quantize = integers.producer()
        restored = self._dequantize([integers, scale, zero], name=str(value.name), shape=value.shape, after=quantize)
        for reader, index in readers:
            reader.replace_input_with(index, restored)
        if value.is_graph_output():
            name = value.name
            value.replace_all_uses_with(restored, replace_graph_outputs=True)
            assert quantize is not None
            quantize.replace_input_with(0, value)
            value.name, restored.name = self.editor.free_name(f"{name}/float"), name

    def weight(self, op: QuantizableOp, least: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Stores an op's weights as integers behind a DQ.

        Args:
            op: The GEMM or convolution.
            least: See :meth:`Scheme.weights`.

        Returns:
            Their scales, one per output channel.
        """
        integers, scales = self.scheme.weights(op.weights, op.axis, least)
        # Layers that share weights get copies: ONNX Runtime 1.32's exact kernels for processors without VNNI turn them
        # into uint8 once for each DQ, and it fails to load a graph where two of them read one tensor.
        stored = [
            self.editor.constant(array, f"{op.weight.name}.{kind}")
            for array, kind in (
                (integers, "quantized"),
                (scales, "scale"),
                (np.zeros(scales.shape, integers.dtype), "zero_point"),
            )
        ]
        restored = self._dequantize(
            stored,
            name=f"{op.layer}/weight",
            shape=op.weight.shape,
            axis=op.axis,
            before=op.node,
        )
        op.node.replace_input_with(1, restored)
        return scales

    def weight_and_bias(self, op: QuantizableOp, activation_scale: float) -> ir.Value | None:
        """Stores weights as integers, and a bias as int32 in units of the op's accumulator, both behind a DQ.

        Where weights are so small that the bias would pass int32, their scale grows until it does not.

        Returns:
            The bias; None where there is none.
        """
        bias = op.bias_values
        if bias is None:
            self.weight(op)
            return None
        least = np.abs(bias.astype(np.float64)) / (_LARGEST_BIAS * activation_scale)
        scales = np.float32(activation_scale) * self.weight(op, least.astype(np.float32))
        scales = np.maximum(scales, np.finfo(np.float32).tiny)
        integers = np.rint(bias.astype(np.float64) / scales).astype(np.int32)
        name, part = f"{op.layer}.bias", part_of(str(op.weight.name))
        if part is not None:
            name = part_name(name, *part[1:])
        return self._dequantize(
            [
                self.editor.constant(integers, f"{name}.quantized"),
                self.editor.constant(scales, f"{name}.scale"),
                self.editor.constant(np.zeros(scales.shape, np.int32), f"{name}.zero_point"),
            ],
            name=f"{op.layer}/bias",
            shape=ir.Shape(integers.shape),
            axis=0,
            before=op.node,
        )

    def _parameters(self, value: ir.Value, chosen: Range) -> tuple[ir.Value, ir.Value]:
        scale, zero = self.scheme.parameters(chosen)
        return (
            self.editor.constant(scale, f"{value.name}.scale"),
            self.editor.constant(zero, f"{value.name}.zero_point"),
        )

    def _quantize(
        self,
        value: ir.Value,
        scale: ir.Value,
        zero: ir.Value,
        *,
        name: str | None = None,
        before: ir.Node | None = None,
        after: ir.Node | None = None,
    ) -> ir.Value:
        return self.editor.node(
            "QuantizeLinear",
            [value, scale, zero],
            name=f"{name or value.name}/QuantizeLinear",
            dtype=self.scheme.dtype,
            shape=value.shape,
            before=before,
            after=after,
        )

    def _dequantize(
        self,
        parts: Sequence[ir.Value],
        *,
        name: str,
        shape: ir.Shape | None,
        axis: int | None = None,
        before: ir.Node | None = None,
        after: ir.Node | None = None,
    ) -> ir.Value:
        """A DQ of integers, their scale and zero-point: of the whole tensor, or of each place along an axis."""
        return self.editor.node(
            "DequantizeLinear",
            parts,
            {} if axis is None else {"axis": axis},
            name=f"{name}/DequantizeLinear",
            dtype=ir.DataType.FLOAT,
            shape=shape,
            before=before,
            after=after,
        )

    def _move_integers(
        self, sources: Sequence[ir.Value], nodes: Sequence[ir.Node], scale: ir.Value, zero: ir.Value, last: ir.Value
    ) -> ir.Value:
        """Lets movements move integers: their sources are quantized, their results change type.

        Returns:
            What holds the integers of ``last``, the value that the movements end in.
        """
        inside = set(nodes)
        for source in sources:
            readers = [(reader, index) for reader, index in source.uses() if reader in inside]
            first = next(node for node in nodes if any(reader is node for reader, _ in readers))
            integers = self._quantize(source, scale, zero, before=first)
            for reader, index in readers:
                if index in data_inputs(reader):
                    reader.replace_input_with(index, integers)
        zero_array = array_of(zero)
        assert zero_array is not None
        for node in nodes:
            if is_one_hot_convolution(node):
                integers = self._one_hot(node, scale, zero)
                last = integers if node.outputs[0] is last else last
                continue
            for value in node.outputs:
                value.type = ir.TensorType(self.scheme.dtype)
            if node.op_type == "Pad" and fills_with_constant(node):
                self._fill_with(node, zero_array)
        return last

    def _fill_with(self, pad: ir.Node, zero: NDArray[Any]) -> None:
        """What a padding of integers adds: the integer that 0 becomes.

        TensorRT takes no integer constant but before a DQ: where the default, the integer 0, is right, none is given.
        """
        pad.resize_inputs(max(3, len(pad.inputs)))
        pad.replace_input_with(2, self.editor.constant(zero, f"{pad.name}.zero") if zero.any() else None)

    def _one_hot(self, node: ir.Node, scale: ir.Value, zero: ir.Value) -> ir.Value:
        """A convolution takes no integers in Q/DQ form: DQ before it and Q behind it, with one scale for both.

        Kernels of zeros and ones are exact with the scale 1, so the integers behind are those before.
        """
        kernel, moved = array_of(node.inputs[1]), node.outputs[0]
        assert kernel is not None
        assert node.inputs[0] is not None
        readers = list(moved.uses())
        restored = self._dequantize(
            [node.inputs[0], scale, zero], name=str(node.name), shape=node.inputs[0].shape, before=node
        )
        weights = self._dequantize(
            [
                self.editor.constant(kernel.astype(np.int8), f"{node.name}.kernel"),
                self.editor.constant(np.ones(kernel.shape[0], np.float32), f"{node.name}.kernel_scale"),
                self.editor.constant(np.zeros(kernel.shape[0], np.int8), f"{node.name}.kernel_zero_point"),
            ],
            name=f"{node.name}/kernel",
            shape=ir.Shape(kernel.shape),
            axis=0,
            before=node,
        )
        node.replace_input_with(0, restored)
        node.replace_input_with(1, weights)
        integers = self._quantize(moved, scale, zero, name=node.name, after=node)
        for reader, index in readers:
            reader.replace_input_with(index, integers)
        return integers
