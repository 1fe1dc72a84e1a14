"""Pure data movement in a captured graph, followed cell by cell.

A region of a graph that only moves values can be run on *cell numbers* instead of values: give every cell of the
tensors that enter the region a number, run the region's own operators on those numbers, and every tensor in it says
where each of its cells came from. 0 stands for a constant zero, so padding with zeros and ``zeros_like`` need no
special case, and a convolution with one-hot kernels carries numbers as well as it carries values.

Numbers are float64, exact up to 2**53, because padding and convolution do not exist for integers on the CPU.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

LOG = logging.getLogger(__name__)
aten = torch.ops.aten

# Operators that move cells and compute nothing. Looked at by overload packet, so that every overload counts.
_MOVES = {
    aten.alias,
    aten.cat,
    aten.chunk,
    aten.clone,
    aten.constant_pad_nd,
    aten.contiguous,
    aten.copy,
    aten.detach,
    aten.expand,
    aten.flatten,
    aten.flip,
    aten.lift_fresh_copy,
    aten.movedim,
    aten.narrow,
    aten.pad,
    aten.permute,
    aten.reflection_pad1d,
    aten.reflection_pad2d,
    aten.reflection_pad3d,
    aten.repeat,
    aten.replication_pad1d,
    aten.replication_pad2d,
    aten.replication_pad3d,
    aten.reshape,
    aten.roll,
    aten.select,
    aten.select_scatter,
    aten.slice,
    aten.slice_scatter,
    aten.split,
    aten.split_with_sizes,
    aten.squeeze,
    aten.stack,
    aten.t,
    aten.transpose,
    aten.unbind,
    aten.unflatten,
    aten.unsafe_split,
    aten.unsqueeze,
    aten.view,
    aten._reshape_copy,
    aten._unsafe_view,
}
# Of those, the ones that show a part of one tensor, or all of it in another shape.
_VIEWS = {
    aten.alias,
    aten.detach,
    aten.flatten,
    aten.movedim,
    aten.narrow,
    aten.permute,
    aten.reshape,
    aten.select,
    aten.slice,
    aten.squeeze,
    aten.t,
    aten.transpose,
    aten.unflatten,
    aten.unsqueeze,
    aten.view,
    aten._unsafe_view,
    operator.getitem,
}
_SPLITS = {aten.chunk, aten.split, aten.split_with_sizes, aten.unbind, aten.unsafe_split}
# Operators that move cells by an index, which must be the same for every input: argument positions of indices.
_INDEXED = {
    aten.index: (1,),
    aten._unsafe_index: (1,),
    aten.index_select: (2,),
    aten.gather: (2,),
    aten.index_put: (1,),
    aten.where: (0,),
}
# Operators whose result holds only a constant, whatever their tensor argument holds.
_FILLS = {
    aten.fill,
    aten.full,
    aten.full_like,
    aten.new_full,
    aten.new_ones,
    aten.new_zeros,
    aten.ones,
    aten.ones_like,
    aten.zero,
    aten.zeros,
    aten.zeros_like,
}
# Allocated but not written: every cell must be overwritten before it is read. NaN marks those that are not.
_EMPTY = {aten.empty_like, aten.new_empty, aten.empty, aten.new_empty_strided, aten.empty_permuted}
_CONVOLUTIONS = {aten.conv1d, aten.conv2d, aten.conv3d, aten.convolution}
_MAX_CONSTANT = 1 << 24
"""Constants above this many elements are weights, not index tables; they are not evaluated."""


class UnknownValueError(Exception):
    """The value of a node cannot be known before the network runs."""


@dataclass
class Sizes:
    """Concrete shapes and integers of a graph for one choice of input sizes.

    Attributes:
        shapes: Of every tensor node (a tuple of shapes for nodes with several results).
        integers: Value of every node that is a symbolic integer.
        constants: Tensors of parameters, buffers and lifted constants by placeholder or attribute node.
    """

    shapes: Mapping[Node, Any]
    integers: Mapping[Node, int]
    constants: Mapping[Node, Tensor]
    _cache: dict[Node, Any] = field(default_factory=dict)

    def constant(self, node: Node) -> Any:
        """The value of a node that no input reaches.

        Raises:
            UnknownValueError: An input reaches it, or it is too large to be an index.
        """
        if node in self._cache:
            value = self._cache[node]
        else:
            value = self._cache[node] = self._evaluate(node)
        if isinstance(value, UnknownValueError):
            raise value
        return value

    def _evaluate(self, node: Node) -> Any:
        if node in self.integers:
            return self.integers[node]
        if node in self.constants:
            return self.constants[node]
        if node.op != "call_function" or not is_deterministic(node):
            return UnknownValueError(f"{node.name} depends on the input")
        shape = self.shapes.get(node)
        if isinstance(shape, tuple) and all(isinstance(size, int) for size in shape) and _numel(shape) > _MAX_CONSTANT:
            return UnknownValueError(f"{node.name} is too large for an index")
        try:
            if packet(node) in _FILLS:
                return self._fill(node)
            args, kwargs = self.arguments(node, self.constant)
            return call(node)(*args, **kwargs)
        except UnknownValueError as unknown:
            return unknown
        except Exception as error:
            # Another kernel than the network's own may run here (a constant on another device, a custom operator).
            LOG.debug("%s: not known before the network runs", node.name, exc_info=True)
            return UnknownValueError(f"{node.name} fails on its constants: {error}")

    def _fill(self, node: Node) -> Tensor:
        """``zeros_like`` and its kin look only at the shape of a tensor, so that may depend on the input."""
        shape = self.shapes[node]
        value: Any = 0.0
        if packet(node) in (aten.new_ones, aten.ones, aten.ones_like):
            value = 1.0
        elif packet(node) in (aten.fill, aten.full, aten.full_like):
            value = node.args[1]
        elif packet(node) is aten.new_full:
            value = node.args[2]
        if isinstance(value, Node):
            value = self.constant(value)
        return torch.full(shape, value, dtype=dtype(node))

    def arguments(self, node: Node, tensor: Callable[[Node], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """A node's arguments with integers known and tensors as ``tensor`` gives them."""

        def value(argument: Node) -> Any:
            return self.integers[argument] if argument in self.integers else tensor(argument)

        return torch.fx.map_arg(node.args, value), torch.fx.map_arg(node.kwargs, value)


