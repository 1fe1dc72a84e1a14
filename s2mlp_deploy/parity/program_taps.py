"""The captured program with taps: it runs as it is, and what leaves its modules is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import GraphModule, Interpreter, Node

from s2mlp_deploy.engines.base import Engine
from s2mlp_deploy.parity.exits import Shape, Tap, ancestors, exits

Lines = Callable[[str | None], str]


class TappedProgram:
    """Runs a program and keeps values of it, which changes no number.

    Args:
        program: Functional; what :meth:`torch.export.ExportedProgram.module` returned.
        line_of: The user's line in a stack as torch notes it for a node.

    Attributes:
        taps: The values that leave a module, in the program's order.
        unclear: By path why a module has no tap.
        wanted: The nodes whose values the next runs keep.
        kept: Their values of the latest run, float32, by the node.
        sizes: While taps are measured: their bytes by the node.
    """

    def __init__(self, program: GraphModule, line_of: Lines) -> None:
        self._program = program
        self.taps, self.unclear = _taps_of(program, line_of)
        self.wanted: Collection[str] = ()
        self.kept: dict[str, NDArray[Any]] = {}
        self.sizes: dict[str, int] = {}

    def is_shift(self, tap: Tap) -> bool:
        """Whether a tap is the result of a shift."""
        return self._node(tap.node).target is torch.ops.s2mlp.shift.default

    def entering(self, tap: Tap) -> tuple[str, ...]:
        """The taps whose values a tap is computed from with no other tap between, by their paths in order."""
        others = {other.node: other.path for other in self.taps if other is not tap}
        found: dict[str, None] = {}
        waiting, seen = [self._node(tap.node)], set()
        while waiting:
            for above in waiting.pop().all_input_nodes:
                if above in seen:
                    continue
                seen.add(above)
                if above.name in others:
                    found[others[above.name]] = None
                else:
                    waiting.append(above)
        return tuple(other.path for other in self.taps if other.path in found)

    def _node(self, name: str) -> Node:
        found: Node = next(node for node in self._program.graph.nodes if node.name == name)
        return found

    def measure(self, reference: Engine, feeds: Mapping[str, NDArray[Any]]) -> dict[str, int]:
        """The bytes that each tap takes on these inputs, none of which is kept, by the node.

        Args:
            reference: The engine that calls this program.
            feeds: Its inputs.
        """
        self.sizes = {tap.node: 0 for tap in self.taps}
        try:
            reference.run(feeds)
            return self.sizes
        finally:
            self.sizes = {}

    def __call__(self, *arguments: Any) -> Any:
        """Calls the program."""
        self.kept = {}
        return _Keeping(self._program, self).run(*arguments)


class _Keeping(Interpreter):
    def __init__(self, program: GraphModule, owner: TappedProgram) -> None:
        super().__init__(program, garbage_collect_values=True)
        self._owner = owner
        self._wanted = set(owner.wanted)

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n.name in self._owner.sizes:
            self._owner.sizes[n.name] = 4 * value.numel()
        if n.name in self._wanted:
            self._owner.kept[n.name] = value.detach().cpu().float().numpy()
        return value


def _taps_of(program: GraphModule, line_of: Lines) -> tuple[tuple[Tap, ...], dict[str, str]]:
    nodes = list(program.graph.nodes)
    order = {node: index for index, node in enumerate(nodes)}
    kinds = {path: kind for node in nodes for path, kind in _modules(node)}
    leaving = exits(((node, _path(node), _readers(node)) for node in nodes if _shape(node) is not None), kinds)
    unclear = {
        path: f"{len(found)} tensors leave it, and which is which the names do not tell"
        for path, found in leaving.items()
        if len(found) > 1
    }
    single = {path: found[0] for path, found in leaving.items() if len(found) == 1}
    by_node: dict[Node, list[str]] = {}
    for path, node in single.items():
        by_node.setdefault(node, []).append(path)
    taps = [_tap(node, sorted(paths, key=len, reverse=True), kinds, single, line_of) for node, paths in by_node.items()]
    shifts = _shifts(nodes)
    counts = Counter(name.partition("/")[0] for name in shifts)
    for name, node in shifts.items():
        if node not in by_node:
            tap = _tap(node, [name], {name: "shift"}, single, line_of)
            taps.append(replace(tap, shifts=counts[name.partition("/")[0]]))
    position = {node.name: index for node, index in order.items()}
    return tuple(sorted(taps, key=lambda tap: position[tap.node])), unclear


def _tap(node: Node, paths: list[str], kinds: dict[str, str], single: dict[str, Node], line_of: Lines) -> Tap:
    shape = _shape(node)
    assert shape is not None
    above = node.args[0] if "batch_norm" in str(node.target) and node.args else None
    norm = ""
    if isinstance(above, Node):
        norm = next((path for path in ancestors(_path(above)) if single.get(path) is above), "")
    line = line_of(node.meta.get("stack_trace"))
    return Tap(paths[0], node.name, tuple(paths[1:]), kinds[paths[0]], line, shape, norm)


def _shifts(nodes: list[Node]) -> dict[str, Node]:
    """Shifts among other nodes of their module, by the names that an export gives them, in the order of the program."""
    found: dict[str, Node] = {}
    counts: dict[str, int] = {}
    for node in nodes:
        if node.target is not torch.ops.s2mlp.shift.default:
            continue
        path = _path(node)
        count = counts.get(path, 0)
        counts[path] = count + 1
        found[f"{path}/Shift{f'_{count}' if count else ''}"] = node
    return found


def _modules(node: Node) -> list[tuple[str, str]]:
    """The modules that a node was made in: path and class, the root first."""
    found = []
    for path, kind in (node.meta.get("nn_module_stack") or {}).values():
        name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
        if path and not str(path).startswith("_empty_nn_module_stack"):
            found.append((str(path), name.rpartition(".")[2]))
    return found


def _path(node: Node) -> str:
    modules = _modules(node)
    return modules[-1][0] if modules else ""


def _readers(node: Node) -> list[str | None]:
    # Sizes are read off a tensor too; nothing leaves through them.
    return [
        None if user.op == "output" else _path(user)
        for user in node.users
        if user.op == "output" or not isinstance(user.meta.get("val"), (torch.SymInt, int))
    ]


def _shape(node: Node) -> Shape | None:
    """Of a node that computes one tensor of floats; None for every other."""
    value = node.meta.get("val")
    if node.op not in ("call_function", "call_method") or not isinstance(value, torch.Tensor):
        return None
    if not value.dtype.is_floating_point:
        return None
    return tuple(size if isinstance(size, int) else None for size in value.shape)


def float_array(array: NDArray[Any]) -> NDArray[Any]:
    """An array whose differences can be taken: float16 as float32."""
    return array.astype(np.float32) if array.dtype == np.float16 else array
