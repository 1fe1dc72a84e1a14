"""Layer by layer: the captured program with taps beside files with taps, over all batches within a bound of memory."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.choices import GRAPH_ENGINE
from s2mlp_deploy.engines.base import Arrays, Engine
from s2mlp_deploy.engines.of_graph import open_graph
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.evidence.layers import LayerParity, Unmatched
from s2mlp_deploy.metrics import TensorComparison
from s2mlp_deploy.parity.exits import Tap, match_taps, tapped
from s2mlp_deploy.parity.grids import Grid, grid_of, input_grids
from s2mlp_deploy.parity.joined import with_whole_results
from s2mlp_deploy.parity.matching import Matched
from s2mlp_deploy.parity.sketch import LayerFigures, float_array, in_chunks

MEMORY = 256 << 20
"""Bytes that a file's tapped tensors of one run may take."""

Feeds = Mapping[str, NDArray[Any]]
OUTPUT = "output"
Seer = Callable[[str, NDArray[Any]], None]


class LookedInto(Protocol):
    """A reference with taps.

    Attributes:
        taps: The values that leave a module, in order.
        unclear: By path why a module has no tap.
    """

    taps: tuple[Tap, ...]
    unclear: dict[str, str]

    def entering(self, tap: Tap, known: Collection[str] | None = None) -> tuple[str, ...]:
        """The taps whose values a tap is computed from with no other between; of those whose paths are known."""
        ...

    def measure(self, reference: Engine, /, feeds: Feeds) -> dict[str, int]:
        """The bytes that each tap takes on these inputs, by the node."""
        ...

    def is_shift(self, tap: Tap) -> bool:
        """Whether a tap is the result of a shift."""
        ...

    def look(
        self,
        reference: Engine,
        feeds: Feeds,
        wanted: Collection[str],
        see: Seer,
        given: Mapping[str, NDArray[Any]] | None = None,
    ) -> Arrays:
        """Runs and shows values as they are computed, none of which is kept.

        Args:
            reference: The engine that runs this.
            feeds: Its inputs.
            wanted: The nodes whose values are shown.
            see: Gets each, in float32.
            given: By the node what those that read it get in place of its own value: a file's.

        Returns:
            The outputs.
        """
        ...


class Keeper(Protocol):
    """Gets every tensor that is compared: to save it, for example."""

    def __call__(
        self,
        file: str,
        path: str,
        batch: int,
        reference: NDArray[Any],
        candidate: NDArray[Any],
        own: NDArray[Any] | None,
    ) -> None:
        """Keeps the tensors of a batch of a file's layer; ``own`` is what its own distance is measured from."""
        ...


@dataclass
class _Layer:
    tap: Tap
    value: str
    grid: Grid | None = None
    figures: LayerFigures = field(default_factory=LayerFigures)
    own: TensorComparison | None = None

    def add_own(self, local: NDArray[Any], ours: NDArray[Any]) -> NDArray[Any]:
        """Adds a batch of what the reference's layer makes of what entered it in the file; gives it as compared."""
        self.own = self.own or TensorComparison()
        local = local if self.grid is None else self.grid.nearest(local)
        for first, second in in_chunks(local, ours):
            self.own.update(first, second)
        return local

    def result(self) -> LayerParity:
        tap, own = self.tap, None if self.own is None else self.own.result()
        return LayerParity(tap.path, tap.kind, self.value, *self.figures.result(), tap.ends, tap.line, own=own)


@dataclass(frozen=True)
class Layers:
    """What was measured of a file.

    Attributes:
        layers: The figures in the program's order, without limits; the outputs are the last.
        unmatched: What was not compared, and why.
        tapping: By output the largest difference that the taps made to it; None where it is not finite.
        images: How many samples.
        parts: How many parts the taps were divided into.
        runs: How often the file ran with taps.
    """

    layers: tuple[LayerParity, ...]
    unmatched: tuple[Unmatched, ...]
    tapping: dict[str, float | None]
    images: int
    parts: int
    runs: int


