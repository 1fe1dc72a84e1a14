"""A stand-in for TensorRT as a runtime: notes every call of the library in one list. Computes nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class Library:
    """The module. ``refuse`` names calls that answer no."""

    def __init__(self, version: str, *, refuse: tuple[str, ...] = ()) -> None:
        self.__version__, self.refuse = version, refuse
        self.calls: list[Any] = []
        self.engine = SimpleNamespace(
            create_execution_context=lambda *config: self._note("create_execution_context", *config) and Context(self),
            create_runtime_config=lambda: self.runtime_config,
        )
        self.runtime_config = SimpleNamespace(
            create_runtime_cache=lambda: self.runtime_cache,
            set_runtime_cache=lambda cache: self._note("set_runtime_cache", cache.held),
        )
        self.runtime_cache = RuntimeCache(self)
        self.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole", DISABLED="disabled")
        self.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(LAZY="lazy", EAGER="eager", NONE="none")

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    class IOutputAllocator:
        pass

    def _note(self, name: str, *arguments: Any) -> bool:
        self.calls.append((name, *arguments))
        return name not in self.refuse

    def init_libnvinfer_plugins(self, logger: Any, namespace: str) -> bool:
        del logger
        return self._note("init_libnvinfer_plugins", namespace)

    def Runtime(self, logger: Any) -> Any:  # noqa: N802 - The library's name.
        if "Runtime" in self.refuse:
            logger.log(self.ILogger.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return Runtime(self, logger)

    def Refitter(self, engine: Any, logger: Any) -> Any:  # noqa: N802
        del engine, logger
        return SimpleNamespace(
            refit_cuda_engine=lambda: self._note("refit_cuda_engine"), get_missing_weights=lambda: ["fc1.weight"]
        )

    def OnnxParserRefitter(self, refitter: Any, logger: Any) -> Any:  # noqa: N802
        del refitter, logger
        return SimpleNamespace(refit_from_file=lambda path: self._note("refit_from_file", path))


class Runtime:
    def __init__(self, library: Library, logger: Any) -> None:
        self._library, self._logger, self.engine_host_code_allowed = library, logger, False

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        if not self._library._note("deserialize_cuda_engine", len(plan), self.engine_host_code_allowed):
            self._logger.log(self._library.ILogger.ERROR, "the plan is of another version")
            return None
        return self._library.engine


class RuntimeCache:
    def __init__(self, library: Library) -> None:
        self._library, self.held = library, b""

    def deserialize(self, raw: bytes) -> bool:
        if raw == b"of another GPU":
            return False
        self.held = raw
        return True

    def serialize(self) -> bytes:
        return self.held + b"+"


class Context:
    """Its output ``output`` has the shape of its input ``input``, or one that is known only while it runs."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self.shape: tuple[int, ...] = ()

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self._library._note(name, *arguments)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return self._library._note("set_input_shape", name, shape)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, *self.shape[1:]) if name == "unknown" else self.shape
