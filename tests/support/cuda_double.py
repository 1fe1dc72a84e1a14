"""A CUDA without a GPU, strict where it matters: what the real bindings refuse, and what a real device would do wrong.

The functions of ``cuda.bindings`` themselves are called first. Without a driver they convert their arguments, which
raises for a wrong number, order or type of them, and return a status and as many values as they do with one. What they
would have done is then done in the host's memory. Streams are lazy: nothing queued happens before somebody waits, so
that a missing wait shows as a wrong result, and each copy and kernel looks at that moment whether its memory is there.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from cuda import bindings
from cuda.bindings import driver, nvrtc, runtime

_MEMORY, _DEVICE, _NOT_READY, _CAPTURED, _INVALIDATED = 2, 101, 600, 900, 901
_SUCCESS = {runtime: runtime.cudaError_t(0), driver: driver.CUresult(0), nvrtc: nvrtc.nvrtcResult(0)}


@contextlib.contextmanager
def in_place_of_cuda() -> Iterator[World]:
    """Puts a double in the place of the bindings; at the end everything must have been given back."""
    with pytest.MonkeyPatch.context() as patch:
        world = World()
        for name in ("runtime", "driver", "nvrtc"):
            patch.setattr(bindings, name, _Module(world, getattr(bindings, name)))
        yield world
        gc.collect()
        assert world.left == {}


class RefusedError(Exception):
    """A status other than success."""


class World:
    """The devices, their memory and their streams. It fails where real ones would compute garbage or crash."""

    def __init__(self, memory: int = 1 << 30) -> None:
        self.device: dict[int, Any] = {}
        self.host: dict[int, Any] = {}
        self.streams: dict[int, list[Callable[[], None]]] = {}
        self.captures: dict[int, dict[str, Any]] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.executables: dict[int, list[Callable[[], None]]] = {}
        self.events: dict[int, Any] = {}
        self._memory, self._clock = memory, itertools.count()
        self._handles, self._current, self._lock = itertools.count(0x1000, 16), threading.local(), threading.RLock()

    @property
    def left(self) -> dict[str, int]:
        """How much was made and not given back."""
        kinds = ("device", "host", "streams", "captures", "graphs", "executables", "events")
        return {kind: len(made) for kind in kinds if (made := getattr(self, kind))}

    def call(self, real: Any, name: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Calls a function of the bindings, and then does what it would do."""
        count = None
        try:
            status, *values = getattr(real, name)(*arguments)
            assert int(status) != 0, "there is a GPU"
            count = len(values)
        except RuntimeError as error:
            if type(error).__name__ != "DynamicLibNotFoundError":  # A library is missing: the arguments were taken.
                raise
        with self._lock:
            try:
                found = getattr(self, name)(*arguments)
            except RefusedError as error:
                return (runtime.cudaError_t(error.args[0]), *[None] * (count or 0))
        assert count in (None, len(found)), f"{name} returns {count} values"
        return (_SUCCESS[real], *found)

    def _new(self, kind: dict[int, Any], value: Any) -> int:
        handle = next(self._handles)
        kind[handle] = value
        return handle

    def _queue(self, stream: Any, work: Callable[[], None]) -> None:
        assert hasattr(self._current, "number"), "no device is current in this thread"
        capture = self.captures.get(int(stream))
        (self.streams[int(stream)] if capture is None else capture["work"]).append(work)

    def _unsafe(self) -> None:
        """Memory is not to be managed in a thread that captures: that ends the capture."""
        for capture in self.captures.values():
            if capture["thread"] == threading.get_ident():
                capture["lost"] = True
                raise RefusedError(_CAPTURED)

    def _drain(self, stream: int) -> None:
        work, self.streams[stream] = self.streams[stream], []
        for step in work:
            step()

    def _allocate(self, pool: dict[int, Any], size: int) -> tuple[int]:
        assert hasattr(self._current, "number"), "no device is current in this thread"
        self._unsafe()
        if size > self._memory:
            raise RefusedError(_MEMORY)
        memory = ctypes.create_string_buffer(b"\xa5" * size, size)
        pool[ctypes.addressof(memory)] = memory
        return (ctypes.addressof(memory),)

    # What follows has CUDA's names.

    def cudaGetDeviceCount(self) -> tuple[int]:  # noqa: N802
        return (2,)

    def cudaSetDevice(self, number: int) -> tuple[()]:  # noqa: N802
        if number > 1:
            raise RefusedError(_DEVICE)
        self._current.number = number
        return ()

    def cudaGetDeviceProperties(self, _: int) -> tuple[Any]:  # noqa: N802
        found = runtime.cudaDeviceProp()
        found.name, found.major, found.minor = b"A double".ljust(256, b"\0"), 9, 0
        return (found,)

    def cudaStreamCreateWithFlags(self, _: int) -> tuple[Any]:  # noqa: N802
        return (runtime.cudaStream_t(self._new(self.streams, [])),)

    def cudaStreamDestroy(self, stream: Any) -> tuple[()]:  # noqa: N802
        del self.streams[int(stream)]
        return ()

    def cudaStreamSynchronize(self, stream: Any) -> tuple[()]:  # noqa: N802
        if (capture := self.captures.get(int(stream))) is not None:
            capture["lost"] = True
            raise RefusedError(_CAPTURED)
        self._drain(int(stream))
        return ()

    def cudaStreamBeginCapture(self, stream: Any, mode: Any) -> tuple[()]:  # noqa: N802
        assert mode == runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        assert int(stream) not in self.captures
        self.captures[int(stream)] = {"work": [], "lost": False, "thread": threading.get_ident()}
        return ()

    def cudaStreamEndCapture(self, stream: Any) -> tuple[Any]:  # noqa: N802
        capture = self.captures.pop(int(stream))
        if capture["lost"]:
            raise RefusedError(_INVALIDATED)
        return (runtime.cudaGraph_t(self._new(self.graphs, capture["work"])),)

    def cudaGraphInstantiate(self, graph: Any, _: int) -> tuple[Any]:  # noqa: N802
        return (runtime.cudaGraphExec_t(self._new(self.executables, [*self.graphs[int(graph)]])),)

    def cudaGraphDestroy(self, graph: Any) -> tuple[()]:  # noqa: N802
        del self.graphs[int(graph)]
        return ()

    def cudaGraphExecDestroy(self, graph: Any) -> tuple[()]:  # noqa: N802
        del self.executables[int(graph)]
        return ()

    def cudaGraphLaunch(self, graph: Any, stream: Any) -> tuple[()]:  # noqa: N802
        for work in self.executables[int(graph)]:
            self._queue(stream, work)
        return ()

    def cudaEventCreate(self) -> tuple[Any]:  # noqa: N802
        return (runtime.cudaEvent_t(self._new(self.events, None)),)

    def cudaEventRecord(self, event: Any, stream: Any) -> tuple[()]:  # noqa: N802
        mark = int(event)
        self.events[mark] = runtime.cudaStream_t(int(stream))
        self._queue(stream, lambda: self.events.__setitem__(mark, next(self._clock)))
        return ()

    def cudaEventSynchronize(self, event: Any) -> tuple[()]:  # noqa: N802
        mark = self.events[int(event)]
        return () if isinstance(mark, int) else self.cudaStreamSynchronize(mark)

    def cudaEventElapsedTime(self, start: Any, end: Any) -> tuple[float]:  # noqa: N802
        first, last = self.events[int(start)], self.events[int(end)]
        if not isinstance(first, int) or not isinstance(last, int):
            raise RefusedError(_NOT_READY)
        return (float(last - first),)

    def cudaEventDestroy(self, event: Any) -> tuple[()]:  # noqa: N802
        del self.events[int(event)]
        return ()

    def cudaMalloc(self, size: int) -> tuple[int]:  # noqa: N802
        return self._allocate(self.device, size)

    def cudaHostAlloc(self, size: int, _: int) -> tuple[int]:  # noqa: N802
        return self._allocate(self.host, size)

    def cudaFree(self, address: int) -> tuple[()]:  # noqa: N802
        self._unsafe()
        for stream in self.streams:  # It waits for the device.
            self._drain(stream)
        if address:
            del self.device[address]
        return ()

    def cudaFreeHost(self, address: int) -> tuple[()]:  # noqa: N802
        self._unsafe()
        del self.host[address]
        return ()

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: Any, stream: Any) -> tuple[()]:  # noqa: N802
        kinds = runtime.cudaMemcpyKind
        into, out_of = {
            kinds.cudaMemcpyHostToDevice: (self.device, self.host),
            kinds.cudaMemcpyDeviceToHost: (self.host, self.device),
        }[kind]

        def copy() -> None:
            assert size <= min(len(into[target]), len(out_of[source]))
            ctypes.memmove(target, source, size)

        self._queue(stream, copy)
        return ()

    def cuModuleLoadData(self, _: Any) -> tuple[Any]:  # noqa: N802
        return (driver.CUmodule(next(self._handles)),)

    def cuModuleGetFunction(self, _: Any, __: bytes) -> tuple[Any]:  # noqa: N802
        return (driver.CUfunction(next(self._handles)),)

    def cuLaunchKernel(self, *arguments: Any) -> tuple[()]:  # noqa: N802
        """The one kernel of ``test_execution_on_gpu.py``: twice what lies one to the left."""
        blocks, threads, stream, parameters = (arguments[place] for place in (1, 4, 8, 9))
        places = (ctypes.c_uint64 * 3).from_address(parameters)
        source, target = (ctypes.c_uint64.from_address(place).value for place in places[:2])
        size = ctypes.c_int32.from_address(places[2]).value
        assert 0 < size <= blocks * threads

        def compute() -> None:
            x, y = (np.frombuffer(self.device[place], np.float32, size) for place in (source, target))
            y[:] = 2 * np.concatenate([x[:1], x[:-1]])

        self._queue(stream, compute)
        return ()

    def nvrtcCreateProgram(self, *_: Any) -> tuple[Any]:  # noqa: N802
        return (nvrtc.nvrtcProgram(next(self._handles)),)

    def nvrtcCompileProgram(self, *_: Any) -> tuple[()]:  # noqa: N802
        return ()

    def nvrtcGetCUBINSize(self, _: Any) -> tuple[int]:  # noqa: N802
        return (64,)

    def nvrtcGetCUBIN(self, _: Any, code: bytes) -> tuple[()]:  # noqa: N802
        assert len(code) == 64
        return ()


class _Module:
    def __init__(self, world: World, real: Any) -> None:
        self._world, self._real = world, real

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if isinstance(real, (type, int)) or name in ("cudaGetErrorName", "cudaGetErrorString"):
            return real
        return lambda *arguments: self._world.call(self._real, name, arguments)
