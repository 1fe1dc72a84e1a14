"""Where Q and DQ go: one strategy per runtime, because what is fastest in one is slow in the other.

``onnxruntime.quantization.quantize_static`` does the job for neither, so the nodes are placed here, with ranges that
one calibration serves to all. Measured with version 1.32: it puts Q and DQ around the MatMul and the Add behind it, so
that a MatMul with float output (what GELU and the residual stream want) never becomes a fused integer kernel; it
quantizes behind a shift, not before it; and it cannot make TensorRT's float16 graph.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.calibration.histogram import Histogram
from s2mlp_deploy.calibration.ranges import Range, choose_range
from s2mlp_deploy.graph.editing import drop_unused_initializers, move, remove
from s2mlp_deploy.graph.sums import sums_as_products
from s2mlp_deploy.precision.exclusion import NOTHING, Exclusion
from s2mlp_deploy.precision.qdq import Quantizer, Scheme
from s2mlp_deploy.precision.quantizable import QuantizableOp, select_ops


@dataclass(frozen=True)
class Calibrated:
    """Ranges for every method and scheme, from one pass over the data.

    Attributes:
        histograms: By the name of the value.
        method: How a range is chosen.
    """

    histograms: Mapping[str, Histogram]
    method: str

    def range(self, value: ir.Value, scheme: Scheme) -> Range:
        """The range of a value under a scheme."""
        return choose_range(self.histograms[str(value.name)], self.method, scheme.number_type)


@dataclass(frozen=True)
class Placement(ABC):
    """A strategy: which tensors of a graph are quantized, and how.

    Attributes:
        precision: What the manifest calls the file's precision; the file is ``model.<precision>.onnx``.
        scheme: Of the activations.
    """

    precision: str
    scheme: Scheme

    def apply(
        self,
        model: ir.Model,
        calibrated: Calibrated,
        keep: AbstractSet[str] = frozenset(),
        exclusion: Exclusion = NOTHING,
    ) -> ir.Model:
        """Quantizes a copy of a float32 graph; weights that stay are shared, not copied.

        Args:
            model: The graph that was calibrated.
            calibrated: Its ranges.
            keep: Layers that stay in float.
            exclusion: What else does, by the user's wish.
        """
        model = model.clone()
        quantizer = Quantizer(model, self.scheme)
        for value, ops in _by_activation(model, keep, exclusion, self.scheme):
            self._place(quantizer, value, ops, calibrated)
        self._finish(model)
        drop_unused_initializers(model.graph)
        return model

    @abstractmethod
    def _place(
        self, quantizer: Quantizer, value: ir.Value, ops: Sequence[QuantizableOp], calibrated: Calibrated
    ) -> None:
        """Quantizes an activation and the ops that read it."""

    def _finish(self, model: ir.Model) -> None:
        """What else changes in the graph; nothing here."""
        del model


@dataclass(frozen=True)
class ForOnnxRuntime(Placement):
    """Integers where ONNX Runtime's CPU kernels are fast.

    A fully connected layer becomes a two-dimensional Gemm of uint8 activations, int8 weights and an int32 bias whose
    float result is not quantized: ONNX Runtime fuses exactly that to QGemm with float output, so neither GELU nor the
    residual stream pays for a Q and a DQ (0.37 of the float32 time on s2mlpv2_small_7; ``benchmarks/accuracy.md``, with
    what else was tried). uint8, because processors without signed dot products multiply signed activations many times
    slower. A convolution has no such kernel and gets Q and DQ behind it too. Sums over all tokens, which
    ONNX Runtime reduces slowly, become GEMMs with a row of ones.
    """

    def _place(
        self, quantizer: Quantizer, value: ir.Value, ops: Sequence[QuantizableOp], calibrated: Calibrated
    ) -> None:
        chosen = calibrated.range(value, self.scheme)
        scale = float(self.scheme.parameters(chosen)[0])
        quantizer.activation(quantizer.moved.get(value, value), chosen, ops, through_movement=True)
        for op in ops:
            bias = quantizer.weight_and_bias(op, scale)
            if op.node.op_type == "Conv":
                if bias is not None:
                    op.node.replace_input_with(2, bias)
                quantizer.result(op.output, calibrated.range(op.output, self.scheme))
            else:
                _as_gemm(quantizer, op, bias)

    def _finish(self, model: ir.Model) -> None:
        sums_as_products(model.graph)


@dataclass(frozen=True)
class ForTensorRT(Placement):
    """Q and DQ in front of GEMMs and convolutions only, symmetric, over a graph that is cast to float16 afterwards.

    TensorRT fuses what lies between them by itself and wants no Q behind them (its parser refuses zero-points
    other than 0 and an int32 bias). Q moves above a shift, so that int8 passes through every form of it; fp8 does not,
    because TensorRT has no Slice of fp8.
    """

    def _place(
        self, quantizer: Quantizer, value: ir.Value, ops: Sequence[QuantizableOp], calibrated: Calibrated
    ) -> None:
        through = self.scheme.dtype == ir.DataType.INT8
        quantizer.activation(value, calibrated.range(value, self.scheme), ops, through_movement=through)
        for op in ops:
            quantizer.weight(op)


PLACEMENTS: Mapping[str, Placement] = {
    placement.precision: placement
    for placement in (
        ForOnnxRuntime("int8", Scheme(ir.DataType.UINT8, half_scales=False)),
        ForTensorRT("int8-trt", Scheme(ir.DataType.INT8, half_scales=True)),
        ForTensorRT("fp8-trt", Scheme(ir.DataType.FLOAT8E4M3FN, half_scales=True)),
    )
}
"""By the precision their files have."""


def placement_of(precision: str, *, reduce_range: bool = False) -> Placement:
    """The placement of a file's precision.

    Args:
        precision: A name of :data:`PLACEMENTS`.
        reduce_range: Whether the weights of ``int8``, the file for CPUs, have 7 bits; see :class:`Scheme`.
    """
    placement = PLACEMENTS[precision]
    if reduce_range and isinstance(placement, ForOnnxRuntime):
        return replace(placement, scheme=replace(placement.scheme, reduce_range=True))
    return placement


def _by_activation(
    model: ir.Model, keep: AbstractSet[str], exclusion: Exclusion, scheme: Scheme
) -> list[tuple[ir.Value, Sequence[QuantizableOp]]]:
    groups: dict[ir.Value, list[QuantizableOp]] = {}
    for op in select_ops(model, exclusion, dtype=scheme.weight_dtype()).ops:
        if op.layer not in keep:
            groups.setdefault(op.activation, []).append(op)
    return list(groups.items())


def _as_gemm(quantizer: Quantizer, op: QuantizableOp, bias: ir.Value | None) -> None:
    """Writes a MatMul and its bias as one Gemm over rows."""
    if op.node.op_type == "Gemm":
        if bias is not None:
            op.node.replace_input_with(2, bias)
        return
    editor, graph = quantizer.editor, quantizer.editor.graph
    activation, weight = op.node.inputs[0], op.node.inputs[1]
    assert activation is not None
    assert weight is not None
    shape = op.output.shape
    inputs, outputs = op.weights.shape
    rows = activation
    if shape is None or len(shape) != 2:
        target = editor.constant(np.array([-1, inputs], np.int64), f"{op.layer}.rows")
        rows = editor.node(
            "Reshape",
            [activation, target],
            name=f"{op.layer}/Reshape",
            dtype=ir.DataType.FLOAT,
            shape=ir.Shape([None, inputs]),
            before=op.node,
        )
    result = editor.node(
        "Gemm",
        [rows, weight, bias] if bias is not None else [rows, weight],
        name=f"{op.layer}/Gemm",
        dtype=op.output.dtype,
        shape=ir.Shape([None, outputs]),
        before=op.node,
    )
    if rows is not activation:
        result = editor.node(
            "Reshape",
            [result, _shape_like(quantizer, op, outputs)],
            name=f"{op.layer}/Reshape_back",
            dtype=op.output.dtype,
            shape=shape,
            before=op.node,
        )
    move(op.output, result)
    quantizer.moved[op.output] = result
    remove(graph, [node for node in (op.add, op.node) if node is not None])


def _shape_like(quantizer: Quantizer, op: QuantizableOp, outputs: int) -> ir.Value:
    """The shape of a MatMul's result: a constant where only one size is free."""
    editor, shape = quantizer.editor, op.output.shape
    if shape is not None and sum(not isinstance(size, int) for size in shape) <= 1:
        sizes = [size if isinstance(size, int) else -1 for size in shape]
        return editor.constant(np.array(sizes, np.int64), f"{op.layer}.shape")
    outer = editor.node(
        "Shape",
        [op.node.inputs[0]],
        {"end": -1},
        name=f"{op.layer}/Shape",
        dtype=ir.DataType.INT64,
        shape=None,
        before=op.node,
    )
    channels = editor.constant(np.array([outputs], np.int64), f"{op.layer}.channels")
    return editor.node(
        "Concat",
        [outer, channels],
        {"axis": 0},
        name=f"{op.layer}/Concat",
        dtype=ir.DataType.INT64,
        shape=None,
        before=op.node,
    )
