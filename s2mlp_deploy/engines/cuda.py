"""Device memory, streams, events and CUDA graphs through NVIDIA's own bindings, ``cuda-python``; no torch.

This layer knows nothing of TensorRT, so that it can be tested on any NVIDIA GPU. It was written without one: it has
never run on a GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.engines import gpu_protocols
from s2mlp_deploy.errors import MissingDependencyError, TargetError
from s2mlp_deploy.gpu import cuda_version

_OLD_DRIVER, _NO_DEVICE = 35, 100
"""CUDA's statuses where there is no driver or one of an older CUDA, and where a driver finds no GPU."""


def runtime() -> Any:
    """The module ``cuda.bindings.runtime``.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        from cuda.bindings import runtime as cudart
    except ImportError:
        raise MissingDependencyError("cuda-bindings", extra="cuda", purpose="running on a GPU") from None
    return cudart


def call(function: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
    """Calls a function of the CUDA runtime, which returns its status first.

    Returns:
        The rest of what it returns: nothing, one value or a tuple.

    Raises:
        TargetError: The status is an error; names it in CUDA's words.
    """
    status, *values = function(*arguments)
    if int(status) != 0:
        raise TargetError(_words_of(status), fix="`s2mlp-deploy doctor` shows GPU and driver")
    return values[0] if len(values) == 1 else tuple(values) or None


def _words_of(status: Any) -> str:
    cudart = runtime()
    (_, name), (_, text) = cudart.cudaGetErrorName(status), cudart.cudaGetErrorString(status)
    return f"CUDA: {_decoded(text)} ({_decoded(name)})"


def _decoded(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


@dataclass(frozen=True)
class Device:
    """A GPU as CUDA counts them: in an order of its own, and only those of ``CUDA_VISIBLE_DEVICES``.

    Attributes:
        ordinal: CUDA's number for it in this process.
        name: As the driver calls it.
        capability: Compute capability, as ``sm89``.
        uuid: As ``nvidia-smi -L`` shows it: the one name that is the same everywhere.
    """

    ordinal: int
    name: str
    capability: str
    uuid: str

    def make_current(self) -> None:
        """Makes it the device of this thread; see :class:`~s2mlp_deploy.engines.gpu_protocols.Device`."""
        set_current(self.ordinal)

    def make_stream(self) -> Stream:
        """A stream on it."""
        return Stream()

    def make_buffer(self) -> Buffer:
        """An empty buffer on it."""
        return Buffer()

    def make_staging(self) -> PinnedBuffer:
        """An empty buffer of the host."""
        return PinnedBuffer()


def use_device(number: int) -> Device:
    """Makes a GPU the current one of this thread.

    Args:
        number: CUDA's ordinal.

    Raises:
        MissingDependencyError: CUDA's bindings are not installed.
        TargetError: There is no GPU, none of that number, or none that CUDA can use; says why.
    """
    cudart = runtime()
    status, count = cudart.cudaGetDeviceCount()
    if int(status) not in (0, _NO_DEVICE) and (driver := cuda_version()) is not None:
        # With a driver here it is not for want of a GPU. Without one CUDA calls it too old as well.
        raise TargetError(
            f"no GPU can be used: {_words_of(status)}; the driver here is for CUDA {driver}",
            fix=f"update the driver, or pip install 'cuda-bindings=={driver.partition('.')[0]}.*'"
            if int(status) == _OLD_DRIVER
            else "`nvidia-smi` shows what the driver says of the GPU",
        )
    if int(status) != 0 or not count:
        raise TargetError(
            "running an engine needs an NVIDIA GPU, and there is none here",
            fix="run on the machine that the engine was built for, or use the onnxruntime engine",
        )
    if not 0 <= number < count:
        raise TargetError(
            f"there is no GPU {number}",
            fix=f"choose 0 to {count - 1}; CUDA counts the GPUs of CUDA_VISIBLE_DEVICES alone, by their speed",
        )
    set_current(number)
    found = call(cudart.cudaGetDeviceProperties, number)
    return Device(number, _decoded(found.name), f"sm{found.major}{found.minor}", _uuid(found.uuid.bytes))


def set_current(number: int) -> None:
    """Makes a GPU the current one of this thread: every thread has its own.

    Raises:
        TargetError: CUDA refuses.
    """
    call(runtime().cudaSetDevice, number)


def _uuid(raw: bytes) -> str:
    return f"GPU-{uuid.UUID(bytes=bytes(raw))}"


class _Owned:
    """Something that CUDA made and that must be given back once."""

    _handle: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # At interpreter exit CUDA may be gone already.
        with contextlib.suppress(Exception):
            self.close()

    def close(self) -> None:
        """Gives it back; a second call does nothing."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._destroy(handle)

    def _destroy(self, handle: Any) -> None:
        raise NotImplementedError


