"""Layer by layer: the captured program with taps beside files with taps, over all batches within a bound of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from s2mlp_deploy.parity.exits import Tap, match_taps, tapped
from s2mlp_deploy.parity.matching import Matched
from s2mlp_deploy.parity.program_taps import TappedProgram, float_array
from s2mlp_deploy.parity.sketch import LayerFigures

MEMORY = 256 << 20
"""Bytes that the tapped tensors of one run may take on either side."""

Feeds = Mapping[str, NDArray[Any]]
OUTPUT = "output"


class Keeper(Protocol):
    """Gets every tensor that is compared: to save it, for example."""

    def __call__(self, file: str, path: str, batch: int, reference: NDArray[Any], candidate: NDArray[Any]) -> None:
        """Keeps a tensor of a batch of a file's layer."""
        ...


@dataclass
class _Layer:
    tap: Tap
    value: str
    figures: LayerFigures = field(default_factory=LayerFigures)

    def result(self) -> LayerParity:
        tap = self.tap
        return LayerParity(tap.path, tap.kind, self.value, *self.figures.result(), tap.ends, tap.line)


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
    program: TappedProgram,
    reference: Engine,
    files: Mapping[str, ir.Model],
    batches: Iterable[tuple[Feeds, Any]],
    *,
    adapt: Callable[[str, Engine], Engine] = lambda _, engine: engine,
    splits: bool = False,
    memory: int = MEMORY,
    engine: str = GRAPH_ENGINE,
    threads: int = 0,
    keep: Keeper | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> dict[str, Layers]:
    """Compares what leaves each module of a program with what leaves it in each file.

    Where all taps do not fit the bound, batches are cut to single samples first, and then the taps are divided and the
    batches run again for each part.

    Args:
        program: With taps.
        reference: The engine that runs it.
        files: Graphs of that program by name, as they are to be computed: float16 ones as graphs that round.
        batches: Inputs by the reference's names; may be iterated over again and gives the same.
        adapt: Makes a file's engine take the reference's inputs.
        splits: Whether a batch may be cut along its first axis.
        memory: Bytes that tapped tensors may take at a time, on either side.
        engine: What runs the files.
        threads: Of the engine; 0 lets it choose.
        keep: Gets every pair of tensors.
        on_batch: Called with the number of images after each batch of each part.

    Raises:
        InputError: There are no inputs, or an output has another shape.
        BuildError: The engine cannot load a graph with taps.
    """
    states = {key: _File(key, model, program) for key, model in files.items()}
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
        program.wanted = {tap.node for tap in part}
        for state in states.values():
            state.open(part, reference, adapt, engine, threads)
        images = batch = 0
        for whole, _ in batches:
            for piece in _pieces(whole, step) if splits else (whole,):
                expected = reference.run(piece)
                for state in states.values():
                    state.update(piece, expected if number == 0 else {}, batch, keep)
                images += _size(piece)
                batch += 1
                if on_batch:
                    on_batch(_size(piece))
    program.wanted = ()
    return {key: state.result(images, len(parts)) for key, state in states.items()}


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

    def __init__(self, key: str, model: ir.Model, program: TappedProgram) -> None:
        self._key, self._model, self._program = key, model, program
        self.found, missing = match_taps(program.taps, model.graph)
        self._unmatched = [*(Unmatched(*item) for item in program.unclear.items()), *missing]
        self._layers: dict[str, _Layer] = {}
        self._outputs: dict[str, _Layer] = {}
        self._tapping: dict[str, float | None] = {}
        self._untapped: Matched | None = None
        self._runs = 0

    def open(
        self,
        part: Sequence[Tap],
        reference: Engine,
        adapt: Callable[[str, Engine], Engine],
        engine: str,
        threads: int,
    ) -> None:
        """Loads the graph with the taps of a part, and the first time without any."""
        if self._untapped is None:
            plain = open_graph(self._model, engine=engine, threads=threads)
            self._untapped = Matched(self._key, adapt(self._key, plain), reference)
        self._part = [tap for tap in part if tap.path in self.found]
        graph, self._names = tapped(self._model, {tap.path: self.found[tap.path] for tap in self._part})
        self._tapped = _Tapped(open_graph(graph, engine=engine, threads=threads), len(self._model.graph.outputs))
        self._matched = Matched(self._key, adapt(self._key, self._tapped), reference)
        for tap in self._part:
            self._layers[tap.path] = _Layer(tap, self.found[tap.path].value)

    def update(self, feeds: Feeds, expected: Arrays, batch: int, keep: Keeper | None) -> None:
        """Runs a batch and adds it to the figures; outputs only where expected ones are given."""
        assert self._untapped is not None
        self._runs += 1
        plain, outputs = self._untapped.run(feeds), self._matched.run(feeds)
        for name, array in plain.items():
            self._tapping[name] = _larger(self._tapping.get(name, 0.0), array, outputs[name])
        for tap in list(self._part):
            ours, wanted = float_array(self._tapped.seen[self._names[tap.path]]), self._program.kept[tap.node]
            if ours.shape != wanted.shape:
                self._drop(tap, ours.shape, wanted.shape)
                continue
            self._layers[tap.path].figures.update(wanted, ours)
            if keep is not None:
                keep(self._key, tap.path, batch, wanted, ours)
        for name, wanted in expected.items():
            if wanted.shape != plain[name].shape:
                raise InputError(
                    f"output {name!r} has the shape {plain[name].shape}, not {wanted.shape}",
                    where=self._key,
                    fix="compare with the source, checkpoint and settings that the file was exported from",
                )
            layer = self._outputs.setdefault(name, _Layer(Tap(name, "", (), OUTPUT, "", ()), name))
            layer.figures.update(float_array(wanted), float_array(plain[name]))
            if keep is not None:
                keep(self._key, name, batch, wanted, plain[name])

    def _drop(self, tap: Tap, ours: Sequence[int], wanted: Sequence[int]) -> None:
        shapes = ["x".join(map(str, shape)) for shape in (ours, wanted)]
        self._unmatched.append(
            Unmatched(tap.path, f"its result is {shapes[0]} in the file and {shapes[1]} in the model")
        )
        self._part.remove(tap)
        del self._layers[tap.path]

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
