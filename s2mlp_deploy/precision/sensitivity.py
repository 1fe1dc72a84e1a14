"""What quantization costs each layer, measured where it happens: the error of its own result.

One float32 run computes each of them twice, from the same float input: as it is, and with its activation and weights
rounded. The ratio of the two sums of squares is the layer's signal-to-quantization-noise ratio. ONNX Runtime's
``qdq_loss_debug`` compares a quantized graph with a float one, where a layer's error is mixed with all before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from s2mlp_deploy.engines.of_graph import open_graph
from s2mlp_deploy.graph.editing import Editor
from s2mlp_deploy.precision.exclusion import NOTHING, Exclusion
from s2mlp_deploy.precision.placements import Calibrated
from s2mlp_deploy.precision.qdq import Scheme
from s2mlp_deploy.precision.quantizable import QuantizableOp, select_ops

_BEST = 200.0
"""Decibels written for a layer without any error."""


def layer_sqnr(
    model: ir.Model,
    scheme: Scheme,
    calibrated: Calibrated,
    batches: Iterable[Mapping[str, NDArray[Any]]],
    *,
    exclusion: Exclusion = NOTHING,
    threads: int = 0,
) -> dict[str, float]:
    """The signal-to-quantization-noise ratio of every layer, in dB, in graph order.

    Args:
        model: The float32 graph that was calibrated.
        scheme: Of the activations.
        calibrated: The ranges.
        batches: Inputs by name; some dozens of samples are enough, since every element of every sample counts.
        exclusion: What is not quantized, and has no figure therefore.
        threads: Of ONNX Runtime; 0 lets it choose.
    """
    model = model.clone()
    graph = model.graph
    editor = Editor(graph)
    ops = select_ops(model, exclusion, dtype=scheme.weight_dtype()).ops
    graph.outputs.clear()
    for index, op in enumerate(ops):
        rounded = _rounded_result(editor, op, scheme, calibrated)
        exact = op.node.outputs[0]
        noise = editor.node(
            "Sub",
            [exact, rounded],
            name=f"{op.layer}/noise",
            dtype=ir.DataType.FLOAT,
            shape=exact.shape,
            after=rounded.producer(),
        )
        for kind, value in (("noise", noise), ("signal", exact)):
            energy = editor.node(
                "ReduceSumSquare",
                [value],
                {"keepdims": 0},
                name=f"{op.layer}/{kind}_energy",
                dtype=ir.DataType.FLOAT,
                shape=ir.Shape([]),
                after=noise.producer(),
            )
            energy.name = f"{kind}.{index}"
            graph.outputs.append(energy)
    sums = np.zeros((len(ops), 2))
    engine = open_graph(model, threads=threads)
    for feeds in batches:
        outputs = engine.run(feeds)
        sums += [[outputs[f"signal.{index}"], outputs[f"noise.{index}"]] for index in range(len(ops))]
    found: dict[str, float] = {}
    for op, (signal, lost) in zip(ops, sums.tolist(), strict=True):
        ratio = _decibels(signal, lost)
        # A module may hold several ops; they are kept or quantized together.
        found[op.layer] = min(ratio, found.get(op.layer, _BEST))
    return found


def _decibels(signal: float, lost: float) -> float:
    """The ratio of two energies, at most :data:`_BEST`; -inf, the worst, where there is noise alone or no number."""
    if lost == 0 and np.isfinite(signal):
        return _BEST
    if not (np.isfinite(signal) and np.isfinite(lost)) or signal <= 0:
        return float("-inf")
    return min(_BEST, float(10 * np.log10(signal / lost)))


def _rounded_result(editor: Editor, op: QuantizableOp, scheme: Scheme, calibrated: Calibrated) -> ir.Value:
    """The result of the rounded activation and the rounded weights, beside the exact one."""
    chosen = calibrated.range(op.activation, scheme)
    scale, zero = (editor.constant(a, f"{op.layer}.q") for a in scheme.parameters(chosen))
    integers = editor.node(
        "QuantizeLinear",
        [op.activation, scale, zero],
        name=f"{op.layer}/q",
        dtype=scheme.dtype,
        shape=op.activation.shape,
        after=op.node,
    )
    activation = editor.node(
        "DequantizeLinear",
        [integers, scale, zero],
        name=f"{op.layer}/dq",
        dtype=ir.DataType.FLOAT,
        shape=op.activation.shape,
        after=integers.producer(),
    )
    quantized, scales = scheme.weights(op.weights, op.axis)
    others = tuple(axis for axis in range(quantized.ndim) if axis != op.axis)
    restored = quantized.astype(np.float32) * np.expand_dims(scales, others)
    inputs = [activation, editor.constant(restored, f"{op.layer}.rounded"), *op.node.inputs[2:]]
    return editor.node(
        op.node.op_type,
        inputs,
        {name: a.value for name, a in op.node.attributes.items()},
        name=f"{op.layer}/rounded",
        dtype=ir.DataType.FLOAT,
        shape=op.node.outputs[0].shape,
        after=activation.producer(),
    )
