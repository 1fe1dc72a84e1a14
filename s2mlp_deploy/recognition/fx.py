"""A program of ``torch.export`` as recognition reads it."""

from __future__ import annotations

import logging
import math
import operator
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from s2mlp_deploy.recognition import aten
from s2mlp_deploy.recognition.aten import packet
from s2mlp_deploy.recognition.aten_cost import cost_of
from s2mlp_deploy.recognition.cost import VIEW, Cost
from s2mlp_deploy.recognition.dependence import size_dependence
from s2mlp_deploy.recognition.graph import (
    INDEX,
    MAX_SIZE,
    UNWRITTEN,
    DeformableConv,
    FreeSize,
    SizeDependence,
    UnknownValueError,
)
from s2mlp_deploy.torch_internals import expression_of, hint_of, schema_of

LOG = logging.getLogger(__name__)

_MAX_CONSTANT = 1 << 24
"""Constants above this many elements are weights, not index tables; they are not evaluated."""
_ENDLESS = 1 << 62
_DEFORMABLE = "torchvision::deform_conv2d"
"""torchvision need not be installed: its operator is known by name and by the order of its arguments."""


class FxGraph:
    """A functional program (no operator writes into its arguments) in the words of :mod:`.graph`."""

    def __init__(self, program: ExportedProgram) -> None:
        self.nodes: Sequence[Node] = list(program.graph.nodes)
        self._constants = _constants(program)
        self._symbols = {str(symbol): symbol for symbol in free_symbols(program)}
        self.free_sizes: Sequence[FreeSize] = [_free_size(program, symbol) for symbol in self._symbols.values()]
        self._limits = {name: _limit(program, symbol) for name, symbol in self._symbols.items()}
        self._hints = {size.name: size.example for size in self.free_sizes}
        self._example = self.at({})
        self._variable = self._reached()

    def at(self, sizes: Mapping[str, int]) -> SizedFxGraph:
        """The program at these values of its symbols."""
        values = {self._symbols[name]: value for name, value in {**self._hints, **sizes}.items()}
        return SizedFxGraph(values, self._constants)

    def size_dependence(self, members: Sequence[Node]) -> SizeDependence:
        """See :class:`~s2mlp_deploy.recognition.graph.Graph`."""
        inside = set(members)
        carried = [source for node in members for source in self.carried(node) if source not in inside]
        tables = dict.fromkeys(table for node in members for table in _unmoved(node))
        free = {size.name: size for size in self.free_sizes}
        return size_dependence(members, carried, list(tables), self._constants, free, self._limits)

    def name(self, node: Node) -> str:
        """As the graph prints it."""
        return node.name

    def users(self, node: Node) -> Sequence[Node]:
        """All that read it, the graph's output among them."""
        return list(node.users)

    def dtype(self, node: Node) -> Hashable | None:
        """Of a tensor, or of all tensors of a list."""
        return _dtype(node)

    def is_movement(self, node: Node) -> bool:
        """See :class:`~s2mlp_deploy.recognition.graph.Graph`."""
        if node.op != "call_function" or _is_integer(node):
            return False
        dtype = _dtype(node)
        if dtype is not None and dtype.is_complex:
            return False  # ONNX has no complex tensors: the exporter writes them as pairs, whose axes are others.
        op = packet(node)
        if op is operator.getitem:
            parent = node.args[0]
            return isinstance(parent, Node) and packet(parent) in aten.MOVES and self.is_movement(parent)
        if op in aten.FILLS:
            return aten.is_plain_zero(self._example.fill(node))
        if op in aten.ALLOCATIONS:
            return True
        if op in aten.MOVES:
            only_moves = aten.pads_with_elements(node) and node.target is not aten.aten.view.dtype
        elif op in aten.INDEXED:
            only_moves = aten.moves_by_known_rule(node) and self._knows_indices(node)
        elif op in aten.CONVOLUTIONS:
            only_moves = self._has_one_hot_kernel(node)
        else:
            return False
        # A copy into another type rounds, and a view as another type reads the bits anew.
        return only_moves and all(_dtype(source) == _dtype(node) for source in self.carried(node))

    def is_variable(self, node: Node) -> bool:
        """See :class:`~s2mlp_deploy.recognition.graph.Graph`."""
        return node in self._variable

    def carried(self, node: Node) -> Sequence[Node]:
        """See :class:`~s2mlp_deploy.recognition.graph.Graph`."""
        op = packet(node)
        if op in aten.FILLS or op in aten.ALLOCATIONS:
            return []
        if op is aten.aten.copy:  # What it overwrites matters by its shape alone.
            return [source for source in node.args[1:2] if isinstance(source, Node)]
        skipped = _unmoved(node)
        return [source for source in node.all_input_nodes if source not in skipped and not _is_integer(source)]

    def viewed(self, node: Node) -> Node | None:
        """See :class:`~s2mlp_deploy.recognition.graph.Graph`."""
        if packet(node) not in aten.VIEWS:
            return None
        source = node.args[0]
        if node.target is operator.getitem and isinstance(source, Node):
            source = source.args[0] if packet(source) in aten.SPLITS else None
        return source if isinstance(source, Node) else None

    def idiom(self, node: Node) -> str | None:
        """See :class:`~s2mlp_deploy.recognition.graph.Graph`."""
        return aten.IDIOM_OF.get(packet(node))

    def deformable(self, node: Node) -> DeformableConv[Node] | None:
        """Torchvision's operator."""
        if not is_deformable(node):
            return None
        # input, weight, offset, mask, bias, strides, paddings, dilations, groups, offset groups, whether it has a mask
        source, _, offset, mask, _, _, _, rows, columns, _, _, _, groups, use_mask = node.args
        assert isinstance(source, Node)
        assert isinstance(offset, Node)
        masked = mask if use_mask and isinstance(mask, Node) else None
        return DeformableConv(source, offset, masked, (_whole(rows), _whole(columns)), _whole(groups))

    def _knows_indices(self, node: Node) -> bool:
        for position in aten.INDEXED[packet(node)]:
            indices = node.args[position]
            for index in indices if isinstance(indices, (list, tuple)) else [indices]:
                if isinstance(index, Node) and not self._is_known(index):
                    return False
        return True

    def _is_known(self, node: Node) -> bool:
        try:
            return isinstance(self._example.constant(node), Tensor)
        except UnknownValueError:
            return False

    def _has_one_hot_kernel(self, node: Node) -> bool:
        weight, bias = node.args[1], aten.argument(node, 2, "bias")
        if not isinstance(weight, Node) or not self._is_known(weight):
            return False
        return self._is_zero(bias) and aten.has_one_hot_kernel(node, self._example.constant(weight))

    def _is_zero(self, bias: Any) -> bool:
        if not isinstance(bias, Node):
            return bias is None
        return self._is_known(bias) and not bool(self._example.constant(bias).any())

    def _reached(self) -> set[Node]:
        """The nodes that an input or chance reaches."""
        reached: set[Node] = set()
        for node in self.nodes:
            if node.op == "placeholder":
                fixed = node in self._constants
            elif packet(node) in aten.FILLS or packet(node) in aten.ALLOCATIONS or _is_integer(node):
                fixed = True
            else:
                fixed = _is_deterministic(node) and reached.isdisjoint(node.all_input_nodes)
            if not fixed:
                reached.add(node)
        return reached


