"""An ONNX graph with taps as the reference: two files are compared layer by layer without the model they come from.

Taps are the values that leave the modules that nodes are named after; in a graph whose nodes are named after none,
every value that is not mere movement, by its own name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.engines.base import Arrays, Engine
from s2mlp_deploy.engines.of_graph import open_graph
from s2mlp_deploy.graph.operators import is_movement
from s2mlp_deploy.parity.exits import (
    GraphTap,
    Tap,
    ancestors,
    exits,
    readers,
    scope_of,
    shape_of,
    shift_of,
    shift_result,
    single,
    tapped,
)
from s2mlp_deploy.parity.joined import with_whole_results
from s2mlp_deploy.parity.layers import Feeds, Seer
from s2mlp_deploy.parity.sketch import float_array

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)
_PLAIN = frozenset({"Cast", "Constant", "QuantizeLinear", "DequantizeLinear", "Identity", "Shape"})


class TappedGraph:
    """Runs a graph and keeps values of it.

    Args:
        model: The graph, as it is to be computed.
        threads: Of ONNX Runtime; 0 lets it choose.

    Attributes:
        taps: See :class:`~s2mlp_deploy.parity.layers.LookedInto`, as for the rest.
        unclear: See there.

    Raises:
        BuildError: ONNX Runtime cannot load it.
    """

    def __init__(self, model: ir.Model, *, threads: int = 0) -> None:
        model = with_whole_results(model)
        self._model, self._threads = model, threads
        self._values = {str(value.name): value for node in model.graph for value in node.outputs}
        self.taps, self.unclear = _taps_of(model.graph)
        self._wanted: Collection[str] = ()
        self._given: Mapping[str, NDArray[Any]] = {}
        self._see: Seer | None = None
        self._opened: dict[bool, tuple[frozenset[str], frozenset[str], Engine]] = {}
        engine = self._engine((), ())
        self.name, self.inputs = engine.name, engine.inputs
        self.outputs: tuple[TensorInfo, ...] = engine.outputs

    def is_shift(self, tap: Tap) -> bool:
        """Whether a tap is the result of a shift."""
        return tap.kind == "shift"

    def entering(self, tap: Tap, known: Collection[str] | None = None) -> tuple[str, ...]:
        """See :class:`~s2mlp_deploy.parity.layers.LookedInto`."""
        others = {
            other.node: other.path for other in self.taps if other is not tap and (known is None or other.path in known)
        }
        found: set[str] = set()
        waiting, seen = [self._values[tap.node].producer()], set()
        while waiting:
            node = waiting.pop()
            for value in node.inputs if node is not None else ():
                if value is None or value in seen:
                    continue
                seen.add(value)
                if str(value.name) in others:
                    found.add(others[str(value.name)])
                else:
                    waiting.append(value.producer())
        return tuple(other.path for other in self.taps if other.path in found)

    def measure(self, _: Engine, feeds: Feeds) -> dict[str, int]:
        """The bytes of each tap, from the shapes that the graph states; a free size is the first input's first.

        Args:
            _: The engine that runs this graph.
            feeds: Its inputs.
        """
        batch = len(next(iter(feeds.values())))
        sizes = {}
        for tap in self.taps:
            shape = shape_of(self._values[tap.node]) or ()
            sizes[tap.node] = 4 * int(np.prod([batch if size is None else size for size in shape], dtype=np.int64))
        return sizes

    def look(
        self,
        reference: Engine,
        feeds: Feeds,
        wanted: Collection[str],
        see: Seer,
        given: Mapping[str, NDArray[Any]] | None = None,
    ) -> Arrays:
        """See :class:`~s2mlp_deploy.parity.layers.LookedInto`; here the values of one run are there at once."""
        self._wanted, self._given, self._see = wanted, given or {}, see
        try:
            return reference.run(feeds)
        finally:
            self._wanted, self._given, self._see = (), {}, None

    def run(self, feeds: Feeds) -> Arrays:
        """See :class:`~s2mlp_deploy.engines.base.Engine`."""
        inputs = {
            f"{name}{_GIVEN}": array.astype(dtype.numpy(), copy=False)
            for name, array in self._given.items()
            if (dtype := self._values[name].dtype) is not None
        }
        found = self._engine(self._wanted, self._given).run({**feeds, **inputs})
        for name in self._wanted if self._see is not None else ():
            assert self._see is not None
            self._see(name, float_array(found[name]))
        return {info.name: found[info.name] for info in self.outputs}

    def _engine(self, wanted: Collection[str], given: Collection[str]) -> Engine:
        names, taken, replaces = frozenset(wanted), frozenset(given), bool(given)
        known = self._opened.get(replaces)
        if known is None or known[:2] != (names, taken):
            self._opened.pop(replaces, None)
            model = tapped(self._model, {name: GraphTap(name) for name in sorted(names)})[0]
            known = names, taken, open_graph(_taking(model, taken), threads=self._threads, arena=False)
            self._opened[replaces] = known
        return known[2]


_GIVEN = "/given"


def _taking(model: ir.Model, names: Collection[str]) -> ir.Model:
    """A graph that takes values as inputs in place of those that it computes, which stay outputs. Changes it."""
    for node in list(model.graph):
        for value in node.outputs:
            if str(value.name) not in names:
                continue
            taken = ir.Value(name=f"{value.name}{_GIVEN}", type=value.type, shape=value.shape)
            model.graph.inputs.append(taken)
            for reader, index in tuple(value.uses()):
                reader.replace_input_with(index, taken)
    return model


def _taps_of(graph: ir.Graph) -> tuple[tuple[Tap, ...], dict[str, str]]:
    inputs = {str(value.name) for value in graph.inputs}
    nodes = [node for node in graph if scope_of(node) not in inputs]
    modules = {path for node in nodes for path in ancestors(scope_of(node))}
    position = {value: index for index, value in enumerate(v for node in graph for v in node.outputs)}
    if not modules:
        values = [value for node in graph for value in node.outputs if _computes(node) and value.dtype in _FLOATS]
        return tuple(replace(_tap(value, [str(value.name)]), named=True) for value in values), {}
    leaving = exits(
        (
            (value, scope_of(node), readers(value))
            for node in nodes
            for value in node.outputs
            if node.op_type not in ("Shape", "Constant") and not _is_size(value)
        ),
        modules,
    )
    named = {scope_of(node) for node in nodes}
    unclear: dict[str, str] = {}
    by_value: dict[ir.Value, list[str]] = {}
    for path, values in leaving.items():
        value = single(values, within=path)
        if isinstance(value, str):
            # A list of modules computes nothing itself, and that several things leave it is no loss.
            unclear |= {path: value} if path in named else {}
        elif value.dtype not in _FLOATS:
            unclear[path] = "it is no float in the reference"
        else:
            by_value.setdefault(value, []).append(path)
    taps = [_tap(value, sorted(paths, key=len, reverse=True)) for value, paths in by_value.items()]
    names = {name for node in nodes if (name := shift_of(node))}
    counts = Counter(name.partition("/")[0] for name in names)
    for name in names:
        tap = Tap(name, "", (), "shift", "", None, shifts=counts[name.partition("/")[0]])
        value = shift_result(graph, tap)
        if not isinstance(value, str) and value not in by_value and value.dtype in _FLOATS:
            taps.append(replace(tap, node=str(value.name), shape=shape_of(value)))
    order = {str(value.name): index for value, index in position.items()}
    return tuple(sorted(taps, key=lambda tap: order[tap.node])), unclear


def _is_size(value: ir.Value) -> bool:
    """Whether it is of the type of sizes and indices, and not the network's result: exporters compute those once."""
    return value.dtype == ir.DataType.INT64 and not value.is_graph_output()


def _computes(node: ir.Node) -> bool:
    return node.op_type not in _PLAIN and not is_movement(node) and any(v is not None for v in node.inputs)


def _tap(value: ir.Value, paths: list[str]) -> Tap:
    producer = value.producer()
    kind = producer.op_type if producer is not None else ""
    return Tap(paths[0], str(value.name), tuple(paths[1:]), kind, "", shape_of(value))
