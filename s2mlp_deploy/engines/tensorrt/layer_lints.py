"""What in the layers of an engine costs time for nothing, in plain words, with the option that mends it.

A file that gives layers by name alone tells no types: only what names show is found there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import takewhile
from math import prod

from s2mlp_deploy.engines.tensorrt.layer_names import without_profile
from s2mlp_deploy.evidence.engine_layers import EngineLayer, EngineLayers, LayerFinding
from s2mlp_deploy.graph.operators import DATA_MOVEMENT_OPS

_QUANTIZED = frozenset(("int8", "fp8", "int4", "fp4"))
_NARROW = _QUANTIZED | {"fp16", "bf16"}
_QDQ = re.compile(r"(Quantize|Dequantize)Linear(_\d+)?$")
_OPERATOR = re.compile(r"([A-Za-z]+)(_\d+)*$")
# Of movement these copy; the others are mostly another view of the same bytes.
_COPYING = frozenset(("Concat", "Gather", "Pad", "Slice", "Split", "ScatterND", "ScatterElements"))
_SHIFT = "/Shift/"
_TILE = 128 * 64
"""Elements that one block of threads of a GEMM writes, about: so few keep one of a GPU's many processors busy."""

_Lint = Callable[[EngineLayers], Iterator[LayerFinding]]


def with_findings(layers: EngineLayers) -> EngineLayers:
    """Adds what costs time for nothing: what was timed first, the most time first."""
    lints = _LINTS if layers.source == "engine" else _OF_NETWORKS
    found = [finding for lint in lints for finding in lint(layers)]
    return replace(layers, findings=tuple(sorted(found, key=lambda item: -(item.ms or 0.0))))


def _reformats(engine: EngineLayers) -> Iterator[LayerFinding]:
    for dtype in sorted(_QUANTIZED):
        found = [layer for layer in engine.layers if layer.reformat and _types(layer) == {dtype}]
        if found:
            yield _finding(
                "reformats",
                f"between {dtype} layers values are only laid out anew in memory",
                found,
                "build with --builder-optimization-level 5, which tries more kernels; of a network of the zoo also "
                "export the other --layout, and measure both",
            )


def _conversions(engine: EngineLayers) -> Iterator[LayerFinding]:
    own = _own_tensors(engine)
    found = [
        layer
        for layer in engine.layers
        if layer.reformat
        and len(_types(layer)) > 1
        and _types(layer) & _NARROW
        and not own & {tensor.name for tensor in (*layer.inputs, *layer.outputs)}
    ]
    if found:
        yield _finding(
            "conversions",
            "values change their type between layers, which neighbours of one type would not need",
            found,
            "leave fewer layers out of the low precision: export --precision without --exclude and --exclude-op, or "
            "with a looser --max-drop",
        )


def _islands(engine: EngineLayers) -> Iterator[LayerFinding]:
    if not _is_narrow(engine):
        return
    found = [
        layer
        for layer in engine.layers
        if not layer.reformat and _types(layer) - {"other"} == {"fp32"} and not _moves(layer) and not _is_qdq(layer)
    ]
    if found:
        yield _finding(
            "fp32 islands",
            "layers work in fp32 inside of an engine of lower precision",
            found,
            "export --precision fp16 (or int8 upon it) and build that file: it converts all but the "
            "precision_exceptions of its manifest, which --exclude and --max-drop decide",
        )


def _unfused(engine: EngineLayers) -> Iterator[LayerFinding]:
    makers = {tensor.name: layer for layer in engine.layers for tensor in layer.outputs}
    readers: dict[str, list[EngineLayer]] = {}
    for layer in engine.layers:
        for tensor in layer.inputs:
            readers.setdefault(tensor.name, []).append(layer)
    own = _own_tensors(engine)

    def at_the_edge(layer: EngineLayer) -> bool:
        # Somebody must quantize what comes in and dequantize what goes out.
        touched = {tensor.name for tensor in (*layer.inputs, *layer.outputs)}
        near = [makers[tensor.name] for tensor in layer.inputs if tensor.name in makers]
        near += [reader for tensor in layer.outputs for reader in readers.get(tensor.name, ())]
        for item in near:
            if item.reformat:
                touched |= {tensor.name for tensor in (*item.inputs, *item.outputs)}
        return bool(own & touched)

    ends = _before_and_after_all_work(engine.layers)
    found = [
        layer
        for index, layer in enumerate(engine.layers)
        if _is_qdq(layer) and not (at_the_edge(layer) if layer.inputs or layer.outputs else index in ends)
    ]
    if found:
        yield _finding(
            "Q/DQ not fused",
            "layers only quantize or dequantize: their Q/DQ pairs went into no GEMM and no convolution",
            found,
            "export or quantize with --precision int8 and build model.int8-trt.onnx, whose pairs stand on the inputs "
            "of GEMMs and convolutions alone; --exclude leaves a layer out together with its pairs",
        )


