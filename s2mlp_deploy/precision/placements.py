"""Where Q and DQ go: one strategy per runtime, because what is fastest in one is slow in the other.

``onnxruntime.quantization.quantize_static`` does the job for neither, so the nodes are placed here, with ranges that
one calibration serves to all. Measured with version 1.32: it puts Q and DQ around the MatMul and the Add behind it, so
that a product with float output (what GELU and the residual stream want) never becomes a fused integer kernel; it
quantizes behind a shift, not before it; and it cannot make TensorRT's float16 graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.calibration.histogram import Histogram
from s2mlp_deploy.calibration.ranges import Range, choose_range
from s2mlp_deploy.graph.editing import drop_unused_initializers, move, remove
from s2mlp_deploy.precision.qdq import Quantizer, Scheme
from s2mlp_deploy.precision.sites import Site, find_sites
from s2mlp_deploy.precision.sums import sums_as_products


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
        return choose_range(self.histograms[str(value.name)], self.method, symmetric=scheme.symmetric)


class Placement(Protocol):
    """A strategy: which tensors of a graph are quantized, and how."""

    @property
    def precision(self) -> str:
        """What the manifest calls the file's precision; the file is ``model.<precision>.onnx``."""
        ...

    @property
    def scheme(self) -> Scheme:
        """Of the activations."""
        ...

    def apply(self, model: ir.Model, calibrated: Calibrated, keep: AbstractSet[str] = frozenset()) -> ir.Model:
        """Quantizes a copy of a float32 graph; weights that stay are shared, not copied.

        Args:
            model: The graph that was calibrated.
            calibrated: Its ranges.
            keep: Layers that stay in float.
        """
        ...


@dataclass(frozen=True)
class ForOnnxRuntime:
    """Integers where ONNX Runtime's CPU kernels are fast.

    A fully connected layer becomes a two-dimensional Gemm of uint8 activations, int8 weights and an int32 bias whose
    float result nobody quantizes: ONNX Runtime fuses exactly that to QGemm with float output, so neither GELU nor the
    residual stream pays for a Q and a DQ (0.37 of the float32 time on s2mlpv2_small_7; ``benchmarks/accuracy.md``, with
    what else was tried). uint8, because processors without signed dot products multiply signed activations many times
    slower. A convolution has no such kernel and gets Q and DQ behind it too. Sums over all tokens, which
    ONNX Runtime reduces slowly, become products with a row of ones.

    Attributes:
        precision: See :class:`Placement`.
        scheme: UINT8.
    """

    precision: str
    scheme: Scheme

    def apply(self, model: ir.Model, calibrated: Calibrated, keep: AbstractSet[str] = frozenset()) -> ir.Model:
        """See :class:`Placement`."""
        model = model.clone()
        quantizer = Quantizer(model, self.scheme)
        for value, sites in _by_activation(model, keep):
            chosen = calibrated.range(value, self.scheme)
            scale = float(self.scheme.parameters(chosen)[0])
            quantizer.activation(value, chosen, sites, through_movement=True)
            for site in sites:
                bias = quantizer.weight_and_bias(site, scale)
                if site.node.op_type == "Conv":
                    if bias is not None:
                        site.node.replace_input_with(2, bias)
                    quantizer.result(site.output, calibrated.range(site.output, self.scheme))
                else:
                    _as_gemm(quantizer, site, bias)
        sums_as_products(model.graph)
        drop_unused_initializers(model.graph)
        return model