def dtype(node: Node) -> torch.dtype | None:
    """The type of a tensor node's values; None where it is no tensor."""
    return getattr(node.meta.get("val"), "dtype", None)


def packet(node: Node) -> Any:
    """The operator of a node without its overload."""
    target = node.target
    return getattr(target, "overloadpacket", target)


def call(node: Node) -> Callable[..., Any]:
    """What a call_function node calls."""
    target = node.target
    assert callable(target)
    return target


def is_deterministic(node: Node) -> bool:
    """Whether a node's value is decided by its arguments."""
    tags = getattr(node.target, "tags", ())
    return torch.Tag.nondeterministic_seeded not in tags


def _numel(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def is_movement(node: Node, sizes: Sizes) -> bool:
    """Whether a node only moves cells, with everything that decides where to known in advance."""
    if node.op != "call_function" or node in sizes.integers:
        return False
    if node.target is operator.getitem:
        parent = node.args[0]
        return isinstance(parent, Node) and isinstance(sizes.shapes.get(parent), list) and is_movement(parent, sizes)
    op = packet(node)
    if op in _MOVES:
        return _pads_with_zero(node)
    if op in _FILLS:
        try:
            return float(sizes.constant(node).flatten()[:1].sum()) == 0.0
        except UnknownValueError:
            return False
    if op in _EMPTY:
        return True
    if op in _INDEXED:
        return _constant_indices(node, sizes, _INDEXED[op])
    if op in _CONVOLUTIONS:
        return _one_hot_kernel(node, sizes) is not None
    return False


def _pads_with_zero(node: Node) -> bool:
    """Padding with a constant moves cells only where the constant is 0."""
    op = packet(node)
    if op is aten.constant_pad_nd:
        value = node.args[2] if len(node.args) > 2 else node.kwargs.get("value", 0)
        return bool(value == 0)
    if op is aten.pad:
        mode = node.args[2] if len(node.args) > 2 else node.kwargs.get("mode", "constant")
        value = node.args[3] if len(node.args) > 3 else node.kwargs.get("value")
        return mode != "constant" or value in (None, 0, 0.0)
    return True


def _constant_indices(node: Node, sizes: Sizes, positions: tuple[int, ...]) -> bool:
    if packet(node) is aten.where and not all(isinstance(arg, Node) or arg == 0 for arg in node.args[1:]):
        return False
    if packet(node) is aten.index_put and len(node.args) > 3 and node.args[3]:
        return False  # accumulate adds
    for position in positions:
        indices = node.args[position]
        for index in indices if isinstance(indices, (list, tuple)) else [indices]:
            if not isinstance(index, Node):
                continue
            try:
                if not isinstance(sizes.constant(index), Tensor):
                    return False
            except UnknownValueError:
                return False
    return True


def _one_hot_kernel(node: Node, sizes: Sizes) -> Tensor | None:
    """The kernel of a convolution that gives every output cell exactly one input cell; None for any other."""
    bias = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
    transposed = packet(node) is aten.convolution and node.args[6]
    weight = node.args[1]
    if transposed or not isinstance(weight, Node):
        return None
    try:
        kernel = sizes.constant(weight)
        if bias is not None and (not isinstance(bias, Node) or bool(sizes.constant(bias).any())):
            return None
    except UnknownValueError:
        return None
    # Exactly 1 and exactly 0: a learned kernel that is nearly one-hot is another operation.
    if not bool(((kernel == 0) | (kernel == 1)).all()) or not bool((kernel.flatten(1).sum(1) == 1).all()):
        return None
    return kernel if isinstance(kernel, Tensor) else None


def viewed(node: Node) -> Node | None:
    """The tensor that a node only shows a part or another shape of; None for any other node."""
    if packet(node) not in _VIEWS:
        return None
    source = node.args[0]
    if node.target is operator.getitem and isinstance(source, Node):
        source = source.args[0] if packet(source) in _SPLITS else None
    return source if isinstance(source, Node) else None


def varying(graph: Graph, sizes: Sizes) -> set[Node]:
    """The nodes that an input or chance reaches; all others are constants, which the exporter folds."""
    reached: set[Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder":
            fixed = node in sizes.constants
        elif packet(node) in _FILLS or packet(node) in _EMPTY or node in sizes.integers:
            fixed = True
        else:
            fixed = is_deterministic(node) and reached.isdisjoint(node.all_input_nodes)
        if not fixed:
            reached.add(node)
    return reached


def tensor_inputs(node: Node, sizes: Sizes) -> list[Node]:
    """The tensors whose cells a movement node may carry on: not its indices, masks or kernels."""
    op = packet(node)
    if op in _FILLS or op in _EMPTY:
        return []
    skipped: set[Node] = set()
    positions = _INDEXED.get(op, (1, 2) if op in _CONVOLUTIONS else ())
    for position in positions:
        if position < len(node.args):
            torch.fx.map_arg(node.args[position], skipped.add)
    return [n for n in node.all_input_nodes if n not in skipped and n not in sizes.integers]


def move(node: Node, sizes: Sizes, numbers: Callable[[Node], Tensor]) -> Any:
    """Runs a movement node on cell numbers.

    Args:
        node: A node for which :func:`is_movement` holds.
        sizes: Of the graph.
        numbers: The cell numbers of the tensors it reads.
    """
    op = packet(node)
    if op in _FILLS:
        return torch.zeros(sizes.shapes[node], dtype=torch.float64)
    if op in _EMPTY:
        return torch.full(sizes.shapes[node], float("nan"), dtype=torch.float64)
    carried = set(tensor_inputs(node, sizes))

    def tensor(argument: Node) -> Any:
        return numbers(argument) if argument in carried else sizes.constant(argument)

    args, kwargs = sizes.arguments(node, tensor)
    if op in _CONVOLUTIONS:
        args = (args[0], args[1].to(torch.float64), None, *args[3:])
    kwargs = {
        name: value for name, value in kwargs.items() if name not in ("dtype", "device", "layout", "memory_format")
    }
    if op in (aten.contiguous, aten.clone):
        return args[0].contiguous()
    if op is aten.copy:
        return args[1].expand(args[0].shape)
    if op in (aten.view, aten._unsafe_view):
        # The numbers' memory layout is not the network's, so a view of them may need a copy.
        return args[0].reshape(args[1])
    return call(node)(*args, **kwargs)