def _tiny(engine: EngineLayers) -> Iterator[LayerFinding]:
    found = [
        layer
        for layer in engine.layers
        if layer.matrix
        and layer.outputs
        # An axis that is free tells nothing.
        and min(layer.outputs[0].shape, default=0) > 0
        and prod(layer.outputs[0].shape) <= _TILE
    ]
    # The head of a classifier always is one.
    if len(found) > 1:
        yield _finding(
            "tiny shapes",
            f"GEMMs and convolutions write at most {_TILE} elements, too few to keep a GPU busy",
            found,
            "build for larger batches (--opt-shapes NAME:8x3x224x224, --max-shapes likewise) and send them together: "
            "`bench --batch 8`, serve's batching",
        )


def _copies(engine: EngineLayers) -> Iterator[LayerFinding]:
    moving = [layer for layer in engine.layers if _moves(layer) and _operators(layer) & _COPYING]
    shifts = [layer for layer in moving if all(_SHIFT in node for node in layer.nodes)]
    others = [layer for layer in moving if layer not in shifts]
    if shifts:
        yield _finding(
            "shifts as copies",
            "layers do nothing but a shift: it was fused with no neighbour and copies its whole tensor",
            shifts,
            "export --shift-form grouped-conv, pad-slice and gather, build each, and measure: bench A.engine B.engine",
        )
    if others:
        yield _finding(
            "copies",
            "layers only move data, without a GEMM or a sum to hide it in",
            others,
            "export the ONNX file with this package, which finds the shifts in it and writes each as one of the forms: "
            "`inspect FILE.onnx` says which there are",
        )


def _wide_weights(engine: EngineLayers) -> Iterator[LayerFinding]:
    if not _is_narrow(engine):
        return
    found = [layer for layer in engine.layers if layer.weights == "fp32"]
    if found:
        yield _finding(
            "fp32 weights",
            "weights are kept in fp32 in an engine of lower precision: twice the bytes to read in every run",
            found,
            "export --precision fp16 and build that file; a layer that --exclude or --max-drop left in fp32 keeps its "
            "weights",
        )


_LINTS: Sequence[_Lint] = (_reformats, _conversions, _islands, _unfused, _tiny, _copies, _wide_weights)
# What the builder fuses, copies and reformats, a network does not tell.
_OF_NETWORKS: Sequence[_Lint] = (_islands, _tiny, _wide_weights)


def _finding(kind: str, problem: str, layers: Sequence[EngineLayer], fix: str) -> LayerFinding:
    times = [layer.ms for layer in layers if layer.ms is not None]
    names = tuple(" + ".join(layer.nodes) or layer.name for layer in layers)
    return LayerFinding(kind, problem, names, sum(times) if times else None, fix)


def _own_tensors(engine: EngineLayers) -> set[str]:
    """Inputs and outputs of the engine; of a file that does not list them what no layer writes, or none reads."""
    if engine.bindings:
        return set(engine.bindings)
    read = {tensor.name for layer in engine.layers for tensor in layer.inputs}
    return read ^ {tensor.name for layer in engine.layers for tensor in layer.outputs}


def _before_and_after_all_work(layers: Sequence[EngineLayer]) -> set[int]:
    """Which only reformat, quantize or dequantize and come before all others of their profile, or after them.

    Where layers are told by name alone, these are the ones at inputs and outputs: there is nothing else to work on yet.
    """
    profiles: dict[str, list[int]] = {}
    for index, layer in enumerate(layers):
        profiles.setdefault(layer.name.removeprefix(without_profile(layer.name)), []).append(index)
    ends: set[int] = set()
    for indices in profiles.values():
        for ordered in (indices, indices[::-1]):
            ends.update(takewhile(lambda index: layers[index].reformat or _is_qdq(layers[index]), ordered))
    return ends


def _types(layer: EngineLayer) -> set[str]:
    return {tensor.dtype for tensor in (*layer.inputs, *layer.outputs)}


def _operators(layer: EngineLayer) -> set[str]:
    return {match[1] for node in layer.nodes if (match := _OPERATOR.search(node))}


def _moves(layer: EngineLayer) -> bool:
    """Whether all nodes of a layer only move data."""
    operators = _operators(layer)
    return bool(operators) and operators <= DATA_MOVEMENT_OPS | _COPYING and not layer.matrix


def _is_qdq(layer: EngineLayer) -> bool:
    return bool(layer.nodes) and all(_QDQ.search(node) for node in layer.nodes) and not layer.matrix


def _is_narrow(engine: EngineLayers) -> bool:
    """Whether any GEMM or convolution works in a lower precision, or any layer where it names none."""
    matrix = [layer for layer in engine.layers if layer.matrix]
    return any(_types(layer) & _NARROW for layer in (matrix or engine.layers))
