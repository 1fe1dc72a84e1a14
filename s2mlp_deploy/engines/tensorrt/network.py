"""What a parsed network holds: layers, types, formats, and what GEMMs and convolutions compute in."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from math import prod
from typing import Any

from s2mlp_deploy.engines.tensorrt.layer_file import NETWORK, SOURCE
from s2mlp_deploy.evidence.build import Contents, MatrixOp
from s2mlp_deploy.files import to_json

_MATRIX_LAYERS = frozenset(("MATRIX_MULTIPLY", "CONVOLUTION"))
# Layers through which the parser leads quantized values unchanged.
_PASSING = frozenset(("SHUFFLE", "SLICE", "CONCATENATION", "GATHER", "IDENTITY", "SQUEEZE", "UNSQUEEZE"))
# Of shapes, indices and masks.
_WHOLE_NUMBERS = frozenset(("INT32", "INT64", "BOOL", "UINT8"))
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


def layers_of(network: Any) -> str:
    """The layers of a parsed network as JSON, in the form in which an inspector tells those of an engine.

    For engines that are not inspected: built without a GPU, where none loads, or stripped of their weights. Constants
    and computations of shapes are left out, which no GPU runs.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    producers = {layer.get_output(position).name: layer for layer in layers for position in range(layer.num_outputs)}
    told = [_told(layer, producers) for layer in layers if _computes(layer)]
    sides = ((network.num_inputs, network.get_input), (network.num_outputs, network.get_output))
    tensors = [{"Name": get(index).name} for count, get in sides for index in range(count)]
    document = {SOURCE: NETWORK, "Layers": told, "I/O Tensors": tensors}
    return to_json(document).decode()


def _computes(layer: Any) -> bool:
    outputs = [layer.get_output(position) for position in range(layer.num_outputs)]
    return _enum(layer.type) != "CONSTANT" and any(_enum(output.dtype) not in _WHOLE_NUMBERS for output in outputs)


def _told(layer: Any, producers: Mapping[str, Any]) -> dict[str, Any]:
    inputs = [tensor for index in range(layer.num_inputs) if (tensor := layer.get_input(index)) is not None]
    told = {
        "Name": layer.name,
        "LayerType": _enum(layer.type),
        "Inputs": [_tensor(tensor) for tensor in inputs],
        "Outputs": [_tensor(layer.get_output(position)) for position in range(layer.num_outputs)],
        "Metadata": layer.metadata,
    }
    if _enum(layer.type) in _MATRIX_LAYERS:
        stored = [found for tensor in inputs[1:] if (found := _stored(tensor, producers)) is not None]
        if stored:
            told["Weights"] = {"Type": _enum(stored[0].dtype), "Count": max(1, prod(stored[0].shape))}
    return told


def _tensor(tensor: Any) -> dict[str, Any]:
    return {"Name": tensor.name, "Dimensions": [int(size) for size in tensor.shape], "Datatype": _enum(tensor.dtype)}


def _stored(tensor: Any, producers: Mapping[str, Any]) -> Any | None:
    """The constant that weights come from, as it is stored: before it is dequantized; None where they are computed."""
    seen = 0
    while tensor is not None and (layer := producers.get(tensor.name)) is not None and seen < len(producers):
        if _enum(layer.type) == "CONSTANT":
            return tensor
        if _enum(layer.type) not in _PASSING | {"DEQUANTIZE", "QUANTIZE"}:
            return None
        tensor, seen = layer.get_input(0), seen + 1
    return None


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
