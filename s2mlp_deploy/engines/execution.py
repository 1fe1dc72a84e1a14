"""Running a network on a GPU again and again: contexts, shapes, profiles, CUDA graphs and buffers, in the right order.

Nothing here knows TensorRT or CUDA: :mod:`~s2mlp_deploy.engines.gpu_protocols` says what runs, and on what. The rules:

- A CUDA graph belongs to one context whose profile and shapes never change again, and to the addresses of its buffers.
  So shapes that come back get a context of their own; one more context, which is never captured, runs all others.
- The first run of a context settles what a library does lazily, and is not recorded.
- What cannot be captured, or for which there is no memory for a context, is queued plainly from then on.
- Buffers grow and never shrink. Before one moves, the stream is idle and every graph is gone.
- One thread at a time, and each makes the device its own first.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.engines.gpu_protocols import Context, Device, Graph, Shape
from s2mlp_deploy.errors import InputError, S2MLPDeployError

_LOG = logging.getLogger(__name__)

Key = tuple[int, tuple[tuple[str, Shape], ...]]
"""A profile, and the shape of every input."""

_IDLE = 100
"""Launches after which the graph of shapes that did not come gives way to another: more shapes than graphs in turn
would otherwise make a context at every run."""

_REMEMBERED = 256
"""Shapes of which it is known that they came once, or that they cannot be captured."""


@dataclass
class _Lane:
    """A context with what is settled in it."""

    context: Context
    key: Key | None = None
    outputs: Mapping[str, Shape | None] = field(default_factory=dict)
    graph: Graph | None = None
    last_launch: int = 0


class Execution:
    """Runs of a network; safe to call from several threads, which take turns.

    Args:
        make_context: Makes a context; each has memory of its own on the device.
        device: What it runs on.
        inputs: Names of the inputs.
        outputs: Names of the outputs, with their types.
        capture: Whether runs of shapes that come back are recorded as CUDA graphs.
        max_graphs: How many shapes have a graph, and so a context, at a time. One that was not used for long gives way.
    """

    def __init__(
        self,
        make_context: Callable[[], Context],
        device: Device,
        inputs: tuple[str, ...],
        outputs: Mapping[str, np.dtype[Any]],
        *,
        capture: bool = True,
        max_graphs: int = 4,
    ) -> None:
        device.make_current()
        self._make_context, self._device = make_context, device
        self._outputs, self._capture, self._max_graphs = dict(outputs), capture, max_graphs
        self._lock = threading.RLock()
        self.stream = device.make_stream()
        self._buffers = {name: device.make_buffer() for name in (*inputs, *outputs)}
        self._staging = {name: device.make_staging() for name in (*inputs, *outputs)}
        self._plain = _Lane(make_context())
        self._own: OrderedDict[Key, _Lane] = OrderedDict()
        self._seen: OrderedDict[Key, bool] = OrderedDict()
        """Shapes that came before: whether they may be captured."""
        self._current = self._plain
        self._launches = 0
        self._busy = False
        self._closed = False

    def run(self, profile: int, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Computes all outputs.

        Args:
            profile: Which profile of the network takes the shapes.
            arrays: The inputs.

        Raises:
            S2MLPDeployError: A shape is refused, or the run fails.
        """
        with self._lock:
            self.upload(profile, arrays)
            self.launch()
            return self.download()

    def upload(self, profile: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Settles the shapes and queues the copies of the inputs to the device.

        Raises:
            S2MLPDeployError: A shape is refused.
        """
        with self._turn():
            self._settle()
            key = (profile, tuple((name, array.shape) for name, array in arrays.items()))
            lane = self._lane_of(key)
            sizes = {name: array.nbytes for name, array in arrays.items()}
            for name, shape in lane.outputs.items():
                sizes[name] = 0 if shape is None else _bytes(shape, self._outputs[name])
            self._reserve(sizes)
            self._busy = True
            for name, array in arrays.items():
                self._staging[name].reserve(array.nbytes)
                self._staging[name].write(array)
                self._buffers[name].fill_from(self._staging[name], array.nbytes, self.stream)
            self._current = lane

    def launch(self) -> None:
        """Queues one run over what was uploaded; returns before it is done.

        Raises:
            S2MLPDeployError: The library refuses to run.
        """
        with self._turn():
            lane = self._current
            if lane.key is None:
                raise InputError("nothing was uploaded that could be run", fix="call upload before launch")
            self._busy = True
            self._launches += 1
            lane.last_launch = self._launches
            if lane.graph is not None:
                lane.graph.launch(self.stream)
            elif not self._may_capture(lane.key, lane):
                self._enqueue(lane)
            else:
                self._record(lane.key)

    def download(self) -> dict[str, NDArray[Any]]:
        """The outputs of the last launch, in new arrays."""
        with self._turn():
            lane = self._current
            if None in lane.outputs.values():
                self._settle()
            shapes = {
                name: lane.context.shape_of(name) if shape is None else shape for name, shape in lane.outputs.items()
            }
            for name, shape in shapes.items():
                size = _bytes(shape, self._outputs[name])
                self._staging[name].reserve(size)
                self._buffers[name].copy_to(self._staging[name], size, self.stream)
            self._busy = True
            self._settle()
            return {name: self._staging[name].view(shape, self._outputs[name]).copy() for name, shape in shapes.items()}

    def close(self) -> None:
        """Gives everything back; a second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._device.make_current()
            # What is still queued uses all of it. A device that failed cannot wait, and is given back all the same.
            with contextlib.suppress(S2MLPDeployError):
                self.stream.wait()
            for lane in (*self._own.values(), self._plain):
                if lane.graph is not None:
                    lane.graph.close()
                lane.context.close()
            for buffer in self._buffers.values():
                buffer.close()
            for staging in self._staging.values():
                staging.close()
            self.stream.close()
            self._make_context = _closed

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        with self._lock:
            if self._closed:
                _closed()
            self._device.make_current()
            yield

    def _settle(self) -> None:
        """Waits for what is queued: nothing that it uses may change before."""
        if self._busy:
            self.stream.wait()
            self._busy = False

    def _lane_of(self, key: Key) -> _Lane:
        """The context that these shapes are settled in."""
        if key in self._own:
            self._own.move_to_end(key)
            return self._own[key]
        return self._set(self._plain, key)

    def _set(self, lane: _Lane, key: Key) -> _Lane:
        if lane.key != key:
            lane.key = None  # If the library refuses, nothing is settled.
            lane.outputs = lane.context.set_shapes(key[0], dict(key[1]), self.stream.handle)
            lane.key = key
        return lane

    def _reserve(self, sizes: Mapping[str, int]) -> None:
        # At least one byte: an address of 0 would be none at all.
        wanted = {name: max(size, 1) for name, size in sizes.items()}
        if any(size > self._buffers[name].size for name, size in wanted.items()):
            self._forget_graphs()
            for name, size in wanted.items():
                self._buffers[name].reserve(size)

    def _forget_graphs(self) -> None:
        """Before a buffer moves: a graph holds its old address."""
        self._settle()
        for lane in self._own.values():
            if lane.graph is not None:
                lane.graph.close()
                lane.graph = None

    def _may_capture(self, key: Key, lane: _Lane) -> bool:
        """Whether to record these shapes now: they came before, and nothing speaks against it."""
        if not self._capture or None in lane.outputs.values():
            return False
        before = self._seen.get(key)
        if before is None:
            self._remember(key, capturable=True)
        return bool(before) and (key in self._own or self._has_room())

    def _has_room(self) -> bool:
        if len(self._own) < self._max_graphs:
            return True
        oldest = next(iter(self._own.values()), None)
        return oldest is not None and self._launches - oldest.last_launch > _IDLE

    def _remember(self, key: Key, *, capturable: bool) -> None:
        self._seen[key] = capturable
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)

    def _enqueue(self, lane: _Lane) -> None:
        for name, buffer in self._buffers.items():
            if lane.outputs.get(name, ()) is None:
                lane.context.bind_allocator(name, functools.partial(self._allocate, name))
            else:
                lane.context.bind(name, buffer.address)
        lane.context.enqueue(self.stream.handle)

    def _allocate(self, name: str, size: int) -> int:
        buffer = self._buffers[name]
        if max(size, 1) > buffer.size:
            self._busy = True
            self._forget_graphs()
            self._busy = True
            buffer.reserve(max(size, 1))
        return buffer.address

    def _record(self, key: Key) -> None:
        """Runs once, then records a run in a context of its own."""
        try:
            lane = self._own.get(key) or self._add_lane(key)
            self._enqueue(lane)
        except S2MLPDeployError as error:
            # Memory for one more context may be short where the one that is there runs.
            self._to_plain(key)
            self._busy = True
            self._enqueue(self._plain)
            self._give_up(key, error)
            return
        self._settle()
        try:
            with self.stream.capture() as graph:
                self._enqueue(lane)
        except S2MLPDeployError as error:
            self._give_up(key, error)
            self._to_plain(key)
            return
        lane.graph, lane.last_launch = graph, self._launches
        self._current = lane

    def _give_up(self, key: Key, error: S2MLPDeployError) -> None:
        _LOG.warning("the run cannot be captured as a CUDA graph, and is queued plainly: %s", error.problem)
        self._remember(key, capturable=False)

    def _to_plain(self, key: Key) -> None:
        """Shapes go back to the context for all others: the state of their own after a failure is anybody's guess."""
        self._settle()
        if (lane := self._own.pop(key, None)) is not None:
            lane.context.close()
        self._current = self._set(self._plain, key)

    def _add_lane(self, key: Key) -> _Lane:
        while len(self._own) >= self._max_graphs:
            self._settle()
            _, oldest = self._own.popitem(last=False)
            if oldest.graph is not None:
                oldest.graph.close()
            oldest.context.close()
        lane = _Lane(self._make_context())
        try:
            self._set(lane, key)
        except BaseException:
            lane.context.close()
            raise
        self._own[key] = lane
        return lane


def _closed() -> NoReturn:
    raise InputError("the engine is closed", fix="open it again")


def _bytes(shape: Shape, dtype: np.dtype[Any]) -> int:
    return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
