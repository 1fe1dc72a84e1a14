"""The free axes of a program: which may be free, at which sizes, and what that is called."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule, Node

from s2mlp_deploy import torch_internals as internals
from s2mlp_deploy.artifact import SizeLimit
from s2mlp_deploy.errors import ExportError
from s2mlp_deploy.graph.axes import axis_name, named_axes
from s2mlp_deploy.text import join_names

_NO_BOUND = 2**31
_NEAR, _FAR = 64, (2, 3, 16, 64)
"""Guards are asked about all sizes up to _NEAR (or that many steps), and about these multiples of the example's."""


def dynamic_shapes(inputs: tuple[Any, ...], dynamic: Sequence[str], automatic: Sequence[str]) -> Any:
    """What ``torch.export`` is told of the axes.

    Args:
        inputs: The example.
        dynamic: Axes that are to be free.
        automatic: Those of them for which torch may find a rule, such as a multiple; others must take every size.
    """
    # One Dim per name: inputs share it.
    dims = {name: Dim.AUTO if name in automatic else Dim(name, min=1) for name in dynamic}

    def axes(value: Any) -> dict[int, Any] | None:
        if not isinstance(value, Tensor):
            return None
        return {axis: dims[name] for name, axis in named_axes(value.dim()).items() if name in dims}

    return internals.tree_map(axes, inputs)


def check_named(inputs: tuple[Any, ...], dynamic: Sequence[str]) -> None:
    """Refuses axes that no input has: nothing would become free.

    Raises:
        ExportError: One of them is none of the batch.
    """
    ranks = sorted({value.dim() for value in internals.tree_leaves(inputs) if isinstance(value, Tensor)})
    there = {name for rank in ranks for name in named_axes(rank)}
    # Nobody asks for the batch, which is free where it can be.
    if missing := [name for name in dynamic if name not in there and name != "batch"]:
        raise ExportError(
            f"no input has a {join_names(missing, last='or')}: an input [N, C, H, W] has height and width, "
            f"[N, C, D, H, W] depth, height and width, and there are only inputs of {join_names(ranks)} axes",
            where="--dynamic",
            fix=f"leave {join_names(missing)} out of --dynamic",
        )


def check_program(program: ExportedProgram, dynamic: Sequence[str]) -> None:
    """Refuses axes that a program which was exported already fixes in every input.

    Raises:
        ExportError: There are some.
    """
    free = {name for _, _, name, size in _named_sizes(program) if not str(size).isdigit()}
    if missing := [name for name in dynamic if name not in free and name != "batch"]:
        raise ExportError(
            f"the program fixes its {join_names(missing)}, and its sizes cannot be made free afterwards",
            where="--dynamic",
            fix=f"leave {join_names(missing)} out of --dynamic, or name the axes in torch.export's dynamic_shapes",
        )


