"""Where int8 may begin: upstream of the data movement in front of a GEMM or convolution.

A shift, a Slice or a Concat moves numbers and changes none, so quantizing before it and after it give the same
integers; before it, a quarter of the bytes move.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import onnx_ir as ir

from s2mlp_deploy.graph.operators import array_of, data_inputs, is_movement


@dataclass(frozen=True)
class Movement:
    """Nodes that only move what they are given, up to a value that is quantized anyway.

    Attributes:
        sources: What they move; to be quantized instead of the value. The value itself where nothing moves.
        nodes: In graph order.
    """

    sources: tuple[ir.Value, ...]
    nodes: tuple[ir.Node, ...]


def movement_before(activation: ir.Value, readers: Set[ir.Node]) -> Movement:
    """The data movement between an activation and what computed its numbers.

    Everyone who reads a value inside is either inside too, or one of ``readers``, or asks for its shape: another one
    would need the same value in float.

    Args:
        activation: The first input of a GEMM or convolution.
        readers: The GEMMs and convolutions that read it, all of which are quantized.
    """
    region = _upstream(activation)
    while open_ends := [node for node in region if not _closed(node, region, readers)]:
        for node in open_ends:
            del region[node]
        region = _upstream(activation, within=region)
    sources: dict[ir.Value, None] = {}
    for node in region:
        for position in data_inputs(node):
            value = node.inputs[position]
            if value is not None and value.producer() not in region:
                sources[value] = None
    if not region or activation.graph is None:
        return Movement((activation,), ())
    return Movement(tuple(sources), tuple(node for node in activation.graph if node in region))


def _upstream(activation: ir.Value, within: dict[ir.Node, None] | None = None) -> dict[ir.Node, None]:
    """Every movement from which only movements lead to the activation."""
    region: dict[ir.Node, None] = {}
    pending = [activation]
    while pending:
        node = pending.pop().producer()
        if node is None or node in region or not is_movement(node) or (within is not None and node not in within):
            continue
        region[node] = None
        for position in data_inputs(node):
            value = node.inputs[position]
            if value is not None and array_of(value) is None:
                pending.append(value)
    return region


def _closed(node: ir.Node, region: dict[ir.Node, None], readers: Set[ir.Node]) -> bool:
    return all(
        not value.is_graph_output()
        and all(
            reader in region or (reader in readers and index == 0) or reader.op_type == "Shape"
            for reader, index in value.uses()
        )
        for value in node.outputs
    )