class SizedFxGraph:
    """A program at one choice of its free sizes."""

    def __init__(self, values: Mapping[sympy.Symbol, int], constants: Mapping[Node, Tensor]) -> None:
        self._values = {symbol: sympy.Integer(value) for symbol, value in values.items()}
        self._known: dict[Any, int] = {}
        self._constants = constants
        self._cache: dict[Node, Any] = {}

    def shape(self, node: Node) -> tuple[int, ...]:
        """See :class:`~s2mlp_deploy.recognition.graph.SizedGraph`."""
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            raise UnknownValueError(f"{node.name} is no tensor")
        return tuple(self._integer(size) for size in value.shape)

    def constant(self, node: Node) -> Any:
        """See :class:`~s2mlp_deploy.recognition.graph.SizedGraph`. An integer for a size."""
        if node not in self._cache:
            self._cache[node] = self._evaluate(node)
        value = self._cache[node]
        if isinstance(value, UnknownValueError):
            raise value
        return value

    def run(self, node: Node, tensor: Callable[[Node], Any]) -> Any:
        """See :class:`~s2mlp_deploy.recognition.graph.SizedGraph`."""
        op = packet(node)
        if op in aten.FILLS or op in aten.ALLOCATIONS:
            if op in aten.FILLS and not aten.is_plain_zero(self.fill(node)):
                raise UnknownValueError(f"{node.name} holds no zeros at this size")
            value = UNWRITTEN if op in aten.ALLOCATIONS else 0
            return torch.full((), value, dtype=INDEX).expand(self.shape(node))
        if op is operator.getitem:
            parent, index = node.args
            assert isinstance(parent, Node)
            return tensor(parent)[index]
        if op is aten.aten.copy:
            source = node.args[1]
            assert isinstance(source, Node)
            return tensor(source).expand(self.shape(node))
        unmoved = _unmoved(node)

        def value_of(argument: Node) -> Any:
            known = _is_integer(argument) or argument in unmoved
            return self.constant(argument) if known else tensor(argument)

        args, kwargs = torch.fx.map_arg(node.args, value_of), torch.fx.map_arg(node.kwargs, value_of)
        return aten.run_movement(node, args, dict(kwargs))

    def cost(self, node: Node) -> Cost:
        """See :class:`~s2mlp_deploy.recognition.graph.SizedGraph`: what torch's exporter makes of it."""
        if (
            not isinstance(node.meta.get("val"), Tensor)
            or packet(node) in aten.FILLS
            or packet(node) in aten.ALLOCATIONS
        ):
            return VIEW
        sources = [n for n in node.all_input_nodes if isinstance(n.meta.get("val"), Tensor)]
        return cost_of(node, [self.shape(source) for source in sources], self.shape(node))

    def fill(self, node: Node) -> Any:
        """The scalar that a fill holds (a number, or a tensor of one); None where it is not known."""
        value = aten.fill_argument(node)
        try:
            return self.constant(value) if isinstance(value, Node) else value
        except UnknownValueError:
            return None

    def _integer(self, size: Any) -> int:
        if isinstance(size, int):
            return size
        expression = expression_of(size)
        if expression not in self._known:
            try:
                value = sympy.sympify(expression).xreplace(self._values)
            except ZeroDivisionError as error:  # A batch that is no whole clip, for example.
                raise UnknownValueError(f"the program has no such size: {expression}") from error
            if not value.is_Integer:
                raise UnknownValueError(f"the program has no such size: {expression}")
            self._known[expression] = int(value)
        return self._known[expression]

    def _evaluate(self, node: Node) -> Any:
        if node in self._constants:
            return self._constants[node]
        try:
            if _is_integer(node):
                return self._integer(node.meta["val"])
            if node.op != "call_function" or not _is_deterministic(node):
                return UnknownValueError(f"{node.name} depends on the input")
            if packet(node) in aten.FILLS:
                return self._filled(node)
            # What is expanded repeats itself in no memory, however many images there are.
            large = isinstance(node.meta.get("val"), Tensor) and math.prod(self.shape(node)) > _MAX_CONSTANT
            if large and packet(node) is not torch.ops.aten.expand:
                return UnknownValueError(f"{node.name} is too large for an index")
            args, kwargs = torch.fx.map_arg(node.args, self.constant), torch.fx.map_arg(node.kwargs, self.constant)
            target = node.target
            assert callable(target)
            return target(*args, **kwargs)
        except UnknownValueError as unknown:
            return unknown
        except Exception as error:
            # Another kernel than the network's own may run here (a constant on another device, a custom operator).
            LOG.debug("%s: not known before the network runs", node.name, exc_info=True)
            return UnknownValueError(f"{node.name} fails on its constants: {error}")

    def _filled(self, node: Node) -> Any:
        """One number in memory, however large: ``zeros_like`` of a large tensor is no reason to miss a shift."""
        value = self.fill(node)
        if value is None:
            return UnknownValueError(f"{node.name} depends on the input")
        scalar = value if isinstance(value, Tensor) else torch.full((), value)
        return scalar.to(_dtype(node)).expand(self.shape(node))


