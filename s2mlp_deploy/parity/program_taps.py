"""The captured program with taps: it runs as it is, and what leaves its modules is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch.fx import GraphModule, Interpreter, Node

from s2mlp_deploy.engines.base import Arrays, Engine
from s2mlp_deploy.parity.exits import Shape, Tap, ancestors, exits
from s2mlp_deploy.parity.layers import Feeds, Seer

_PARTS = frozenset(
    (
        "getitem",
        "select",
        "split",
        "split_with_sizes",
        "chunk",
        "unbind",
        "slice",
        "squeeze",
        "unsqueeze",
        "view",
        "reshape",
        "transpose",
        "permute",
        "clone",
        "alias",
        "contiguous",
        "flatten",
        "unflatten",
        "detach",
    )
)
"""Operators that give parts of a tensor, or the whole in another shape."""

Lines = Callable[[str | None], str]


class TappedProgram:
    """Runs a program and keeps values of it, which changes no number.

    Args:
        program: Functional; what :meth:`torch.export.ExportedProgram.module` returned.
        line_of: The user's line in a stack as torch notes it for a node.

    Attributes:
        taps: The values that leave a module, in the program's order.
        unclear: By path why a module has no tap.
    """

    def __init__(self, program: GraphModule, line_of: Lines) -> None:
        self._program = program
        self.taps, self.unclear = _taps_of(program, line_of)
        self._wanted: Collection[str] = ()
        self._given: Mapping[str, NDArray[Any]] = {}
        self._see: Callable[[Node, torch.Tensor], None] | None = None

    def is_shift(self, tap: Tap) -> bool:
        """Whether a tap is the result of a shift."""
        return self._node(tap.node).target is torch.ops.s2mlp.shift.default

    def entering(self, tap: Tap, known: Collection[str] | None = None) -> tuple[str, ...]:
        """The taps whose values a tap is computed from with no other tap between, by their paths in order.

        Args:
            tap: Of this program.
            known: The paths of the taps that count; None for all.
        """
        there = [other for other in self.taps if other is not tap and (known is None or other.path in known)]
        others = {other.node: other.path for other in there}
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

    def measure(self, reference: Engine, feeds: Feeds) -> dict[str, int]:
        """The bytes that each tap takes on these inputs, by the node.

        Args:
            reference: The engine that calls this program.
            feeds: Its inputs.
        """
        sizes: dict[str, int] = {}

        def see(node: Node, value: torch.Tensor) -> None:
            sizes[node.name] = 4 * value.numel()

        self._run(reference, feeds, {tap.node for tap in self.taps}, {}, see)
        return sizes

    def look(
        self,
        reference: Engine,
        feeds: Feeds,
        wanted: Collection[str],
        see: Seer,
        given: Mapping[str, NDArray[Any]] | None = None,
    ) -> Arrays:
        """See :class:`~s2mlp_deploy.parity.layers.LookedInto`."""

        def shown(node: Node, value: torch.Tensor) -> None:
            see(node.name, value.detach().cpu().float().numpy())

        return self._run(reference, feeds, wanted, given or {}, shown)

    def _run(
        self,
        reference: Engine,
        feeds: Feeds,
        wanted: Collection[str],
        given: Mapping[str, NDArray[Any]],
        see: Callable[[Node, torch.Tensor], None],
    ) -> Arrays:
        self._wanted, self._given, self._see = wanted, given, see
        try:
            return reference.run(feeds)
        finally:
            self._wanted, self._given, self._see = (), {}, None

    def __call__(self, *arguments: Any) -> Any:
        """Calls the program."""
        return _Watched(self._program, self._wanted, self._given, self._see).run(*arguments)


class _Watched(Interpreter):
    def __init__(
        self,
        program: GraphModule,
        wanted: Collection[str],
        given: Mapping[str, NDArray[Any]],
        see: Callable[[Node, torch.Tensor], None] | None,
    ) -> None:
        super().__init__(program, garbage_collect_values=True)
        self._wanted, self._given, self._see = frozenset(wanted), given, see

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if self._see is not None and n.name in self._wanted:
            self._see(n, value)
        given = self._given.get(n.name)
        if given is None or given.shape != tuple(value.shape):
            return value
        return torch.from_numpy(given).to(value.dtype)


def _taps_of(program: GraphModule, line_of: Lines) -> tuple[tuple[Tap, ...], dict[str, str]]:
    nodes = list(program.graph.nodes)
    order = {node: index for index, node in enumerate(nodes)}
    kinds = {path: kind for node in nodes for path, kind in _modules(node)}
    leaving = exits(((node, _path(node), _readers(node)) for node in nodes if _shape(node) is not None), kinds)
    unclear: dict[str, str] = {}
    single: dict[str, Node] = {}
    for path, found in leaving.items():
        wholes = {_whole(node, path) for node in found} if len(found) > 1 else set(found)
        if len(wholes) == 1 and _shape(next(iter(wholes))) is not None:
            single[path] = wholes.pop()
        else:
            unclear[path] = f"{len(found)} tensors leave it, and which is which the names do not tell"
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


def _whole(node: Node, module: str) -> Node:
    """What a tensor is a part of: the one above all movement of its module."""
    while node.all_input_nodes and _target(node) in _PARTS:
        above = node.all_input_nodes[0]
        if _path(above) != module and not _path(above).startswith(f"{module}."):
            break
        node = above
    return node


def _target(node: Node) -> str:
    """The operator's name without its overload: ``select``."""
    return getattr(node.target, "__name__", str(node.target)).split(".")[0]


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
