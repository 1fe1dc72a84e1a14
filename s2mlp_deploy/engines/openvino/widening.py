"""What OpenVINO makes of a product per channel in front of a FakeQuantize on a CPU: mended, or else refused."""

from __future__ import annotations

from typing import Any

import numpy as np

_HALF, _FLOAT = "f16", "f32"


def in_float32(openvino: Any, model: Any) -> Any:
    """Makes a graph that quantizes values in float16 one in float32; other graphs stay what they are.

    OpenVINO computes such a graph in float32 on a CPU anyway, but with a Convert in front of every FakeQuantize. Where
    its integer kernels are off, it then fuses a product or sum per channel of a tensor of two axes wrongly: an SQNR of
    -3 to 7 dB beside 55 with three axes, and 300 in float32 (2026.4). LayerNormalization has such a product.

    Args:
        openvino: The package.
        model: As OpenVINO read it; changed in place.

    Returns:
        The graph, whose inputs and outputs have the types that they had.

    Raises:
        RuntimeError: OpenVINO finds types that do not fit.
    """
    nodes = model.get_ordered_ops()
    if not any(node.get_type_name() == "FakeQuantize" for node in nodes):
        return model
    inputs, outputs = ([_is_half(port) for port in ports] for ports in (model.inputs, model.outputs))
    for node in nodes:
        kind = node.get_type_name()
        if kind == "Parameter" and _is_half(node.output(0)):
            node.set_element_type(openvino.Type.f32)
        elif kind == "Constant" and _is_half(node.output(0)):
            constant = openvino.opset13.constant(node.data.astype(np.float32), name=node.get_friendly_name())
            node.output(0).replace(constant.output(0))
        else:
            for name, value in node.get_attributes().items():
                if name in ("destination_type", "output_type") and value == _HALF:
                    node.set_attribute(name, _FLOAT)
    model.validate_nodes_and_infer_types()
    given = openvino.preprocess.PrePostProcessor(model)
    for index, half in enumerate(inputs):
        if half:
            given.input(index).tensor().set_element_type(openvino.Type.f16)
    for index, half in enumerate(outputs):
        if half:
            given.output(index).tensor().set_element_type(openvino.Type.f16)
    return given.build() if any(inputs) or any(outputs) else model


def miscomputed(model: Any) -> tuple[str, ...]:
    """Products that OpenVINO computes as others, by name.

    With a factor below 0 per channel, of a tensor of two axes, straight in front of a FakeQuantize: an SQNR of 1 to
    9 dB beside 300 where all factors are above 0, or a sum stands between (2026.4, in float32).

    Args:
        model: In float32.
    """
    found = []
    for node in model.get_ops():
        if node.get_type_name() != "FakeQuantize":
            continue
        product = node.input_value(0).get_node()
        while product.get_type_name() == "Convert":
            product = product.input_value(0).get_node()
        shape = product.get_output_partial_shape(0)
        if product.get_type_name() != "Multiply" or shape.rank.is_dynamic or len(shape) != 2:
            continue
        factors = [value.get_node() for value in product.input_values()]
        if any(item.get_type_name() == "Constant" and item.data.size > 1 and (item.data < 0).any() for item in factors):
            found.append(product.get_friendly_name())
    return tuple(found)


def _is_half(port: Any) -> bool:
    return bool(port.get_element_type().to_string() == _HALF)
