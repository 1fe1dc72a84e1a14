"""A device and a network that compute on the CPU and note every call in one list, in order.

The network doubles its input ``x`` into ``y``. Work is done when it is queued; what is queued during a capture is kept
and done when the graph is launched, at the addresses that were bound then, as on a GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.errors import BuildError, TargetError

Shape = tuple[int, ...]


class Gpu:
    """The device. ``calls`` is what happened; ``alive`` what has not been given back."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.memory: dict[int, NDArray[np.uint8]] = {}
        self.alive: set[str] = set()
        self.capturing: list[Callable[[], None]] | None = None
        self.capture_fails = False
        self.launch_fails = False
        self._numbers: dict[str, int] = {}

    def note(self, call: str) -> None:
        self.calls.append(call)

    def name(self, kind: str) -> str:
        self._numbers[kind] = self._numbers.get(kind, 0) + 1
        name = f"{kind}{self._numbers[kind]}"
        self.alive.add(name)
        return name

    def do(self, work: Callable[[], None]) -> None:
        if self.capturing is not None:
            self.capturing.append(work)
        else:
            work()

    def make_current(self) -> None:
        self.note("current")

    def make_stream(self) -> Stream:
        return Stream(self)

    def make_buffer(self) -> Buffer:
        return Buffer(self)

    def make_staging(self) -> Staging:
        return Staging(self)

    def take(self) -> list[str]:
        """What happened since, without the calls that stand before all others."""
        calls = [call for call in self.calls if call != "current"]
        self.calls.clear()
        return calls


class Stream:
    handle = 7

    def __init__(self, gpu: Gpu) -> None:
        self._gpu, self._name = gpu, gpu.name("stream")

    def wait(self) -> None:
        self._gpu.note("wait")

    @contextlib.contextmanager
    def capture(self) -> Iterator[Graph]:
        self._gpu.note("begin capture")
        self._gpu.capturing = []
        graph = Graph(self._gpu)
        try:
            yield graph
        except BaseException:
            graph.close()
            raise
        finally:
            work, self._gpu.capturing = self._gpu.capturing, None
            self._gpu.note("end capture")
        if self._gpu.capture_fails:
            graph.close()
            raise TargetError("CUDA: operation not permitted when stream is capturing")
        graph.work = work or []

    def close(self) -> None:
        self._gpu.alive.discard(self._name)


class Graph:
    def __init__(self, gpu: Gpu) -> None:
        self._gpu, self.name = gpu, gpu.name("graph")
        self.work: list[Callable[[], None]] = []

    def launch(self, _: Stream) -> None:
        self._gpu.note(f"launch {self.name}")
        for work in self.work:
            work()

    def close(self) -> None:
        if self.name in self._gpu.alive:
            self._gpu.note(f"close {self.name}")
        self._gpu.alive.discard(self.name)


class Buffer:
    _next = 1000

    def __init__(self, gpu: Gpu) -> None:
        self._gpu, self._name = gpu, gpu.name("buffer")
        self.address, self.size = 0, 0

    def reserve(self, size: int) -> bool:
        if size <= self.size:
            return False
        self._gpu.memory.pop(self.address, None)  # Whoever still uses the old address finds nothing there.
        Buffer._next += 1000
        self.address, self.size = Buffer._next, size
        self._gpu.memory[self.address] = np.zeros(size, np.uint8)
        self._gpu.note(f"reserve {size}")
        return True

    def fill_from(self, staging: Staging, size: int, _: Stream) -> None:
        self._gpu.note(f"in {size}")
        self._gpu.memory[self.address][:size] = staging.bytes[:size]

    def copy_to(self, staging: Staging, size: int, _: Stream) -> None:
        self._gpu.note(f"out {size}")
        staging.bytes[:size] = self._gpu.memory[self.address][:size]

    def close(self) -> None:
        self._gpu.memory.pop(self.address, None)
        self._gpu.alive.discard(self._name)


class Staging:
    def __init__(self, gpu: Gpu) -> None:
        self._gpu, self._name = gpu, gpu.name("staging")
        self.bytes = np.zeros(0, np.uint8)

    def reserve(self, size: int) -> None:
        if size > self.bytes.size:
            self.bytes = np.zeros(size, np.uint8)

    def write(self, array: NDArray[Any]) -> None:
        self.bytes[: array.nbytes] = np.ascontiguousarray(array).view(np.uint8).reshape(-1)

    def view(self, shape: Shape, dtype: np.dtype[Any]) -> NDArray[Any]:
        size = int(np.prod(shape)) * dtype.itemsize
        return self.bytes[:size].view(dtype).reshape(shape)

    def close(self) -> None:
        self._gpu.alive.discard(self._name)


class Doubling:
    """A context. With ``unknown`` the shape of its output is known only while it runs."""

    def __init__(self, gpu: Gpu, *, unknown: bool = False) -> None:
        self._gpu, self.name, self._unknown = gpu, gpu.name("context"), unknown
        self._shape: Shape = ()
        self._bound: dict[str, int] = {}
        self._allocate: Callable[[int], int] | None = None
        gpu.note(f"make {self.name}")

    def set_shapes(self, profile: int, shapes: Mapping[str, Shape], _: int) -> Mapping[str, Shape | None]:
        self._gpu.note(f"{self.name} profile {profile} shape {'x'.join(map(str, shapes['x']))}")
        if shapes["x"][0] == 13:
            raise BuildError("the engine refuses the shape")
        self._shape = shapes["x"]
        return {"y": None if self._unknown else self._shape}

    def bind(self, name: str, address: int) -> None:
        self._bound[name] = address

    def bind_allocator(self, _: str, allocate: Callable[[int], int]) -> None:
        self._allocate = allocate

    def enqueue(self, _: int) -> None:
        self._gpu.note(f"{self.name} enqueue")
        if self._gpu.launch_fails:
            raise BuildError("the engine did not run")
        size = int(np.prod(self._shape)) * 4
        if self._allocate is not None:
            self._bound["y"] = self._allocate(size)
        memory, x, y = self._gpu.memory, self._bound["x"], self._bound["y"]

        def work() -> None:
            memory[y][:size].view(np.float32)[:] = 2 * memory[x][:size].view(np.float32)

        self._gpu.do(work)

    def shape_of(self, _: str) -> Shape:
        return self._shape

    def close(self) -> None:
        self._gpu.note(f"close {self.name}")
        self._gpu.alive.discard(self.name)