def is_deformable(node: Node) -> bool:
    """Whether a node is torchvision's deformable convolution."""
    return node.op == "call_function" and getattr(schema_of(node.target), "name", None) == _DEFORMABLE


def convolution_arguments(node: Node) -> tuple[Any, ...]:
    """The arguments of ``aten.conv2d`` after its input that compute a deformable convolution with offsets of 0."""
    _, weight, _, _, bias, *numbers = node.args
    return (weight, bias, [*numbers[0:2]], [*numbers[2:4]], [*numbers[4:6]], numbers[6])


def _unmoved(node: Node) -> set[Node]:
    """Indices, masks and kernels: what decides where elements go."""
    found: set[Node] = set()
    if is_deformable(node):
        torch.fx.map_arg(node.args[2:4], found.add)
    for position in aten.INDEXED.get(packet(node), (1, 2) if packet(node) in aten.CONVOLUTIONS else ()):
        if position < len(node.args):
            torch.fx.map_arg(node.args[position], found.add)
    return found


def _is_integer(node: Node) -> bool:
    return isinstance(node.meta.get("val"), torch.SymInt)


def _whole(value: Any) -> int:
    assert isinstance(value, int)
    return value


def _dtype(node: Node) -> torch.dtype | None:
    value = node.meta.get("val")
    if isinstance(value, (list, tuple)) and value:
        value = value[0]
    return getattr(value, "dtype", None)


