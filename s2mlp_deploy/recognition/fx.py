"""An exported program as recognition reads it: concrete sizes of every tensor, values of every constant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from s2mlp_deploy.recognition.movement import Sizes

_LARGEST = 1 << 12
"""Sizes above this are not tried."""


def concrete_sizes(program: ExportedProgram) -> list[Sizes]:
    """The example's sizes first; then, where sizes are dynamic, four others, small and odd ones among them."""
    symbols = _symbols(program)
    constants = _constants(program)
    example = {symbol: hint for symbol, (hint, _, _) in symbols.items()}
    choices = [example]
    for index in range(4 if symbols else 0):
        choice = {}
        for symbol, (hint, low, high) in symbols.items():
            # The smallest allowed, the next odd one above the example, one that is neither, and a multiple of the
            # example for code that views the batch as clips x frames.
            wanted = (low, hint + 1 + hint % 2, max(low, hint // 2) + 2, 2 * hint)[index]
            choice[symbol] = min(max(wanted, low), high)
        if choice not in choices:
            choices.append(choice)
    sizes = [_sizes_at(program, choices[0], constants)]
    for choice in choices[1:]:
        try:
            sizes.append(_sizes_at(program, choice, constants))
        except ZeroDivisionError:
            continue  # the program has no such size: a batch that is no whole clip, for example
    return sizes


def _symbols(program: ExportedProgram) -> dict[sympy.Symbol, tuple[int, int, int]]:
    """Every free size of the inputs with its value in the example and its range."""
    symbols: dict[sympy.Symbol, tuple[int, int, int]] = {}
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node.op != "placeholder" or not isinstance(value, Tensor):
            continue
        sizes: list[Any] = list(value.shape)
        for size in sizes:
            if isinstance(size, torch.SymInt):
                for symbol in size.node.expr.free_symbols:
                    limits = program.range_constraints.get(symbol)
                    hint = int(size.node.shape_env.backed_var_to_val[symbol])
                    # torch writes "no limit" as an infinity of its own, which compares but does not convert.
                    low = int(limits.lower) if limits is not None and limits.lower >= 1 else 1
                    high = int(limits.upper) if limits is not None and limits.upper <= _LARGEST else _LARGEST
                    symbols[symbol] = (hint, low, high)
    return symbols


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


def _sizes_at(program: ExportedProgram, choice: Mapping[sympy.Symbol, int], constants: Mapping[Node, Tensor]) -> Sizes:
    known: dict[Any, int] = {}

    def concrete(size: Any) -> int:
        if isinstance(size, int):
            return size
        expression = size.node.expr
        if expression not in known:
            known[expression] = int(expression.xreplace(dict(choice)))
        return known[expression]

    def shape(value: Tensor) -> tuple[int, ...]:
        return tuple(concrete(size) for size in value.shape)

    shapes: dict[Node, Any] = {}
    integers: dict[Node, int] = {}
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, Tensor):
            shapes[node] = shape(value)
        elif isinstance(value, (list, tuple)) and all(isinstance(item, Tensor) for item in value):
            shapes[node] = [shape(item) for item in value]
        elif isinstance(value, torch.SymInt):
            integers[node] = concrete(value)
    return Sizes(shapes, integers, constants)
