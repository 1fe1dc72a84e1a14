"""Makes constants of sizes that are known where others of the same tensor are free."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common


class FoldKnownSizes(ir.passes.InPlacePass):
    """A Gather of the shape of [batch, 16, 16, 64] that takes the last three sizes is a constant.

    onnxscript's folding takes shapes that are known as a whole, and no inference looks into the list of sizes that a
    constant of a free batch is made of (``new_zeros(len(x), 16, 16, 64)``). What is computed from such a
    size, an index table for example, is folded by it afterwards.

    Precondition: shapes are inferred.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Reports whether it found any."""
        noted = [node for node in model.graph if _note_known_sizes(node)]
        if noted:
            common.ShapeInferencePass()(model)
        found = [(node, sizes) for node in model.graph if (sizes := _known_sizes(node)) is not None]
        for node, sizes in found:
            (old,) = node.outputs
            new = ir.Value(name=old.name, type=old.type, shape=ir.Shape(sizes.shape), const_value=ir.tensor(sizes))
            old.name = None
            model.graph.register_initializer(new)
            old.replace_all_uses_with(new)
            model.graph.remove(node, safe=True)
        return ir.passes.PassResult(model, modified=bool(found))


def _note_known_sizes(node: ir.Node) -> bool:
    """Whether a constant, or an Expand of one element, got sizes that are known beside others that are not."""
    if node.domain or node.op_type not in ("ConstantOfShape", "Expand"):
        return False
    (result,) = node.outputs
    if node.op_type == "Expand" and (
        node.inputs[0] is None or node.inputs[0].shape is None or any(size != 1 for size in node.inputs[0].shape)
    ):
        return False
    sizes = _listed(node.inputs[-1])
    if sizes is None or not any(sizes):
        return False
    if node.op_type == "Expand" and node.inputs[0] is not None and node.inputs[0].shape is not None:
        # A list that is shorter than the tensor's own speaks of its last axes (ONNX, Expand), which are all of size 1.
        sizes = [*[1] * (len(node.inputs[0].shape) - len(sizes)), *sizes]
    if result.shape is not None and len(result.shape) != len(sizes):
        return False
    if result.shape is not None:
        known = [old if size is None else size for size, old in zip(sizes, result.shape, strict=True)]
        if known == list(result.shape):
            return False
        result.shape = ir.Shape(known)
    else:
        result.shape = ir.Shape(sizes)
    return True


def _listed(value: ir.Value | None) -> list[int | None] | None:
    """A list of sizes, None for those that are not known; None where its length is not known."""
    if value is None:
        return None
    if value.const_value is not None:
        return [int(size) for size in value.const_value.numpy().flat]
    producer = value.producer()
    if producer is not None and producer.op_type == "Concat" and not producer.domain:
        parts = [_listed(part) for part in producer.inputs]
        return None if any(part is None for part in parts) else [size for part in parts for size in part or ()]
    length = value.shape[0] if value.shape is not None and len(value.shape) == 1 else None
    return [None] * length if isinstance(length, int) else None


def _known_sizes(node: ir.Node) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]] | None:
    """The sizes that a Gather takes from a Shape, where all are known and none leaves the graph."""
    if node.op_type != "Gather" or node.domain or node.outputs[0].is_graph_output():
        return None
    shape, chosen = node.inputs[:2]
    producer = shape.producer() if shape is not None else None
    if producer is None or producer.op_type != "Shape" or chosen is None or chosen.const_value is None:
        return None
    source = producer.inputs[0]
    if source is None or source.shape is None:
        return None
    attributes = producer.attributes
    start, end = (attributes[name].as_int() if name in attributes else None for name in ("start", "end"))
    sizes = list(source.shape)[start:end]
    positions = chosen.const_value.numpy()
    taken = [sizes[int(position)] for position in positions.flat if -len(sizes) <= int(position) < len(sizes)]
    if len(taken) < positions.size or not all(isinstance(size, int) for size in taken):
        return None
    return np.array(taken, np.int64).reshape(positions.shape)