def _is_deterministic(node: Node) -> bool:
    """Whether a node's value is decided by its arguments."""
    tags = getattr(node.target, "tags", ())
    return torch.Tag.nondeterministic_seeded not in tags


def _inputs(program: ExportedProgram) -> list[Tensor]:
    values = [node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"]
    return [value for value in values if isinstance(value, Tensor)]


def free_symbols(program: ExportedProgram) -> dict[sympy.Symbol, int]:
    """Every free size of a program's inputs with its value in the example."""
    symbols = {}
    for tensor in _inputs(program):
        sizes: list[Any] = list(tensor.shape)
        for size in sizes:
            if isinstance(size, torch.SymInt):
                for symbol in sorted(expression_of(size).free_symbols, key=str):
                    symbols[symbol] = hint_of(size, symbol)
    return symbols


def _free_size(program: ExportedProgram, symbol: sympy.Symbol) -> FreeSize:
    limits = program.range_constraints.get(symbol)
    # torch writes "no limit" as an infinity of its own, which compares but does not convert.
    low = int(limits.lower) if limits is not None and limits.lower >= 1 else 1
    return FreeSize(str(symbol), free_symbols(program)[symbol], low, min(_limit(program, symbol), MAX_SIZE))


def _limit(program: ExportedProgram, symbol: sympy.Symbol) -> int:
    """The largest value that a free size may have."""
    limits = program.range_constraints.get(symbol)
    return int(limits.upper) if limits is not None and limits.upper < _ENDLESS else _ENDLESS


def _constants(program: ExportedProgram) -> dict[Node, Tensor]:
    signature = program.graph_signature
    lifted = signature.inputs_to_lifted_tensor_constants
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers, **lifted}
    state: Mapping[str, Any] = {**program.constants, **program.state_dict}
    return {
        node: state[names[node.name]].detach()
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in names and isinstance(state.get(names[node.name]), Tensor)
    }
