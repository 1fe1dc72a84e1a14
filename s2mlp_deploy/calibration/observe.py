"""One float32 run over the calibration data: a histogram of what will be quantized, the magnitude of everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from s2mlp_deploy.calibration.histogram import Histogram
from s2mlp_deploy.engines.of_graph import open_graph
from s2mlp_deploy.errors import QuantizationError
from s2mlp_deploy.graph.editing import FLOATS, PREPROCESSING, Editor
from s2mlp_deploy.graph.operators import array_of, is_movement
from s2mlp_deploy.graph.subnormals import count_subnormals

_BOUNDED = frozenset({"Softmax", "Sigmoid", "Tanh", "Erf"})
"""Operators whose results are finite for infinite inputs too."""


@dataclass(frozen=True)
class Statistics:
    """What the calibration data did to a graph, so far.

    Attributes:
        histograms: Of the values that may be quantized, by name.
        magnitudes: The largest finite magnitude of every float value, by name.
        subnormal: Of the values that may be quantized, those that held subnormal numbers: how many, by name.
        samples: How many samples were seen.
        skipped: How many could not be used; known when all were seen.
    """

    histograms: dict[str, Histogram] = field(default_factory=dict)
    magnitudes: dict[str, float] = field(default_factory=dict)
    subnormal: dict[str, int] = field(default_factory=dict)
    samples: int = 0
    skipped: int = 0


class Observer:
    """Runs a graph and keeps statistics of its values.

    Args:
        model: A float32 graph.
        values: Whose histograms are wanted.
        threads: Of ONNX Runtime; 0 lets it choose.
    """

    def __init__(self, model: ir.Model, values: Sequence[ir.Value], *, threads: int = 0) -> None:
        self._model = model
        self._wanted = [str(value.name) for value in values]
        self._peaks: dict[str, str] = {}
        self._results = [str(value.name) for value in model.graph.outputs]
        self._may_be_infinite = _infinite_by_design(model.graph)
        self._engine = open_graph(self._with_outputs(), threads=threads)

    def update(self, statistics: Statistics, feeds: Mapping[str, NDArray[Any]]) -> Statistics:
        """Statistics with one batch more; those given stay as they are, so an interrupt never leaves half a batch.

        Raises:
            QuantizationError: A value is NaN, or infinite where no infinite constant (an attention mask, say) makes
                it so; the first such tensor in graph order is named.
        """
        outputs = self._engine.run(feeds)
        peaks = {name: float(outputs[output]) for name, output in self._peaks.items()}
        finite = all(np.isfinite(peak) for peak in peaks.values())
        if not finite or not all(self._is_sound(name, outputs[name]) for name in (*self._results, *self._wanted)):
            raise self._not_finite(feeds)
        histograms, subnormal = dict(statistics.histograms), dict(statistics.subnormal)
        for name in self._wanted:
            histogram = histograms[name].copy() if name in histograms else Histogram()
            array = outputs[name]
            values = array[np.isfinite(array)] if name in self._may_be_infinite else array
            histogram.update(values)
            histograms[name] = histogram
            peaks[name] = float(np.abs(values).max(initial=0.0))
            if count := count_subnormals(values):
                subnormal[name] = subnormal.get(name, 0) + count
        magnitudes = dict(statistics.magnitudes)
        for name, peak in peaks.items():
            magnitudes[name] = max(magnitudes.get(name, 0.0), peak)
        samples = statistics.samples + len(next(iter(feeds.values())))
        return replace(statistics, histograms=histograms, magnitudes=magnitudes, subnormal=subnormal, samples=samples)

    def _is_sound(self, name: str, array: NDArray[Any]) -> bool:
        if array.dtype.kind != "f":  # Texts and whole numbers are neither NaN nor infinite.
            return True
        return not np.isnan(array).any() if name in self._may_be_infinite else bool(np.isfinite(array).all())

    def _with_outputs(self) -> ir.Model:
        """The graph with the wanted values, and the largest magnitude of every other one, as outputs."""
        model = self._model.clone()
        graph = model.graph
        editor = Editor(graph)
        wanted = set(self._wanted)
        present = {str(value.name) for value in graph.outputs}
        for value in (*graph.inputs, *(value for node in list(graph) for value in node.outputs)):
            name, producer = str(value.name), value.producer()
            if value.dtype != ir.DataType.FLOAT or name.startswith(PREPROCESSING):
                continue
            if name in wanted:
                if name not in present:
                    graph.outputs.append(value)
            elif producer is None or not is_movement(producer):
                # Two reductions over one tensor are cheaper than one over its magnitudes, which would be stored.
                source = _finite_of(editor, value) if name in self._may_be_infinite else value
                high = _reduced(editor, name, source, "ReduceMax")
                low = _reduced(editor, name, source, "ReduceMin")
                negated = editor.node(
                    "Neg", [low], name=f"{name}/Neg", dtype=value.dtype, shape=ir.Shape([]), after=low.producer()
                )
                peak = editor.node(
                    "Max",
                    [high, negated],
                    name=f"{name}/Max",
                    dtype=value.dtype,
                    shape=ir.Shape([]),
                    after=_later(graph, high, negated),
                )
                graph.outputs.append(peak)
                self._peaks[name] = str(peak.name)
        return model

    def _not_finite(self, feeds: Mapping[str, NDArray[Any]]) -> QuantizationError:
        """Finds the first value that is not finite by looking at all of them, on this batch."""
        for name, array in feeds.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                return QuantizationError(
                    f"the calibration data holds NaN or infinite numbers in the input {name}", fix="clean the data"
                )
        model = self._model.clone()
        graph = model.graph
        present = {value.name for value in graph.outputs}
        graph.outputs.extend(
            value
            for node in graph
            for value in node.outputs
            if value.dtype == ir.DataType.FLOAT and value.name not in present
        )
        free = all(v.shape is not None and len(v.shape) > 0 and not isinstance(v.shape[0], int) for v in graph.inputs)
        one = {name: array[:1] for name, array in feeds.items()}
        # Everything at once takes memory, so the first sample is tried alone.
        for inputs in (one, feeds) if free else (feeds,):
            outputs = open_graph(model).run(inputs)
            for node in self._model.graph:
                for value in node.outputs:
                    result = outputs.get(str(value.name))
                    if result is not None and not self._is_sound(str(value.name), result):
                        return QuantizationError(
                            f"{value.name} is NaN or infinite on the calibration data, the first tensor that is",
                            where=str(node.name),
                            fix="check the weights of this layer and the preprocessing",
                        )
        return QuantizationError("values are NaN or infinite on the calibration data", fix="check weights and data")


def _infinite_by_design(graph: ir.Graph) -> frozenset[str]:
    """Names of the values that an infinite constant reaches: the -inf of an attention mask, up to its Softmax."""
    found: set[str] = set()
    for node in graph:
        if node.op_type in _BOUNDED:
            continue
        inputs = [value for value in node.inputs if value is not None and value.dtype in FLOATS]
        given = [array_of(value) for value in inputs]
        given += [a.as_tensor().numpy() for a in node.attributes.values() if a.type == ir.AttributeType.TENSOR]
        if any(str(value.name) in found for value in inputs) or any(
            array is not None and array.dtype.kind == "f" and np.isinf(array).any() for array in given
        ):
            found.update(str(value.name) for value in node.outputs)
    return frozenset(found)


def _finite_of(editor: Editor, value: ir.Value) -> ir.Value:
    """The value with 0 in place of what is infinite; NaN stays."""
    infinite = editor.node(
        "IsInf",
        [value],
        name=f"{value.name}/IsInf",
        dtype=ir.DataType.BOOL,
        shape=value.shape,
        after=value.producer(),
    )
    zero = editor.constant(np.zeros((), np.float32), f"{value.name}.zero")
    return editor.node(
        "Where",
        [infinite, zero, value],
        name=f"{value.name}/Where",
        dtype=value.dtype,
        shape=value.shape,
        after=infinite.producer(),
    )


def _reduced(editor: Editor, name: str, value: ir.Value, op_type: str) -> ir.Value:
    return editor.node(
        op_type,
        [value],
        {"keepdims": 0},
        name=f"{name}/{op_type}",
        dtype=value.dtype,
        shape=ir.Shape([]),
        after=value.producer(),
    )


def _later(graph: ir.Graph, *values: ir.Value) -> ir.Node:
    producers = {value.producer() for value in values}
    return next(node for node in reversed(graph) if node in producers)
