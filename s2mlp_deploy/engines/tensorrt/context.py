"""An execution context of TensorRT as :mod:`~s2mlp_deploy.engines.execution` drives it. It has never run on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from s2mlp_deploy.engines.gpu_protocols import Shape
from s2mlp_deploy.errors import BuildError


class TensorRTContext:
    """An ``IExecutionContext``; see :class:`~s2mlp_deploy.engines.gpu_protocols.Context`.

    Args:
        trt: The library.
        context: The library's own.
        outputs: Names of the outputs.
        logger: Where the library says why it refuses.
        where: The engine, for messages.
    """

    def __init__(self, trt: Any, context: Any, outputs: tuple[str, ...], logger: Any, where: str) -> None:
        self._trt, self._context, self._logger = trt, context, logger
        self._outputs, self._where = outputs, where
        self._profile = 0
        self._allocators: dict[str, Any] = {}

    def set_shapes(self, profile: int, shapes: Mapping[str, Shape], stream: int) -> Mapping[str, Shape | None]:
        """See :class:`~s2mlp_deploy.engines.gpu_protocols.Context`."""
        self._logger.begin()
        if profile != self._profile:
            if not self._context.set_optimization_profile_async(profile, stream):
                raise self._refused(f"the engine has no profile {profile}")
            self._profile = profile
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise self._refused(f"the engine refuses the shape {shape} of {name}")
        found = {name: tuple(self._context.get_tensor_shape(name)) for name in self._outputs}
        return {name: None if min(shape, default=0) < 0 else shape for name, shape in found.items()}

    def bind(self, name: str, address: int) -> None:
        """See :class:`~s2mlp_deploy.engines.gpu_protocols.Context`."""
        if not self._context.set_tensor_address(name, address):
            raise self._refused(f"the engine does not take the address of {name}")

    def bind_allocator(self, name: str, allocate: Callable[[int], int]) -> None:
        """See :class:`~s2mlp_deploy.engines.gpu_protocols.Context`."""
        if name not in self._allocators:
            # The library keeps no reference of its own.
            self._allocators[name] = output_allocator(self._trt, allocate)
        if not self._context.set_output_allocator(name, self._allocators[name]):
            raise self._refused(f"the engine does not take an allocator of {name}")

    def enqueue(self, stream: int) -> None:
        """See :class:`~s2mlp_deploy.engines.gpu_protocols.Context`."""
        self._logger.begin()
        done = self._context.execute_async_v3(stream)
        for allocator in self._allocators.values():
            if allocator.error is not None:
                error, allocator.error = allocator.error, None
                raise error
        if not done:
            raise self._refused("the engine did not run")

    def shape_of(self, name: str) -> Shape:
        """See :class:`~s2mlp_deploy.engines.gpu_protocols.Context`."""
        allocator = self._allocators.get(name)
        return tuple(self._context.get_tensor_shape(name)) if allocator is None else allocator.shape

    def close(self) -> None:
        """See :class:`~s2mlp_deploy.engines.gpu_protocols.Context`."""
        # The bindings have no way to end a context but its last reference.
        self._context = None
        self._allocators.clear()

    def _refused(self, problem: str) -> BuildError:
        return BuildError(f"{problem}: {self._logger.reason()}", where=self._where)


def output_allocator(trt: Any, allocate: Callable[[int], int]) -> Any:
    """An ``IOutputAllocator``: makes room for an output while it is computed, and keeps its shape.

    Args:
        trt: The library.
        allocate: Bytes in, address out.
    """
    base: Any = trt.IOutputAllocator

    class OutputAllocator(base):  # type: ignore[misc]
        """Called by the library, through C++ that no exception may pass: an address of 0 refuses, the rest is kept."""

        def __init__(self) -> None:
            super().__init__()
            self.shape: Shape = ()
            self.error: BaseException | None = None

        def reallocate_output_async(self, tensor_name: str, memory: int, size: int, alignment: int, stream: int) -> int:
            """Makes room."""
            del stream
            return self.reallocate_output(tensor_name, memory, size, alignment)

        def reallocate_output(self, tensor_name: str, memory: int, size: int, alignment: int) -> int:
            """Makes room. What CUDA allocates is aligned to more than any tensor needs."""
            del tensor_name, memory, alignment
            try:
                return allocate(size)
            except BaseException as error:
                self.error = error
                return 0

        def notify_shape(self, tensor_name: str, shape: Any) -> None:
            """Keeps the shape."""
            del tensor_name
            self.shape = tuple(shape)

    return OutputAllocator()
