"""Where the rule by which elements move may change with a free size of a program of ``torch.export``.

A movement is compared at a few sizes. That proves its rule where sizes enter it as polynomials (``h - 1``, ``h * w``),
and nothing where the code branches on a size in arithmetic: ``1 + h // 512`` is 1 at every size that anybody tries by
chance. So every size within the movement that is no polynomial of the sizes of its inputs is computed at all values of
the free size, and the values around which it turns are compared too. An index table that is computed from a free size
(``arange(h).clamp(0, 100)``) is compared at the largest size, where all of its entries show.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import sympy
import torch
from torch import Tensor
from torch.fx import Node

from s2mlp_deploy.recognition import aten
from s2mlp_deploy.recognition.aten import packet
from s2mlp_deploy.recognition.graph import MAX_SIZE, FreeSize, SizeDependence
from s2mlp_deploy.torch_internals import SIZE_FUNCTIONS, expression_of

_FAR = 1 << 20
"""Sizes up to here must follow rules that show below MAX_SIZE."""
_ENDLESS = 1 << 62
"""Limits of slices from here on mean "to the end"."""
_MOST_RULES = 16


def size_dependence(
    members: Sequence[Node],
    carried: Iterable[Node],
    tables: Iterable[Node],
    constants: Mapping[Node, Tensor],
    free: Mapping[str, FreeSize],
    limits: Mapping[str, int],
) -> SizeDependence:
    """Where a movement has to be compared.

    Args:
        members: The nodes that move.
        carried: The tensors whose elements they move: what is known of their sizes is no rule of the movement.
        tables: Indices, masks and kernels that they read.
        constants: The values of parameters and buffers.
        free: The free sizes by name.
        limits: The largest value that each may have.
    """
    given = {part for size in _sizes(carried) for part in _irregular(size, frozenset())}
    computed = _upstream(tables)
    turns: dict[tuple[str, tuple[int, ...]], None] = {}
    parts = {part for size in _sizes([*members, *computed]) for part in _irregular(size, frozenset(given))}
    for part in sorted(parts, key=str):
        found = _turns(part, free, limits)
        if isinstance(found, str):
            return SizeDependence(problem=found)
        turns.update(dict.fromkeys(found))
    for table in tables:
        nodes = _upstream([_before_expanding(table)])
        names = sorted({str(symbol) for size in _sizes(nodes) for symbol in size.free_symbols} & set(free))
        for name in names:
            if limits[name] > MAX_SIZE and _reach(nodes, constants) >= MAX_SIZE:
                return SizeDependence(problem=f"{table.name} may change at sizes {name} above {MAX_SIZE}")
            turns[name, _around(free[name].max, free[name])] = None
    return SizeDependence(tuple(turns))


def _before_expanding(table: Node) -> Node:
    """What a table repeats along other axes: an index that is the same for every image does not depend on the batch."""
    while packet(table) is torch.ops.aten.expand and isinstance(table.args[0], Node):
        table = table.args[0]
    return table


def _turns(
    part: sympy.Expr, free: Mapping[str, FreeSize], limits: Mapping[str, int]
) -> list[tuple[str, tuple[int, ...]]] | str:
    """The values of a free size around which a part of a size turns, or why they are not known."""
    names = sorted(map(str, part.free_symbols))
    if len(names) != 1 or names[0] not in free:
        return f"where elements go depends on {part}, which joins free sizes"
    size = free[names[0]]
    values = np.arange(size.min, min(limits[size.name], _FAR) + 1, dtype=np.int64)
    try:
        results = np.broadcast_to(_evaluate(part, values), values.shape)
    except (KeyError, ZeroDivisionError):
        return f"where elements go depends on {part}, which is not known in advance"
    steps = np.diff(results)
    near = steps[: max(size.max - size.min, 0)]
    kinds, first = np.unique(near, return_index=True)
    if len(kinds) > _MOST_RULES or len(np.unique(steps)) > len(kinds):
        return f"where elements go depends on {part}, which changes at too many sizes or above {size.max}"
    changes = np.flatnonzero(np.diff(near)) + 1
    if not len(changes):
        return []
    chosen = sorted({*changes[:3].tolist(), int(changes[-1]), *(int(i) for i in first), len(near)})
    return [(size.name, _around(int(values[index]), size)) for index in chosen]


def _around(value: int, size: FreeSize) -> tuple[int, ...]:
    return tuple(v for v in (value, value + 1, value - 1) if max(size.min, 1) <= v <= size.max)


def _evaluate(part: Any, values: np.ndarray[Any, Any]) -> Any:
    """A size at many values of its only symbol.

    Raises:
        KeyError: It holds a function whose meaning is not known here.
    """
    if isinstance(part, sympy.Symbol):
        return values
    if isinstance(part, sympy.Integer):
        return np.int64(int(part))
    arguments = [_evaluate(argument, values) for argument in part.args]
    if isinstance(part, sympy.Add):
        return sum(arguments)
    if isinstance(part, sympy.Mul):
        return math.prod(arguments)
    if isinstance(part, sympy.Pow) and part.args[1].is_Integer and part.args[1] > 0:
        return arguments[0] ** int(part.args[1])
    kind = SIZE_FUNCTIONS[type(part)]
    if kind in ("floordiv", "mod"):
        if not np.all(arguments[1]):
            raise ZeroDivisionError
        return arguments[0] // arguments[1] if kind == "floordiv" else arguments[0] % arguments[1]
    return (np.minimum if kind == "min" else np.maximum).reduce(np.broadcast_arrays(*arguments))


def _irregular(size: sympy.Expr, given: frozenset[Any]) -> Iterator[sympy.Expr]:
    """The outermost parts of a size that are no polynomials of the symbols and of what is given."""
    if size in given or isinstance(size, (sympy.Symbol, sympy.Integer)):
        return
    power = isinstance(size, sympy.Pow) and size.args[1].is_Integer and size.args[1] > 0
    if isinstance(size, (sympy.Add, sympy.Mul)) or power:
        for argument in size.args:
            yield from _irregular(argument, given)
    else:
        yield size


def _sizes(nodes: Iterable[Node]) -> set[sympy.Expr]:
    """The formulas of all sizes of the nodes and among their arguments."""
    found: set[sympy.Expr] = set()
    for node in nodes:
        for source in (node, *(s for s in node.all_input_nodes if not isinstance(s.meta.get("val"), Tensor))):
            value = source.meta.get("val")
            for item in value if isinstance(value, (list, tuple)) else [value]:
                sizes: list[Any] = list(item.shape) if isinstance(item, Tensor) else [item]
                found |= {
                    expression_of(s) for s in sizes if isinstance(s, (torch.SymInt, torch.SymFloat, torch.SymBool))
                }
    return {sympy.sympify(size) for size in found}


def _upstream(nodes: Iterable[Node]) -> list[Node]:
    """The nodes and all that they are computed from; a fill has a tensor's type and sizes from it, no values."""
    found: dict[Node, None] = {}
    pending = list(nodes)
    while pending:
        node = pending.pop()
        if node not in found:
            found[node] = None
            like = node.args[0] if packet(node) in aten.FILLS else None
            pending += (source for source in node.all_input_nodes if source is not like)
    return list(found)


def _reach(nodes: Sequence[Node], constants: Mapping[Node, Tensor]) -> float:
    """The largest index at which a computed table may turn, from above: literals may be multiplied."""
    product, most = 1.0, 0.0
    for node in nodes:
        if node in constants:
            value = constants[node]
            most = max(most, *value.shape, abs(float(value)) if value.numel() == 1 else 0.0)
            continue
        literals: list[float] = []
        _literals((node.args, node.kwargs), literals)
        if packet(node) in aten.MOVES:
            most = max([most, *literals])
        else:
            product *= math.prod(max(literal, 1 / literal) for literal in literals)
    return max(product, most)


def _literals(arguments: Any, found: list[float]) -> None:
    if isinstance(arguments, (list, tuple)):
        for argument in arguments:
            _literals(argument, found)
    elif isinstance(arguments, dict):
        _literals(list(arguments.values()), found)
    elif isinstance(arguments, (int, float)) and arguments and abs(arguments) < _ENDLESS:
        found.append(abs(float(arguments)))