@dataclass(frozen=True)
class ForTensorRT:
    """Q and DQ in front of matrix products only, symmetric, over a graph that is cast to float16 afterwards.

    TensorRT fuses what lies between products by itself and wants no Q behind them (its parser refuses zero-points
    other than 0 and an int32 bias). Q moves above a shift, so that int8 passes through every form of it; fp8 does not,
    because TensorRT has no Slice of fp8.

    Attributes:
        precision: See :class:`Placement`.
        scheme: INT8 or FLOAT8E4M3FN.
    """

    precision: str
    scheme: Scheme

    def apply(self, model: ir.Model, calibrated: Calibrated, keep: AbstractSet[str] = frozenset()) -> ir.Model:
        """See :class:`Placement`."""
        model = model.clone()
        quantizer = Quantizer(model, self.scheme)
        through = self.scheme.dtype == ir.DataType.INT8
        for value, sites in _by_activation(model, keep):
            quantizer.activation(value, calibrated.range(value, self.scheme), sites, through_movement=through)
            for site in sites:
                quantizer.weight(site)
        drop_unused_initializers(model.graph)
        return model


PLACEMENTS: Mapping[str, Placement] = {
    placement.precision: placement
    for placement in (
        ForOnnxRuntime("int8", Scheme(ir.DataType.UINT8, half_scales=False)),
        ForTensorRT("int8-trt", Scheme(ir.DataType.INT8, half_scales=True)),
        ForTensorRT("fp8-trt", Scheme(ir.DataType.FLOAT8E4M3FN, half_scales=True)),
    )
}
"""By the precision their files have."""


def _by_activation(model: ir.Model, keep: AbstractSet[str]) -> list[tuple[ir.Value, Sequence[Site]]]:
    groups: dict[ir.Value, list[Site]] = {}
    for site in find_sites(model).chosen:
        if site.layer not in keep:
            groups.setdefault(site.activation, []).append(site)
    return list(groups.items())


def _as_gemm(quantizer: Quantizer, site: Site, bias: ir.Value | None) -> None:
    """Writes a product and its bias as one Gemm over rows."""
    if site.node.op_type == "Gemm":
        if bias is not None:
            site.node.replace_input_with(2, bias)
        return
    editor, graph = quantizer.editor, quantizer.editor.graph
    activation, weight = site.node.inputs[0], site.node.inputs[1]
    assert activation is not None
    assert weight is not None
    shape = site.output.shape
    inputs, outputs = site.weights.shape
    rows = activation
    if shape is None or len(shape) != 2:
        target = editor.constant(np.array([-1, inputs], np.int64), f"{site.layer}.rows")
        rows = editor.node(
            "Reshape",
            [activation, target],
            name=f"{site.layer}/Reshape",
            dtype=ir.DataType.FLOAT,
            shape=ir.Shape([None, inputs]),
            before=site.node,
        )
    result = editor.node(
        "Gemm",
        [rows, weight, bias] if bias is not None else [rows, weight],
        name=f"{site.layer}/Gemm",
        dtype=site.output.dtype,
        shape=ir.Shape([None, outputs]),
        before=site.node,
    )
    if rows is not activation:
        result = editor.node(
            "Reshape",
            [result, _shape_like(quantizer, site, outputs)],
            name=f"{site.layer}/Reshape_back",
            dtype=site.output.dtype,
            shape=shape,
            before=site.node,
        )
    move(site.output, result)
    remove(graph, [node for node in (site.add, site.node) if node is not None])


def _shape_like(quantizer: Quantizer, site: Site, outputs: int) -> ir.Value:
    """The shape of a product's result: a constant where only one size is free."""
    editor, shape = quantizer.editor, site.output.shape
    if shape is not None and sum(not isinstance(size, int) for size in shape) <= 1:
        sizes = [size if isinstance(size, int) else -1 for size in shape]
        return editor.constant(np.array(sizes, np.int64), f"{site.layer}.shape")
    outer = editor.node(
        "Shape",
        [site.node.inputs[0]],
        {"end": -1},
        name=f"{site.layer}/Shape",
        dtype=ir.DataType.INT64,
        shape=None,
        before=site.node,
    )
    channels = editor.constant(np.array([outputs], np.int64), f"{site.layer}.channels")
    return editor.node(
        "Concat",
        [outer, channels],
        {"axis": 0},
        name=f"{site.layer}/Concat",
        dtype=ir.DataType.INT64,
        shape=None,
        before=site.node,
    )
