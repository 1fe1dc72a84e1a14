"""What :mod:`~s2mlp_deploy.engines.execution` runs, and on what: a network's context and a device, by what they can do.

TensorRT and CUDA are one pair of them; tests have others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]


class Graph(Protocol):
    """Recorded launches."""

    def launch(self, stream: Any) -> None:
        """Queues them."""
        ...

    def close(self) -> None:
        """Gives it back."""
        ...


class Stream(Protocol):
    """A queue of work."""

    @property
    def handle(self) -> int:
        """As libraries take it."""
        ...

    def wait(self) -> None:
        """Until everything queued is done."""
        ...

    def capture(self) -> contextlib.AbstractContextManager[Graph]:
        """Records what the block queues."""
        ...

    def close(self) -> None:
        """Gives it back."""
        ...


class Staging(Protocol):
    """Memory of the host that a device copies from and to by itself."""

    def reserve(self, size: int) -> None:
        """Makes room for so many bytes."""
        ...

    def write(self, array: NDArray[Any]) -> None:
        """Copies an array into it."""
        ...

    def view(self, shape: Shape, dtype: np.dtype[Any]) -> NDArray[Any]:
        """What it holds."""
        ...

    def close(self) -> None:
        """Gives it back."""
        ...


class Buffer(Protocol):
    """Memory of the device."""

    @property
    def address(self) -> int:
        """Where it is."""
        ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    def reserve(self, size: int) -> bool:
        """Makes room for so many bytes; whether it moved."""
        ...

    def fill_from(self, staging: Any, size: int, stream: Any) -> None:
        """Queues a copy from the host."""
        ...

    def copy_to(self, staging: Any, size: int, stream: Any) -> None:
        """Queues a copy to the host."""
        ...

    def close(self) -> None:
        """Gives it back."""
        ...


class Device(Protocol):
    """What it runs on."""

    def make_current(self) -> None:
        """Makes it the device of this thread."""
        ...

    def make_stream(self) -> Stream:
        """A stream."""
        ...

    def make_buffer(self) -> Buffer:
        """An empty buffer."""
        ...

    def make_staging(self) -> Staging:
        """An empty place on the host."""
        ...


class Context(Protocol):
    """What runs: a network with one profile and one set of shapes at a time."""

    def set_shapes(self, profile: int, shapes: Mapping[str, Shape], stream: int) -> Mapping[str, Shape | None]:
        """Settles profile and shapes.

        Returns:
            The shape of every output; None where it depends on values.
        """
        ...

    def bind(self, name: str, address: int) -> None:
        """Says where an input or output lies."""
        ...

    def bind_allocator(self, name: str, allocate: Callable[[int], int]) -> None:
        """Says who makes room for an output whose size is known only while it runs: bytes in, address out."""
        ...

    def enqueue(self, stream: int) -> None:
        """Queues one run.

        Raises:
            S2MLPDeployError: The library refuses.
        """
        ...

    def shape_of(self, name: str) -> Shape:
        """The shape of an output after a run."""
        ...

    def close(self) -> None:
        """Gives it back."""
        ...