def compare_layers(
    program: LookedInto,
    reference: Engine,
    files: Mapping[str, ir.Model],
    batches: Iterable[tuple[Feeds, Any]],
    *,
    adapt: Callable[[str, Engine], Engine] = lambda _, engine: engine,
    splits: bool = False,
    memory: int = MEMORY,
    engine: str = GRAPH_ENGINE,
    options: Mapping[str, Any] | None = None,
    plain: Mapping[str, Engine] | None = None,
    foreign: bool = False,
    keep: Keeper | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> dict[str, Layers]:
    """Compares what leaves each module of a program with what leaves it in each file.

    Each layer has two distances: from the program's value, which has in it what was wrong before; and its own, from
    what the program's layer makes of the values that entered it in the file.

    Where all taps do not fit the bound, batches are cut to single samples first, and then the taps are divided and the
    batches run again for each part.

    Args:
        program: With taps.
        reference: The engine that runs it.
        files: Graphs of that program by name, as they are to be computed: float16 ones as graphs that round.
        batches: Inputs by the reference's names; may be iterated over again and gives the same.
        adapt: Makes a file's engine take the reference's inputs.
        splits: Whether a batch may be cut along its first axis.
        memory: Bytes that a file's tapped tensors may take at a time; those of the reference are not kept.
        engine: What runs the files.
        options: What that engine is opened with.
        plain: Engines of files as they are, where there are some: the others are opened for it.
        foreign: Whether the inputs are none that the files were calibrated on: that values lie outside of their ranges
            is then no fault of a layer's own.
        keep: Gets every pair of tensors.
        on_batch: Called with the number of images after each batch of each part.

    Raises:
        InputError: There are no inputs, or an output has another shape.
        BuildError: The engine cannot load a graph with taps.
    """
    states = {
        key: _File(
            key, model, program, functools.partial(_open, engine, options or {}), foreign, (plain or {}).get(key)
        )
        for key, model in files.items()
    }
    wanted = [tap for tap in program.taps if any(tap.path in state.found for state in states.values())]
    first = next(iter(batches), None)
    if first is None:
        raise InputError("there is nothing to compare on: no inputs", fix="give data with at least one sample")
    feeds, size = first[0], _size(first[0])
    sizes = program.measure(reference, {name: array[:1] if splits else array for name, array in feeds.items()})
    total = sum(sizes[tap.node] for tap in wanted)
    step = max(1, min(size, memory // max(1, total))) if splits else size
    parts = _parts(wanted, {node: count * (step if splits else 1) for node, count in sizes.items()}, memory)
    images = 0
    for number, part in enumerate(parts):
        for state in states.values():
            state.open(part, reference, adapt)
        images = batch = 0
        for whole, _ in batches:
            for piece in _pieces(whole, step) if splits else (whole,):
                for state in states.values():
                    state.update(piece, batch, keep, outputs=number == 0)
                images += _size(piece)
                batch += 1
                if on_batch:
                    on_batch(_size(piece))
    return {key: state.result(images, len(parts)) for key, state in states.items()}


def _open(engine: str, options: Mapping[str, Any], model: ir.Model) -> Engine:
    # Memory that one layer used is not kept for the next run: several graphs of one network are open at once.
    own: dict[str, Any] = {"arena": False} if engine == GRAPH_ENGINE else {}
    return open_graph(model, engine=engine, **own, **options)


def _size(feeds: Feeds) -> int:
    return len(next(iter(feeds.values())))


def _pieces(feeds: Feeds, step: int) -> Iterator[Feeds]:
    for start in range(0, _size(feeds), step):
        yield {name: array[start : start + step] for name, array in feeds.items()}


def _parts(taps: Sequence[Tap], sizes: Mapping[str, int], memory: int) -> list[list[Tap]]:
    """Taps in order, divided where those of a part would take more than the bound."""
    parts: list[list[Tap]] = [[]]
    room = memory
    for tap in taps:
        if sizes[tap.node] > room and parts[-1]:
            parts.append([])
            room = memory
        parts[-1].append(tap)
        room -= sizes[tap.node]
    return parts


class _Tapped:
    """An engine of a graph with taps that gives the graph's own outputs and keeps the others."""

    def __init__(self, engine: Engine, outputs: int) -> None:
        self._engine = engine
        self.name, self.inputs = engine.name, engine.inputs
        self.outputs: tuple[TensorInfo, ...] = engine.outputs[:outputs]
        self.seen: Arrays = {}

    def run(self, feeds: Feeds) -> Arrays:
        self.seen = self._engine.run(feeds)
        return {info.name: self.seen[info.name] for info in self.outputs}


class _File:
    """One file: what matches, the engines of the current part, and the figures."""

    def __init__(
        self,
        key: str,
        model: ir.Model,
        program: LookedInto,
        opens: Callable[[ir.Model], Engine],
        foreign: bool,
        plain: Engine | None,
    ) -> None:
        self._key, self._model, self._program, self._opens = key, model, program, opens
        self._foreign, self._inputs, self._plain = foreign, input_grids(model.graph), plain
        self._joined = with_whole_results(model)
        self.found, missing = match_taps(program.taps, self._joined.graph)
        self._unmatched = [*(Unmatched(*item) for item in program.unclear.items()), *missing]
        self._layers: dict[str, _Layer] = {}
        self._outputs: dict[str, _Layer] = {}
        self._tapping: dict[str, float | None] = {}
        self._untapped: Matched | None = None
        self._runs = 0
        self._reference: Engine

    def open(self, part: Sequence[Tap], reference: Engine, adapt: Callable[[str, Engine], Engine]) -> None:
        """Loads the graph with the taps of a part, and the first time without any."""
        self._reference = reference
        if self._untapped is None:
            self._untapped = Matched(self._key, adapt(self._key, self._plain or self._opens(self._model)), reference)
        self._part = [tap for tap in part if tap.path in self.found]
        own = {tap.path for tap in self._part}
        # What enters the part's first layers is looked at too, for their own distances.
        entering = {path for tap in self._part for path in self._program.entering(tap, self.found)} - own
        self._entering = {tap.node: tap.path for tap in self._program.taps if tap.path in entering}
        graph, self._names = tapped(self._joined, {path: self.found[path] for path in (*own, *entering)})
        self._tapped = _Tapped(self._opens(graph), len(self._model.graph.outputs))
        self._matched = Matched(self._key, adapt(self._key, self._tapped), reference)
        for tap in self._part:
            found = self.found[tap.path]
            self._layers[tap.path] = _Layer(
                tap, found.value, grid_of(self._joined.graph, found) if self._foreign else None
            )

    def update(self, feeds: Feeds, batch: int, keep: Keeper | None, *, outputs: bool) -> None:
        """Runs a batch and adds it to the figures, those of the outputs too where they are asked for."""
        assert self._untapped is not None
        self._runs += 1
        plain, changed = self._untapped.run(feeds), self._matched.run(feeds)
        for name, array in plain.items():
            self._tapping[name] = _larger(self._tapping.get(name, 0.0), array, changed[name])
        paths = {tap.node: tap.path for tap in self._part}
        seen, self._tapped.seen = self._tapped.seen, {}
        given = {node: float_array(seen[self._names[path]]) for node, path in (self._entering | paths).items()}
        kept: dict[str, NDArray[Any]] = {}

        def compare(node: str, wanted: NDArray[Any]) -> None:
            if given[node].shape != wanted.shape:
                self._drop(paths[node], given[node].shape, wanted.shape)
                return
            self._layers[paths[node]].figures.update(wanted, given[node])
            if keep is not None:
                kept[node] = wanted

        def compare_own(node: str, local: NDArray[Any]) -> None:
            own = self._layers[paths[node]].add_own(local, given[node])
            if keep is not None:
                keep(self._key, paths[node], batch, kept[node], given[node], own)

        expected = self._program.look(self._reference, feeds, paths, compare)
        # What entered the first layers is what the file's first quantization made of the inputs.
        entered = {name: self._inputs[name].nearest(x) if name in self._inputs else x for name, x in feeds.items()}
        left = {tap.node for tap in self._part}
        self._program.look(self._reference, entered, left, compare_own, given)
        for name, wanted in expected.items() if outputs else ():
            if wanted.shape != plain[name].shape:
                raise InputError(
                    f"output {name!r} has the shape {plain[name].shape}, not {wanted.shape}",
                    where=self._key,
                    fix="compare with the source, checkpoint and settings that the file was exported from",
                )
            layer = self._outputs.setdefault(name, _Layer(Tap(name, "", (), OUTPUT, "", ()), name))
            layer.figures.update(float_array(wanted), float_array(plain[name]))
            if keep is not None:
                keep(self._key, name, batch, wanted, plain[name], None)

    def _drop(self, path: str, ours: Sequence[int], wanted: Sequence[int]) -> None:
        shapes = ["x".join(map(str, shape)) for shape in (ours, wanted)]
        self._unmatched.append(Unmatched(path, f"its result is {shapes[0]} in the file and {shapes[1]} in the model"))
        self._part = [tap for tap in self._part if tap.path != path]
        del self._layers[path]

    def result(self, images: int, parts: int) -> Layers:
        """The figures."""
        position = {tap.path: index for index, tap in enumerate(self._program.taps)}
        layers = sorted(self._layers.values(), key=lambda layer: position[layer.tap.path])
        return Layers(
            tuple(layer.result() for layer in (*layers, *self._outputs.values())),
            tuple(self._unmatched),
            self._tapping,
            images,
            parts,
            self._runs,
        )


def _larger(known: float | None, plain: NDArray[Any], other: NDArray[Any]) -> float | None:
    """The larger of a difference and that of two arrays; None where one has NaN or infinity and the other has not."""
    if known is None or not np.issubdtype(plain.dtype, np.number):
        return known
    first, second = plain.astype(np.float64), other.astype(np.float64)
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    worst = float(np.abs(first[~same] - second[~same]).max(initial=0.0))
    return max(known, worst) if np.isfinite(worst) else None
