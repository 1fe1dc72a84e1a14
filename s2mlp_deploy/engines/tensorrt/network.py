"""What a parsed network holds: layers, types, formats, and what GEMMs and convolutions compute in."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.evidence.build import Contents, MatrixOp

_MATRIX_LAYERS = frozenset(("MATRIX_MULTIPLY", "CONVOLUTION"))
# Layers through which the parser leads quantized values unchanged.
_PASSING = frozenset(("SHUFFLE", "SLICE", "CONCATENATION", "GATHER", "IDENTITY", "SQUEEZE", "UNSQUEEZE"))
# DataType of the library, as this package calls precisions.
_PRECISIONS = {
    "float": "fp32",
    "half": "fp16",
    "bf16": "bf16",
    "int8": "int8",
    "fp8": "fp8",
    "int4": "int4",
    "fp4": "fp4",
}


def contents_of(network: Any) -> Contents:
    """Reads a parsed network; no GPU is needed."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    producers = {layer.get_output(position).name: layer for layer in layers for position in range(layer.num_outputs)}
    types = collections.Counter(_enum(layer.type) for layer in layers)
    dtypes = collections.Counter(
        _enum(layer.get_output(position).dtype).lower() for layer in layers for position in range(layer.num_outputs)
    )
    matrix_ops = tuple(
        MatrixOp(layer.name, _op_precision(layer, producers)) for layer in layers if _enum(layer.type) in _MATRIX_LAYERS
    )
    return Contents(
        "network", len(layers), dict(types.most_common()), dict(sorted(dtypes.items())), matrix_ops=matrix_ops
    )


def tensor_infos(network: Any) -> tuple[TensorInfo, ...]:
    """The inputs of a parsed network."""
    found = []
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(
            int(size) if size >= 0 else (tensor.get_dimension_name(axis) or f"axis{axis}")
            for axis, size in enumerate(tensor.shape)
        )
        found.append(TensorInfo(tensor.name, _enum(tensor.dtype).lower(), shape))
    return tuple(found)


def _op_precision(layer: Any, producers: Mapping[str, Any]) -> str:
    """Strongly typed: a layer computes in the type of its inputs, or in what both were dequantized from."""
    inputs = [tensor for index in range(min(layer.num_inputs, 2)) if (tensor := layer.get_input(index)) is not None]
    # A convolution with constant weights has them inside: one input, whose type is the layer's.
    own = _PRECISIONS.get(_enum(inputs[0].dtype).lower(), _enum(inputs[0].dtype).lower())
    sources = [_quantized_source(tensor, producers) for tensor in inputs]
    complete = len(inputs) == 2 or _enum(layer.type) == "MATRIX_MULTIPLY"
    if complete and None not in sources and len(set(sources)) == 1:
        return str(sources[0])
    return own


def _quantized_source(tensor: Any, producers: Mapping[str, Any]) -> str | None:
    """The type that a tensor was dequantized from; None where it was not."""
    layer = producers.get(tensor.name)
    while layer is not None and _enum(layer.type) in _PASSING:
        tensor = layer.get_input(0)
        layer = producers.get(tensor.name) if tensor is not None else None
    if layer is None or _enum(layer.type) != "DEQUANTIZE":
        return None
    dtype = _enum(layer.get_input(0).dtype).lower()
    return _PRECISIONS.get(dtype, dtype)


def _enum(value: Any) -> str:
    return str(value).rpartition(".")[2]
