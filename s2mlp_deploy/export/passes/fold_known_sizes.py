"""Makes constants of sizes that are known where others of the same tensor are free."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


class FoldKnownSizes(ir.passes.InPlacePass):
    """A Gather of the shape of [batch, 16, 16, 64] that takes the last three sizes is a constant.

    onnxscript's folding takes shapes that are known as a whole. What is computed from such a size, an index table for
    example, is folded by it afterwards.

    Precondition: shapes are inferred.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Reports whether it found any."""
        found = [(node, sizes) for node in model.graph if (sizes := _known_sizes(node)) is not None]
        for node, sizes in found:
            (old,) = node.outputs
            new = ir.Value(name=old.name, type=old.type, shape=ir.Shape(sizes.shape), const_value=ir.tensor(sizes))
            old.name = None
            model.graph.register_initializer(new)
            old.replace_all_uses_with(new)
            model.graph.remove(node, safe=True)
        return ir.passes.PassResult(model, modified=bool(found))


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
