"""Splits the weights of a layer whose result is split."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.graph.derived import part_name, parts
from s2mlp_deploy.graph.editing import Editor, drop_unused_initializers, move, remove
from s2mlp_deploy.graph.operators import array_of, only_reader

_LEAST_CHANNELS = 64
"""Of each part: narrower products use a processor's registers badly."""


class SplitWeights(ir.passes.InPlacePass):
    """Makes a product that is only split along its channels one product for each part, so that nothing is copied apart.

    S2-MLPv2's expansion makes three branches, which runtimes copy out of the whole.

    Preconditions: MatMul with or without a bias behind it, or a Conv of one group; constant float32 weights; nothing
    but the Split reads the result; equal parts of at least 64 channels.
    Postcondition: no such Split is left. Each part is computed by nodes named after the layer, with constants named as
    parts of its own (:mod:`s2mlp_deploy.graph.derived`). No number changes.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Reports whether something was split."""
        editor, made = Editor(model.graph), dict[tuple[ir.Value, int], list[ir.Value]]()
        found = [node for node in list(model.graph) if node.op_type == "Split" and _rewrite(editor, node, made)]
        if found:
            drop_unused_initializers(model.graph)
        return ir.passes.PassResult(model, modified=bool(found))


def _rewrite(editor: Editor, split: ir.Node, made: dict[tuple[ir.Value, int], list[ir.Value]]) -> bool:
    whole = split.inputs[0]
    last = whole.producer() if whole is not None else None
    if whole is None or last is None or only_reader(whole) is not split or whole.shape is None:
        return False
    product, bias = _product(last)
    weight = product.inputs[1] if product is not None else None
    weights = array_of(weight)
    if product is None or weight is None or weights is None or weights.dtype != np.float32:
        return False
    axis = split.attributes["axis"].as_int() % len(whole.shape) if "axis" in split.attributes else 0
    convolves, count = product.op_type == "Conv", len(split.outputs)
    if axis != (1 if convolves else len(whole.shape) - 1) or (weights.ndim < 3 if convolves else weights.ndim != 2):
        return False
    channels = weights.shape[0 if convolves else 1]
    widths = {output.shape[axis] if output.shape is not None else None for output in split.outputs}
    if widths != {channels // count} or channels % count or channels // count < _LEAST_CHANNELS:
        return False
    biases = array_of(bias)
    if bias is not None and (biases is None or biases.shape != (channels,)):
        return False
    for value, array in ((weight, weights), (bias, biases)):
        if value is not None and array is not None and (value, count) not in made:
            cut = enumerate(parts(array, count))
            made[value, count] = [editor.constant(own, part_name(str(value.name), i, count)) for i, own in cut]
    own_biases = [None] * count if bias is None else made[bias, count]
    for output, part, own in zip(split.outputs, made[weight, count], own_biases, strict=True):
        move(output, _part(editor, product, last, part, own, output))
    remove(editor.graph, dict.fromkeys((split, last, product)))
    return True


def _product(last: ir.Node) -> tuple[ir.Node | None, ir.Value | None]:
    """The MatMul or Conv that ends in a node, and its bias."""
    if last.op_type == "Conv":
        group = last.attributes.get("group")
        alone = group is None or group.as_int() == 1
        return (last, last.inputs[2] if len(last.inputs) > 2 else None) if alone else (None, None)
    if last.op_type == "MatMul":
        return last, None
    for value, other in (tuple(last.inputs), tuple(reversed(last.inputs))) if last.op_type == "Add" else ():
        node = value.producer() if value is not None else None
        if node is not None and node.op_type == "MatMul" and only_reader(node.outputs[0]) is last:
            return node, other
    return None, None


def _part(
    editor: Editor, product: ir.Node, last: ir.Node, weight: ir.Value, bias: ir.Value | None, output: ir.Value
) -> ir.Value:
    convolves = product.op_type == "Conv"
    result = editor.node(
        product.op_type,
        [product.inputs[0], weight, *([bias] if convolves and bias is not None else [])],
        {name: attribute.value for name, attribute in product.attributes.items()},
        name=str(product.name),
        dtype=output.dtype,
        shape=output.shape,
        before=product,
    )
    if convolves or bias is None:
        return result
    return editor.node(
        "Add", [result, bias], name=str(last.name), dtype=output.dtype, shape=output.shape, before=product
    )
