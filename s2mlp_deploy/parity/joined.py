"""Layers whose products a file computes in parts, with one result again, as their modules have it."""

from __future__ import annotations

import onnx_ir as ir

from s2mlp_deploy.graph.derived import part_of
from s2mlp_deploy.graph.editing import move
from s2mlp_deploy.graph.operators import MATRIX_OPS, array_of, only_reader
from s2mlp_deploy.parity.exits import scope_of


def with_whole_results(model: ir.Model) -> ir.Model:
    """Joins the parts of each layer's result, so that the layer is found in the file under its own name.

    Which part is which, the names of the weights say (:mod:`s2mlp_deploy.graph.derived`), whose numbers are proven
    elsewhere. Numbers are only moved.

    Args:
        model: Stays as it is.

    Returns:
        A copy in which everything that read a part reads the same part of the whole; the model where there is nothing
        to join.
    """
    if not _layers(model.graph):
        return model
    model = model.clone()
    for index, nodes in enumerate(_layers(model.graph).values()):
        _join(model.graph, nodes, f"{scope_of(nodes[0])}/parts{index}")
    model.graph.sort()
    return model


def _layers(graph: ir.Graph) -> dict[tuple[str, str], list[ir.Node]]:
    """The products that are all parts of one, in their order, by module and weights."""
    found: dict[tuple[str, str], dict[int, ir.Node]] = {}
    counts: dict[tuple[str, str], int] = {}
    for node in graph:
        part = part_of(_name_of_weights(node)) if node.op_type in MATRIX_OPS else None
        if part is not None:
            layer = scope_of(node), part[0]
            found.setdefault(layer, {})[part[1]] = node
            counts[layer] = part[2]
    return {
        layer: [nodes[index] for index in range(counts[layer])]
        for layer, nodes in found.items()
        if set(nodes) == set(range(counts[layer]))
    }


def _name_of_weights(node: ir.Node) -> str:
    """The name of a product's constant, above what reads it as floats; empty where it has none."""
    value = node.inputs[1]
    while value is not None and (producer := value.producer()) is not None:
        if producer.op_type not in ("Cast", "DequantizeLinear"):
            return ""
        value = producer.inputs[0]
    return str(value.name) if array_of(value) is not None and value is not None else ""


def _result(node: ir.Node, *, viewed: bool) -> ir.Value:
    """What a product gives, with the bias that is added behind it; as its layer shows it, or as it is computed."""
    value = node.outputs[0]
    while (reader := only_reader(value)) is not None and scope_of(reader) == scope_of(node):
        adds = reader.op_type == "Add" and any(array_of(operand) is not None for operand in reader.inputs)
        if not adds and reader.op_type not in ("Cast", *(("Reshape",) if viewed else ())):
            break
        value = reader.outputs[0]
    return value


def _join(graph: ir.Graph, nodes: list[ir.Node], name: str) -> None:
    parts = [_result(node, viewed=True) for node in nodes]
    # Each part may be shown in a shape of its own.
    if len({tuple(map(str, part.shape or ())) for part in parts}) > 1:
        parts = [_result(node, viewed=False) for node in nodes]
    axis = 1 if nodes[0].op_type == "Conv" else -1
    whole = ir.Value(name=f"{name}.joined", type=parts[0].type, shape=_joined_shape(parts, axis))
    pieces = [ir.Value(name=f"{name}.{i}", type=part.type, shape=part.shape) for i, part in enumerate(parts)]
    for part, piece in zip(parts, pieces, strict=True):
        returned = part.is_graph_output()
        move(part, piece)
        if returned:
            part.name = f"{piece.name}.part"
    join = ir.Node("", "Concat", parts, [ir.AttrInt64("axis", axis)], outputs=[whole], name=f"{name}/Concat")
    attributes = [ir.AttrInt64("axis", axis), ir.AttrInt64("num_outputs", len(parts))]
    divide = ir.Node("", "Split", [whole], attributes, outputs=pieces, name=f"{name}/Split")
    graph.extend([join, divide])


def _joined_shape(parts: list[ir.Value], axis: int) -> ir.Shape | None:
    if any(part.shape is None for part in parts):
        return None
    shapes = [list(part.shape or ()) for part in parts]
    widths = [shape[axis] for shape in shapes]
    shape = shapes[0]
    shape[axis] = sum(width for width in widths if isinstance(width, int))
    return ir.Shape(shape)
