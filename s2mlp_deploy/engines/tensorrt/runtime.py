"""Running engine files on a GPU. Written against the documented API without one: it has never run on a GPU.

What is done in which order is decided in :mod:`~s2mlp_deploy.engines.execution`, which is tested without a GPU.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.artifact import METADATA_KEY, SizeLimit, TensorInfo, check_sizes
from s2mlp_deploy.engines import cuda
from s2mlp_deploy.engines.base import Arrays
from s2mlp_deploy.engines.execution import Execution
from s2mlp_deploy.engines.gpu_protocols import Stream
from s2mlp_deploy.engines.profiles import check_shapes
from s2mlp_deploy.engines.record import build_again, check_runs_here, gpu_warning, read_engine
from s2mlp_deploy.engines.tensorrt import library
from s2mlp_deploy.engines.tensorrt.context import TensorRTContext
from s2mlp_deploy.engines.tensorrt.flavours import flavour
from s2mlp_deploy.engines.tensorrt.refit import refit, weights_for
from s2mlp_deploy.engines.tensorrt.runtime_cache import RuntimeCache
from s2mlp_deploy.errors import BuildError, InputError
from s2mlp_deploy.evidence.build import BuildRecord

_LOG = logging.getLogger(__name__)

KernelSpecialization = Literal["lazy", "eager", "none"]
"""When TensorRT-RTX compiles kernels for the shapes of a run: beside the first runs, before them, or never."""


class TensorRTEngine:
    """Runs an engine file of TensorRT 10, TensorRT 11 or TensorRT-RTX. Close it, or use it in a ``with`` block.

    The third run of the same shapes replays a CUDA graph: TensorRT-RTX captures it itself, for TensorRT
    :class:`~s2mlp_deploy.engines.execution.Execution` does. Several threads may call it, and take turns.

    Args:
        path: The engine; its sidecar must lie beside it.
        device: CUDA's ordinal of the GPU: it counts those of ``CUDA_VISIBLE_DEVICES``.
        cuda_graph: Whether launches are replayed as a graph.
        weights: An ONNX file to take the weights from, of an engine that was built with ``--refit`` or
            ``--strip-plan``. Default: for one without weights the graph that it was built from, beside it.
        kernels: When TensorRT-RTX compiles kernels for the shapes of a run. They are kept beside the engine.

    Raises:
        ArtifactError: The engine was changed, has no sidecar, or was built for another version, platform or GPU; the
            message has the command that builds it again. Or it has no weights, and its graph is not there.
        InputError: Weights were given, and the engine takes none; or it takes or gives a type that NumPy has not.
        MissingDependencyError: The library or cuda-python is not installed.
        TargetError: There is no such GPU.
        BuildError: The library cannot load the engine.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: int = 0,
        cuda_graph: bool = True,
        weights: Path | None = None,
        kernels: KernelSpecialization = "lazy",
    ) -> None:
        self.record: BuildRecord = read_engine(path)
        wanted = flavour(self.record.flavour)
        # What can be known without a GPU is said first.
        check_runs_here(path, self.record, version=library.version_here(wanted), capability=None)
        source = weights_for(path, self.record, weights)
        for info in (*self.inputs, *self.outputs):
            _dtype_of(info)
        trt = library.load(wanted)
        here = cuda.use_device(device)
        check_runs_here(path, self.record, version=str(trt.__version__), capability=here.capability)
        if warning := gpu_warning(self.record, here.name):
            _LOG.warning("%s", warning)
        self._logger = library.logger_of(trt)
        self._logger.begin()
        with library.starting(wanted.title, self._logger):
            self._runtime = trt.Runtime(self._logger)
        # A version-compatible engine holds a runtime of its own, which is code. The hash in its sidecar was compared.
        self._runtime.engine_host_code_allowed = bool(self.record.flags.get("version_compatible"))
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise BuildError(
                f"{wanted.title} cannot load the engine: {self._logger.reason()}",
                where=str(path),
                fix=build_again(path, self.record),
            )
        if source is not None:
            refit(trt, self._engine, self._logger, source, engine_file=path)
        self._cache: RuntimeCache | None = None
        runtime_config = None
        if wanted.own_cuda_graphs:
            runtime_config = self._engine.create_runtime_config()
            strategy = "WHOLE_GRAPH_CAPTURE" if cuda_graph else "DISABLED"
            runtime_config.cuda_graph_strategy = getattr(trt.CudaGraphStrategy, strategy)
            specialization = getattr(trt.DynamicShapesKernelSpecializationStrategy, kernels.upper())
            runtime_config.dynamic_shapes_kernel_specialization_strategy = specialization
            self._cache = RuntimeCache(runtime_config, path)
        engine, logger, names = self._engine, self._logger, tuple(info.name for info in self.outputs)
        given = () if runtime_config is None else (runtime_config,)

        # It may not refer to this object: what is forgotten is to be closed at once, not by the garbage collector.
        def make_context() -> TensorRTContext:
            context = engine.create_execution_context(*given)
            if context is None:
                raise BuildError(f"the engine has no context: {logger.reason()}", where=str(path))
            return TensorRTContext(trt, context, names, logger, path.name)

        self._execution = Execution(
            make_context,
            here,
            tuple(info.name for info in self.inputs),
            {info.name: _dtype_of(info) for info in self.outputs},
            capture=cuda_graph and not wanted.own_cuda_graphs,
        )
        self.name = f"{self.record.flavour} {trt.__version__} ({here.capability})"

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """See :class:`~s2mlp_deploy.engines.base.Engine`."""
        return self.record.inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """See :class:`~s2mlp_deploy.engines.base.Engine`."""
        return self.record.outputs

    @property
    def limits(self) -> tuple[SizeLimit, ...]:
        """What free sizes of the inputs may be."""
        return self.record.limits

    @property
    def metadata(self) -> dict[str, str]:
        """What the sidecar keeps of the ONNX file's metadata entry."""
        kept = {"precision": self.record.precision, "preprocessing_in_graph": self.record.preprocessing_in_graph}
        return {METADATA_KEY: msgspec.json.encode(kept).decode()}

    @property
    def stream(self) -> Stream:
        """Where :meth:`launch` queues its work."""
        return self._execution.stream

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """See :class:`~s2mlp_deploy.engines.base.Engine`.

        Raises:
            InputError: A shape is outside the profiles or the graph's limits, a dtype is another than the engine's, or
                the engine is closed.
            BuildError: The library refuses to run.
        """
        return self._execution.run(*self._checked(feeds))

    def upload(self, feeds: Mapping[str, NDArray[Any]]) -> None:
        """Settles all shapes and queues the copies of the inputs to the device.

        Raises:
            InputError: As :meth:`run`.
            BuildError: The library refuses the shapes.
        """
        self._execution.upload(*self._checked(feeds))

    def launch(self) -> None:
        """Queues one run over what was uploaded; returns before it is done.

        Raises:
            BuildError: The library refuses to run.
        """
        self._execution.launch()

    def download(self) -> Arrays:
        """The outputs of the last launch, in new arrays."""
        return self._execution.download()

    def close(self) -> None:
        """Gives the GPU's memory back, and keeps the kernels that were compiled; a second call does nothing."""
        self._execution.close()
        if self._cache is not None:
            self._cache.save()
        # In this order: each refers to what comes after it.
        self._cache = self._engine = self._runtime = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # At interpreter exit the library may be gone already, and an engine that was refused has nothing to close.
        with contextlib.suppress(Exception):
            self.close()

    def _checked(self, feeds: Mapping[str, NDArray[Any]]) -> tuple[int, dict[str, NDArray[Any]]]:
        """The profile and the arrays in the order of the inputs."""
        arrays = {info.name: _fitting(info, feeds) for info in self.inputs}
        shapes = {name: array.shape for name, array in arrays.items()}
        check_sizes(self.record.limits, shapes)
        return check_shapes(self.record.profiles, shapes), arrays


def _fitting(info: TensorInfo, feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    array = feeds.get(info.name)
    if array is None or array.dtype != np.dtype(info.dtype):
        given = "nothing" if array is None else str(array.dtype)
        raise InputError(f"the input {info.name} is {given}", fix=f"the engine takes {info.dtype} {list(info.shape)}")
    return np.asarray(array, order="C")  # Not ascontiguousarray, which gives a number without axes one.


def _dtype_of(info: TensorInfo) -> np.dtype[Any]:
    try:
        return np.dtype(info.dtype)
    except TypeError:
        raise InputError(
            f"{info.name} of the engine is {info.dtype}, which NumPy has not",
            fix="write the graph with inputs and outputs of float32 or float16, and build that",
        ) from None


def open_built(path: Path, *, threads: int, **options: Any) -> TensorRTEngine:  # noqa: ARG001 - A GPU has none.
    """The registry's way to open an engine file; see :class:`TensorRTEngine`."""
    return TensorRTEngine(path, **options)