class Stream(_Owned):
    """A queue of work that does not wait for the default stream."""

    def __init__(self) -> None:
        self._cuda = runtime()
        self._handle = call(self._cuda.cudaStreamCreateWithFlags, self._cuda.cudaStreamNonBlocking)

    @property
    def handle(self) -> int:
        """``cudaStream_t`` as a number, as TensorRT takes it."""
        return int(self._handle)

    def wait(self) -> None:
        """Until everything queued is done."""
        call(self._cuda.cudaStreamSynchronize, self._handle)

    @contextlib.contextmanager
    def capture(self) -> Iterator[Graph]:
        """Records what the block queues into a graph instead of running it.

        Raises:
            TargetError: Something was queued that cannot be recorded. The stream takes other work again.
        """
        graph = Graph()
        call(
            self._cuda.cudaStreamBeginCapture,
            self._handle,
            self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal,
        )
        try:
            yield graph
        except BaseException:
            # Must end in any case: a stream that is left capturing takes no other work.
            status, recorded = self._cuda.cudaStreamEndCapture(self._handle)
            if int(status) == 0:
                self._cuda.cudaGraphDestroy(recorded)
            raise
        graph.instantiate(call(self._cuda.cudaStreamEndCapture, self._handle))

    def _destroy(self, handle: Any) -> None:
        call(self._cuda.cudaStreamDestroy, handle)


class Graph(_Owned):
    """A recorded sequence of launches that is replayed with one call."""

    def __init__(self) -> None:
        self._cuda = runtime()

    def instantiate(self, recorded: Any) -> None:
        """Makes the recording executable."""
        try:
            self._handle = call(self._cuda.cudaGraphInstantiate, recorded, 0)
        finally:
            call(self._cuda.cudaGraphDestroy, recorded)

    def launch(self, stream: Stream) -> None:
        """Queues the whole sequence."""
        call(self._cuda.cudaGraphLaunch, self._handle, stream.handle)

    def _destroy(self, handle: Any) -> None:
        call(self._cuda.cudaGraphExecDestroy, handle)


class Event(_Owned):
    """A mark in a stream, for timing."""

    def __init__(self) -> None:
        self._cuda = runtime()
        self._handle = call(self._cuda.cudaEventCreate)

    def record(self, stream: gpu_protocols.Stream) -> None:
        """Puts the mark behind what is queued."""
        call(self._cuda.cudaEventRecord, self._handle, stream.handle)

    def wait(self) -> None:
        """Until the mark is reached."""
        call(self._cuda.cudaEventSynchronize, self._handle)

    def milliseconds_since(self, start: Event) -> float:
        """GPU time between two marks that were both reached."""
        return float(call(self._cuda.cudaEventElapsedTime, start._handle, self._handle))

    def _destroy(self, handle: Any) -> None:
        call(self._cuda.cudaEventDestroy, handle)


class Buffer(_Owned):
    """Device memory that grows when it must and never shrinks, so that addresses stay while sizes do."""

    def __init__(self, size: int = 0) -> None:
        self._cuda = runtime()
        self.size = 0
        if size:
            self.reserve(size)

    @property
    def address(self) -> int:
        """On the device; 0 while nothing is reserved."""
        return int(self._handle or 0)

    def reserve(self, size: int) -> bool:
        """Makes room for so many bytes; what was in it may be lost.

        Returns:
            Whether the address changed.
        """
        if size <= self.size:
            return False
        self.close()
        self.size = 0
        self._handle = call(self._cuda.cudaMalloc, size)
        self.size = size
        return True

    def fill_from(self, staging: PinnedBuffer, size: int, stream: Stream) -> None:
        """Queues a copy of so many bytes from the host, which the staging buffer must not change until it is done."""
        self._copy(self.address, staging.address, size, "cudaMemcpyHostToDevice", stream)

    def copy_to(self, staging: PinnedBuffer, size: int, stream: Stream) -> None:
        """Queues a copy of so many bytes to the host."""
        self._copy(staging.address, self.address, size, "cudaMemcpyDeviceToHost", stream)

    def _copy(self, target: int, source: int, size: int, kind: str, stream: Stream) -> None:
        if size:
            kinds = self._cuda.cudaMemcpyKind
            call(self._cuda.cudaMemcpyAsync, target, source, size, getattr(kinds, kind), stream.handle)

    def _destroy(self, handle: Any) -> None:
        call(self._cuda.cudaFree, handle)


class PinnedBuffer(_Owned):
    """Memory of the host that stays in its place: copies between it and the device run beside the processor's work.

    From any other memory a copy waits for the driver to bring it into such a place first.
    """

    def __init__(self) -> None:
        self._cuda = runtime()
        self.size = 0

    @property
    def address(self) -> int:
        """0 while nothing is reserved."""
        return int(self._handle or 0)

    def reserve(self, size: int) -> None:
        """Makes room for so many bytes; what was in it may be lost. No copy may be under way."""
        if size > self.size:
            self.close()
            self.size = 0
            self._handle = call(self._cuda.cudaHostAlloc, size, self._cuda.cudaHostAllocDefault)
            self.size = size

    def write(self, array: NDArray[Any]) -> None:
        """Copies an array into it, which must have room."""
        if array.nbytes:
            view = self.view(array.shape, array.dtype)
            np.copyto(view, array)

    def view(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """What it holds, as an array that lives no longer than it."""
        count = int(np.prod(shape, dtype=np.int64))
        if not count:
            return np.empty(shape, dtype)
        raw = (ctypes.c_byte * (count * dtype.itemsize)).from_address(self.address)
        return np.ctypeslib.as_array(raw).view(dtype).reshape(shape)

    def _destroy(self, handle: Any) -> None:
        call(self._cuda.cudaFreeHost, handle)
