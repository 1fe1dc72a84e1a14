"""Operators of ONNX that only move elements, and how they run on index maps.

What only shows a tensor in another shape is run here, on views; all others are run by a runtime, as they stand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from s2mlp_deploy.recognition import aten
from s2mlp_deploy.recognition import cost as costs
from s2mlp_deploy.recognition.cost import Cost
from s2mlp_deploy.recognition.elsewhere import in_short
from s2mlp_deploy.recognition.graph import INDEX, UnknownValueError
from s2mlp_deploy.shift.origin import CONVOLUTION

Run = Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]
"""Computes a graph's outputs from its inputs, by name."""
Runtime = Callable[[ir.Model], Run]
"""Loads a graph."""

RESHAPES = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
VIEWS = RESHAPES | {"Slice", "Split", "Transpose"}
SCATTERS = frozenset({"ScatterElements", "ScatterND"})
GATHERS = frozenset({"Gather", "GatherElements", "GatherND"})
CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
MOVES = VIEWS | SCATTERS | GATHERS | {"Concat", "DepthToSpace", "Expand", "Pad", "SpaceToDepth", "Tile", "Where"}

_CARRIED = {"Where": (1, 2), "ScatterElements": (0, 2), "ScatterND": (0, 2)}
_IDIOMS = {
    **dict.fromkeys(SCATTERS, "slice assignment"),
    **dict.fromkeys(GATHERS, "index table"),
    "Where": "mask",
    "Pad": "pad",
    "Concat": "concatenation",
    "Slice": "slices",
    "Split": "slices",
    **dict.fromkeys(CONVOLUTIONS, CONVOLUTION),
}
_NO_INTEGERS = frozenset({"DepthToSpace", "SpaceToDepth"})
"""ONNX Runtime has them for floats: doubles hold every element number."""

INDEXED = SCATTERS | GATHERS


def carried_positions(node: ir.Node) -> tuple[int, ...]:
    """Positions of the inputs whose elements a movement passes on; the others are indices, axes, masks and kernels."""
    return tuple(range(len(node.inputs))) if node.op_type == "Concat" else _CARRIED.get(node.op_type, (0,))


def idiom_of(node: ir.Node) -> str | None:
    """Which of :data:`~s2mlp_deploy.recognition.graph.IDIOMS` an operator belongs to; None for views."""
    if node.op_type == "Slice":
        steps = constant_of(node.inputs[4]) if len(node.inputs) > 4 else None
        return "flip" if steps is not None and bool((steps < 0).any()) else "slices"
    return _IDIOMS.get(node.op_type)


def constant_of(value: ir.Value | None) -> NDArray[Any] | None:
    """The array of an initializer; None for what is computed."""
    return None if value is None or value.const_value is None else value.const_value.numpy()


def is_plain_zero(array: NDArray[Any]) -> bool:
    """Whether an array holds zeros alone, none of them -0.0, whose sign an index map does not keep."""
    if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
        return False
    return not array.any() and (array.dtype.kind != "f" or not np.signbit(array).any())


def only_moves(node: ir.Node) -> bool:
    """Whether a node moves elements and does nothing else, given that its indices are known."""
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type in CONVOLUTIONS:
        return has_one_hot_kernel(node)
    if node.op_type in SCATTERS:
        # With a reduction it computes.
        reduction = node.attributes.get("reduction")
        return reduction is None or reduction.as_string() == "none"
    if node.op_type == "Pad":
        mode, value = node.attributes.get("mode"), node.inputs[2] if len(node.inputs) > 2 else None
        if mode is not None and mode.as_string() != "constant":
            return True
        filler = constant_of(value)
        return value is None or (filler is not None and is_plain_zero(filler))
    return node.op_type in MOVES


