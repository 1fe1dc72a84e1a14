"""Numbers below the smallest normal one: processors compute with them in microcode, many times slower.

Only float32 and float64 count. A subnormal float16 is a normal number in float32, where processors compute, and GPUs
take it at full speed: to flush it would cost accuracy and gain nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def count_subnormals(array: NDArray[np.floating]) -> int:
    """How many numbers of a float32 or float64 array are subnormal."""
    magnitudes = np.abs(array)
    return int(np.count_nonzero((magnitudes > 0) & (magnitudes < np.finfo(array.dtype).tiny)))


def flushed(array: NDArray[np.floating]) -> NDArray[np.floating]:
    """The array with zeros in place of its subnormal numbers."""
    return np.where(np.abs(array) < np.finfo(array.dtype).tiny, array.dtype.type(0), array)


def subnormal_weights(model: ir.Model) -> dict[str, int]:
    """The initializers of a model that hold subnormal numbers, with how many, in the graph's order."""
    found = {}
    for value in _weights(model):
        assert value.const_value is not None
        if count := count_subnormals(value.const_value.numpy()):
            found[str(value.name)] = count
    return found


def flush_weights(model: ir.Model) -> dict[str, int]:
    """Puts zeros in place of subnormal weights; graphs that share the tensors keep theirs.

    Returns:
        What :func:`subnormal_weights` found before.
    """
    found = subnormal_weights(model)
    for value in _weights(model):
        if str(value.name) in found:
            assert value.const_value is not None
            value.const_value = ir.tensor(flushed(value.const_value.numpy()), name=value.name)
    return found


def _weights(model: ir.Model) -> Iterable[ir.Value]:
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values() if isinstance(graph, ir.Graph) else ():
            if value.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE) and value.const_value is not None:
                yield value


def in_words(found: dict[str, int]) -> str:
    """``12 weights are subnormal: 9 of fc1.weight, 3 of fc2.weight``."""
    total = sum(found.values())
    named = [f"{count:,} of {name}" for name, count in list(found.items())[:3]]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"{total:,} weight{'s are' if total != 1 else ' is'} subnormal: {', '.join(named)}{more}"