def with_batches(inputs: tuple[Any, ...], times: int) -> tuple[Any, ...]:
    """The example repeated along the batch.

    torch.export takes a size of 1 for a constant, and so it does with a number of clips that is 1 in the example.
    """
    tensors = [value for value in internals.tree_leaves(inputs) if isinstance(value, Tensor) and value.dim()]
    batch = tensors[0].shape[0] if tensors else 0

    def widen(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dim() and value.shape[0] == batch:
            return torch.cat([value] * times)
        return value

    result: tuple[Any, ...] = internals.tree_map(widen, inputs)
    return result


def cannot_be_free(axes: str, reason: str) -> ExportError:
    """The refusal of an axis that was to be free."""
    return ExportError(
        f"{axes} cannot be free: {reason}",
        fix=f"leave {axes} away from the dynamic axes, or make the module independent of it",
    )


@dataclass(frozen=True)
class FreeAxis:
    """A free axis of an input that has a name.

    Attributes:
        input: The input's node.
        axis: Its position.
        name: ``batch``, ``depth``, ``height`` or ``width``.
        size: Its formula: a symbol, or ``8*s0`` for whole clips of eight.
        symbol: The only symbol in that; None where there are several, or where it is no linear formula.
        example: The symbol's value in the example.
        min: The symbol's smallest value.
        max: Its largest; None where there is none.
    """

    input: str
    axis: int
    name: str
    size: sympy.Expr
    symbol: sympy.Symbol | None
    example: int = 0
    min: int = 1
    max: int | None = None

    def at(self, number: int) -> int:
        """The size where the symbol has another value."""
        return int(self.size.subs(self.symbol, number))


def free_axes(program: ExportedProgram) -> list[FreeAxis]:
    """The named axes of the inputs whose sizes are free."""
    found = []
    for node, axis, name, size in _named_sizes(program):
        if str(size).isdigit():
            continue
        expression = internals.expression_of(size)
        symbols = list(expression.free_symbols)
        if len(symbols) != 1 or sympy.degree(expression, symbols[0]) != 1:
            found.append(FreeAxis(node.name, axis, name, expression, None))
            continue
        bounds = program.range_constraints.get(symbols[0])
        low = int(bounds.lower) if bounds is not None else 0
        # Beyond any tensor is torch's way to say of some formulas that there is no bound.
        bounded = bounds is not None and bounds.upper.is_Integer and bounds.upper < _NO_BOUND
        high = int(bounds.upper) if bounded and bounds is not None else None
        # torch tells 0 and 1 from all other sizes; a lower bound of 2 is that and no limit of the module's.
        low = low if low > 2 else 1
        hint = internals.hint_of(size, symbols[0])
        found.append(FreeAxis(node.name, axis, name, expression, symbols[0], hint, low, high))
    return found


def constant_sizes(program: ExportedProgram) -> dict[tuple[str, str], int]:
    """The named sizes that are no free ones, by the input's node and the axis's name.

    torch may make a constant of a free size while it replaces in-place writes: of the batch in ``for part in
    x.unbind(2): part.mul_(2)``, for example.
    """
    return {(node.name, name): int(size) for node, _, name, size in _named_sizes(program) if str(size).isdigit()}


def check_free(program: ExportedProgram, required: Sequence[str]) -> None:
    """Refuses a program with a constant where a size was to be free.

    Raises:
        ExportError: Says which and what it must be.
    """
    for (node, name), size in constant_sizes(program).items():
        if name in required:
            raise cannot_be_free(name, f"{node} must have {size}")


def size_limits(
    program: ExportedProgram, inputs: tuple[Any, ...], required: Sequence[str]
) -> dict[FreeAxis, SizeLimit]:
    """What the free sizes of a program may be.

    torch says one part of that as ranges, another in formulas, and keeps the rest as guards within the program, which
    are asked here about many sizes.

    Args:
        program: As ``torch.export`` made it.
        inputs: The example that it was made with.
        required: Axes that were to be free. Others may be constant, or limited in ways that are no range of multiples;
            those are left out.

    Raises:
        ExportError: A required axis is not free, or only at sizes that are no range of multiples.
    """
    check_free(program, required)
    limits = {}
    refuses = Guards(program, inputs)
    for axis in free_axes(program):
        sizes, reason = _allowed(axis, refuses)
        found = _as_limit(axis, sizes)
        if found is not None:
            limits[axis] = found
        elif axis.name in required:
            raise cannot_be_free(axis.name, reason or f"that of {axis.input} is {axis.size}")
    return limits


def _allowed(axis: FreeAxis, refuses: Guards) -> tuple[dict[int, bool], str | None]:
    """Which sizes the program takes, among those asked about, and what it says against the first other."""
    if axis.symbol is None:
        return {}, None
    far = [axis.example * factor for factor in _FAR]
    numbers = {*range(1, _NEAR + 1), *far, axis.example + 1, 2 * axis.example + 1, axis.min}
    sizes: dict[int, bool] = {}
    reason: str | None = None
    for number in sorted(numbers):
        if axis.max is not None and number > axis.max:
            continue
        failed = f"at least {axis.at(axis.min)} is needed" if number < axis.min else refuses(axis.symbol, number)
        sizes[axis.at(number)] = failed is None
        if failed is not None and number > 1:
            reason = reason or f"at {axis.at(number)}, {failed}"
    return sizes, reason


def _as_limit(axis: FreeAxis, sizes: Mapping[int, bool]) -> SizeLimit | None:
    """The rule that these sizes follow; None where it is no range of multiples."""
    high = None if axis.max is None else axis.at(axis.max)
    allowed = [size for size, holds in sizes.items() if holds]
    # Small sizes need follow no rule: torch, which takes 1 for a constant, says `h - 1 != 1` of a map of h - 1 rows.
    for index, least in enumerate(allowed[:-1]):
        if axis.symbol is not None and least > axis.at(axis.example):
            break
        multiple = math.gcd(*(size - least for size in allowed[index:]))
        rule = SizeLimit(axis.input, axis.axis, axis.name, least, high, multiple, least % multiple)
        if all(holds == rule.allows(size) for size, holds in sizes.items() if size >= least):
            return rule
    return None


class Guards:
    """Asks a program what it has against another value of a symbol, in words; runs no operator."""

    def __init__(self, program: ExportedProgram, inputs: tuple[Any, ...]) -> None:
        module = program.module()
        assert isinstance(module, GraphModule)
        leaves = internals.tree_leaves(inputs)
        values = user_values(program)
        self._module = module
        self._pairs = list(zip(leaves, values, strict=True)) if len(values) == len(leaves) else None

    def __call__(self, symbol: sympy.Symbol, number: int) -> str | None:
        """The first guard that fails; None where all hold, or where the inputs cannot be told apart."""
        if self._pairs is None:
            return None
        shapes = resized_shapes(self._pairs, {symbol: number})
        leaves = [
            leaf if shape is None else torch.empty(shape, dtype=leaf.dtype, device="meta")
            for (leaf, _), shape in zip(self._pairs, shapes, strict=True)
        ]
        return internals.failed_guard(self._module, leaves)


def resized_shapes(
    pairs: Sequence[tuple[Any, Any]], numbers: Mapping[sympy.Symbol, int]
) -> list[tuple[int, ...] | None]:
    """The shapes of inputs where symbols have other values than in the example; None for what is no tensor.

    Args:
        pairs: Each leaf of the inputs with the symbolic value of its placeholder.
        numbers: Values of some symbols; others have the example's.
    """
    shapes: list[tuple[int, ...] | None] = []
    for leaf, value in pairs:
        if not isinstance(leaf, Tensor) or not isinstance(value, Tensor):
            shapes.append(None)
            continue
        shape = list(leaf.shape)
        sizes: Any = value.shape  # Declared to hold int only.
        for axis, size in enumerate(sizes):
            if isinstance(size, torch.SymInt):
                formula = internals.expression_of(size)
                known = {s: numbers.get(s, internals.hint_of(size, s)) for s in formula.free_symbols}
                shape[axis] = int(formula.subs(known))
        shapes.append(tuple(shape))
    return shapes


def _is_user_input(program: ExportedProgram, node: Node) -> bool:
    return node.op == "placeholder" and node.name in program.graph_signature.user_inputs


def user_values(program: ExportedProgram) -> list[Any]:
    """The symbolic values of the program's inputs, in order, constants among them."""
    signature = program.graph_signature
    lifted = (
        signature.inputs_to_parameters,
        signature.inputs_to_buffers,
        signature.inputs_to_lifted_tensor_constants,
    )
    nodes = (node for node in program.graph.nodes if node.op == "placeholder")
    return [node.meta.get("val") for node in nodes if not any(node.name in names for names in lifted)]


def _named_sizes(program: ExportedProgram) -> Iterator[tuple[Node, int, str, Any]]:
    """The sizes of the named axes of each tensor input: the input, the axis, its name and size."""
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if _is_user_input(program, node) and isinstance(value, Tensor):
            for name, axis in named_axes(value.dim()).items():
                yield node, axis, name, value.shape[axis]


def input_shapes(program: ExportedProgram) -> list[tuple[int | str, ...]]:
    """Shape of every tensor input in order, dynamic sizes as text: the number, or ``batch``, ``8*batch``."""
    shapes = [
        tuple(node.meta["val"].shape)
        for node in program.graph.nodes
        if _is_user_input(program, node) and isinstance(node.meta.get("val"), Tensor)
    ]
    names: dict[Any, str] = {}
    for shape in shapes:
        for axis, size in enumerate(shape):
            symbols = list(internals.expression_of(size).free_symbols) if isinstance(size, torch.SymInt) else []
            if len(symbols) == 1:
                names.setdefault(symbols[0], axis_name(axis, len(shape)))
    return [tuple(_in_words(size, names) for size in shape) for shape in shapes]


def _in_words(size: Any, names: Mapping[Any, str]) -> int | str:
    """A size for people, in the names of torch's symbols."""
    if not isinstance(size, torch.SymInt):
        return int(size)
    expression = internals.expression_of(size)
    known = {symbol: sympy.Symbol(names.get(symbol, str(symbol))) for symbol in expression.free_symbols}
    text = str(expression.subs(known))
    return int(text) if text.isdigit() else text