def has_one_hot_kernel(node: ir.Node, kernel: NDArray[Any] | None = None) -> bool:
    """Whether a convolution or a transposed one, without a bias, gives every output element one input element.

    Args:
        node: The convolution.
        kernel: Where it is known to be other than that of the graph.
    """
    kernel = kernel if kernel is not None else constant_of(node.inputs[1])
    bias = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
    if kernel is None or (len(node.inputs) > 2 and node.inputs[2] is not None and (bias is None or bias.any())):
        return False
    if kernel.dtype.kind != "f":
        return False
    weights = torch.from_numpy(np.array(kernel))
    if node.op_type == "ConvTranspose":
        steps, wider = ([int(n) for n in _ints(node, name)] for name in ("strides", "output_padding"))
        pads = _ints(node, "pads")
        symmetric = pads[: len(pads) // 2] == pads[len(pads) // 2 :]
        if any(step != 1 for step in steps) or any(wider) or "output_shape" in node.attributes or not symmetric:
            return False
        group = node.attributes.get("group")
        weights = aten.turned(weights, group.as_int() if group is not None else 1)
    return aten.is_one_hot(weights)


def _ints(node: ir.Node, name: str) -> list[int]:
    attribute = node.attributes.get(name)
    return list(attribute.as_ints()) if attribute is not None else []


def cost_of(
    node: ir.Node, sources: Sequence[Sequence[int]], out: Sequence[int], indices: Mapping[int, Sequence[int]]
) -> Cost:
    """What a movement costs in ONNX Runtime.

    Args:
        node: One for which :func:`only_moves` holds.
        sources: The sizes of what it carries.
        out: Of the result.
        indices: Of the indices of an operator of :data:`INDEXED`, by position.
    """
    kind, source = node.op_type, sources[0]
    if kind in RESHAPES:
        return costs.VIEW
    if kind in ("Transpose", "DepthToSpace", "SpaceToDepth"):
        return costs.turning(out)
    if kind in ("Slice", "Split", "Pad"):
        return costs.cutting(source, out)
    if kind == "Concat":
        return costs.joining(out, _axis(node, "axis", len(out)), len(sources))
    if kind == "Gather":
        block = math.prod(source[_axis(node, "axis", len(source)) + 1 :])
        return costs.looking_up((math.prod(out) // max(block, 1), block), 0)
    if kind in INDEXED:
        count = math.prod(indices[1][: -1 if kind.endswith("ND") else None])
        cost = costs.indexing(kind, out, count)
        return cost + Cost(bytes=costs.ITEM * math.prod(sources[1])) if kind in SCATTERS else cost
    if kind == "Where":
        return costs.choosing(out)
    if kind == "Conv":
        kernel = constant_of(node.inputs[1])
        return costs.copying(out) + Cost(products=math.prod(out) * (kernel[0].size if kernel is not None else 1))
    return costs.copying(out)


class Movements:
    """Runs movement nodes on index maps.

    A runtime loads each kind of node once: what it reads, indices too, are inputs.

    Args:
        runtime: Loads graphs.
        opset: Of the nodes.
    """

    def __init__(self, runtime: Runtime, opset: int) -> None:
        self._runtime = runtime
        self._opset = opset
        self._loaded: dict[tuple[object, ...], Run] = {}

    def run(
        self, node: ir.Node, inputs: Sequence[Tensor | None], index: int, shape: tuple[int, ...], start: int = 0
    ) -> Tensor:
        """An output of a node.

        Args:
            node: One for which :func:`only_moves` holds.
            inputs: Index maps where it carries elements, constants elsewhere, None for what it is not given.
            index: Which output.
            shape: Of that output.
            start: Of a Split, where the output begins.

        Raises:
            UnknownValueError: It cannot be run so.
            RuntimeError: It does not work on these.
        """
        x = inputs[0]
        assert x is not None
        kind = node.op_type
        if kind in RESHAPES:
            return x.reshape(shape)
        if kind == "Transpose":
            order = node.attributes.get("perm")
            return x.permute(*(order.as_ints() if order is not None else reversed(range(x.dim()))))
        if kind == "Expand":
            return x.expand(shape)
        if kind == "Split":
            axis = _axis(node, "axis", x.dim())
            return x.narrow(axis, start, shape[axis])
        if kind == "Concat":
            return torch.cat([part for part in inputs if part is not None], _axis(node, "axis", x.dim()))
        if kind == "Slice" and (window := _window(x, inputs[1:])) is not None:
            return x[window]
        if kind in CONVOLUTIONS:
            return convolve(node, x, inputs[1])
        return self._by_runtime(node, inputs, index)

    def _by_runtime(self, node: ir.Node, inputs: Sequence[Tensor | None], index: int) -> Tensor:
        carried, wide = carried_positions(node), node.op_type in _NO_INTEGERS
        arrays = [
            None if tensor is None else (tensor.double() if wide and i in carried else tensor).contiguous().numpy()
            for i, tensor in enumerate(inputs)
        ]
        key = (
            node.op_type,
            tuple(sorted((name, str(attribute.value)) for name, attribute in node.attributes.items())),
            tuple(None if array is None else (array.dtype.str, array.ndim) for array in arrays),
            len(node.outputs),
        )
        if key not in self._loaded:
            self._loaded[key] = self._load(node, arrays)
        # A filler of a Pad is a zero of the elements' type; a zero among element numbers is one too.
        feeds = {f"in{i}": array for i, array in enumerate(arrays) if array is not None}
        result = self._loaded[key](feeds)[f"out{index}"]
        return torch.from_numpy(np.ascontiguousarray(result)).to(INDEX)

    def _load(self, node: ir.Node, arrays: Sequence[NDArray[Any] | None]) -> Run:
        inputs = [
            None
            if array is None
            else ir.Value(
                name=f"in{i}",
                type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
                shape=ir.Shape([None] * array.ndim),
            )
            for i, array in enumerate(arrays)
        ]
        moved = arrays[carried_positions(node)[0]]
        assert moved is not None
        dtype = ir.TensorType(ir.DataType.from_numpy(moved.dtype))
        outputs = [ir.Value(name=f"out{i}", type=dtype) for i in range(len(node.outputs))]
        copy = ir.Node("", node.op_type, inputs, list(node.attributes.values()), outputs=outputs, name="node")
        given = [value for value in inputs if value is not None]
        graph = ir.Graph(given, outputs, nodes=[copy], opset_imports={"": self._opset}, name="movement")
        try:
            return self._runtime(ir.Model(graph, ir_version=10))
        except Exception as error:  # A runtime has errors of its own.
            raise UnknownValueError(f"{node.op_type} cannot be run on element numbers: {in_short(error)}") from error


def _axis(node: ir.Node, name: str, rank: int) -> int:
    attribute = node.attributes.get(name)
    axis = attribute.as_int() if attribute is not None else 0
    return axis + rank if axis < 0 else axis


def _window(x: Tensor, given: Sequence[Tensor | None]) -> tuple[slice, ...] | None:
    """A Slice as Python writes it; None where a step is negative, which torch does not take."""
    starts, ends, axes, steps = ([*given, None, None])[:4]
    assert starts is not None
    assert ends is not None
    chosen = axes.tolist() if axes is not None else list(range(len(starts)))
    strides = steps.tolist() if steps is not None else [1] * len(chosen)
    if min(strides, default=1) < 1:
        return None
    window = [slice(None)] * x.dim()
    for axis, start, end, step in zip(chosen, starts.tolist(), ends.tolist(), strides, strict=True):
        window[axis] = slice(start, end, step)
    return tuple(window)


def convolve(node: ir.Node, x: Tensor, kernel: Tensor | None) -> Tensor:
    """The index map of a one-hot convolution.

    Raises:
        UnknownValueError: Its padding depends on the size of its input.
    """
    assert kernel is not None
    rank = kernel.dim() - 2

    automatic = node.attributes.get("auto_pad")
    if automatic is not None and automatic.as_string() not in ("NOTSET", "VALID"):
        raise UnknownValueError("a convolution that chooses its padding by the size of its input")
    pads = _ints(node, "pads") or [0] * 2 * rank
    # Before and after each axis, the last one first.
    amounts = [pads[side * rank + axis] for axis in reversed(range(rank)) for side in (0, 1)]
    attribute = node.attributes.get("group")
    groups = attribute.as_int() if attribute is not None else 1
    dilation = _ints(node, "dilations") or [1] * rank
    if node.op_type == "ConvTranspose":
        return aten.convolve_transposed(x, kernel, stride=1, padding=pads[:rank], dilation=dilation, groups=groups)
    return aten.convolve(
        aten.pad(x, amounts, "constant"),
        kernel,
        stride=_ints(node, "strides") or [1] * rank,
        padding=0,
        dilation=dilation,
        groups=groups,
    )
