"""Running engine files on a GPU. Written against the documented API without one: it has never run on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.artifact import METADATA_KEY, SizeLimit, TensorInfo, check_sizes
from s2mlp_deploy.engines import cuda
from s2mlp_deploy.engines.base import Arrays
from s2mlp_deploy.engines.profiles import check_shapes
from s2mlp_deploy.engines.record import build_again, check_runs_here, read_engine
from s2mlp_deploy.engines.tensorrt import library
from s2mlp_deploy.engines.tensorrt.flavours import flavour
from s2mlp_deploy.errors import BuildError, InputError
from s2mlp_deploy.evidence.build import BuildRecord


class TensorRTEngine:
    """Runs an engine file of TensorRT 10, TensorRT 11 or TensorRT-RTX.

    Inputs are copied into device buffers that grow when they must and otherwise keep their place. The second run with
    equal shapes replays a CUDA graph: TensorRT-RTX captures it itself, for TensorRT this class does.

    Args:
        path: The engine; its sidecar must lie beside it.
        device: Number of the GPU.
        cuda_graph: Whether launches are replayed as a graph.

    Raises:
        ArtifactError: The engine was changed, has no sidecar, or was built for another version, platform or GPU; the
            message has the command that builds it again.
        MissingDependencyError: The library or cuda-python is not installed.
        TargetError: There is no GPU.
        BuildError: The library cannot load the engine.
    """

    def __init__(self, path: Path, *, device: int = 0, cuda_graph: bool = True) -> None:
        self.record: BuildRecord = read_engine(path)
        wanted = flavour(self.record.flavour)
        # What can be known without a GPU is said first.
        check_runs_here(path, self.record, version=library.version_here(wanted), capability=None)
        trt = library.load(wanted)
        capability = cuda.use_device(device)
        check_runs_here(path, self.record, version=str(trt.__version__), capability=capability)
        self._logger = library.logger_of(trt)
        self._logger.begin()
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise BuildError(
                f"{wanted.title} cannot load the engine: {self._logger.reason()}",
                where=str(path),
                fix=build_again(path, self.record),
            )
        self._context = self._make_context(trt, own_graphs=wanted.own_cuda_graphs and cuda_graph)
        self._captures = cuda_graph and not wanted.own_cuda_graphs
        self._stream = cuda.Stream()
        self._buffers = {info.name: cuda.Buffer() for info in (*self.inputs, *self.outputs)}
        self._graphs: dict[tuple[tuple[int, ...], ...], cuda.Graph | None] = {}
        self._profile = 0
        self._shapes: tuple[tuple[int, ...], ...] = ()
        self.name = f"{self.record.flavour} {trt.__version__} ({capability})"

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
    def stream(self) -> cuda.Stream:
        """Where :meth:`launch` queues its work."""
        return self._stream

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """See :class:`~s2mlp_deploy.engines.base.Engine`.

        Raises:
            InputError: A shape is outside the profiles or the graph's limits, or a dtype is another than the engine's.
            BuildError: The library refuses to run.
        """
        self.upload(feeds)
        self.launch()
        return self.download()

    def upload(self, feeds: Mapping[str, NDArray[Any]]) -> None:
        """Copies the inputs to the device and settles all shapes.

        Raises:
            InputError: As :meth:`run`.
            BuildError: An output's shape depends on values, which these engines never need.
        """
        arrays = {info.name: _fitting(info, feeds) for info in self.inputs}
        shapes = {name: array.shape for name, array in arrays.items()}
        check_sizes(self.record.limits, shapes)
        self._choose_profile(check_shapes(self.record.profiles, shapes))
        for name, array in arrays.items():
            self._bind(name, array.nbytes)
            if not self._context.set_input_shape(name, array.shape):
                raise BuildError(f"the engine refuses the shape {array.shape} of {name}: {self._logger.reason()}")
            self._buffers[name].fill_from(array, self._stream)
        # The arrays may be temporary copies: they must outlive the transfer.
        self._stream.wait()
        for info in self.outputs:
            shape = tuple(self._context.get_tensor_shape(info.name))
            if min(shape, default=0) < 0:
                raise BuildError(
                    f"the shape of the output {info.name} depends on values",
                    where=self.record.engine,
                    fix="export a graph whose output shapes follow from the input's",
                )
            self._bind(info.name, int(np.prod(shape, dtype=np.int64)) * np.dtype(info.dtype).itemsize)
        self._shapes = tuple(array.shape for array in arrays.values())

    def launch(self) -> None:
        """Queues one run over what was uploaded; returns before it is done.

        Raises:
            BuildError: The library refuses to run.
        """
        if not self._captures:
            self._enqueue()
            return
        key = (*self._shapes, (self._profile,))
        graph = self._graphs.get(key)
        if graph is not None:
            graph.launch(self._stream)
            return
        # The first run settles what the library does lazily; it may not be captured.
        self._enqueue()
        if key in self._graphs:
            self._stream.wait()
            with self._stream.capture() as recorded:
                self._enqueue()
            self._graphs[key] = recorded
        else:
            self._graphs[key] = None

    def download(self) -> Arrays:
        """The outputs of the last launch, in new arrays."""
        results = {}
        for info in self.outputs:
            array = np.empty(tuple(self._context.get_tensor_shape(info.name)), np.dtype(info.dtype))
            self._buffers[info.name].copy_to(array, self._stream)
            results[info.name] = array
        self._stream.wait()
        return results

    def _make_context(self, trt: Any, *, own_graphs: bool) -> Any:
        if not own_graphs:
            return self._engine.create_execution_context()
        runtime_config = self._engine.create_runtime_config()
        runtime_config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return self._engine.create_execution_context(runtime_config)

    def _choose_profile(self, index: int) -> None:
        if index != self._profile:
            if not self._context.set_optimization_profile_async(index, self._stream.handle):
                raise BuildError(f"the engine has no profile {index}: {self._logger.reason()}")
            self._profile = index

    def _bind(self, name: str, size: int) -> None:
        # At least one byte: an address of 0 would be none at all.
        if self._buffers[name].reserve(max(size, 1)):
            # A graph holds the old address.
            self._graphs.clear()
        self._context.set_tensor_address(name, self._buffers[name].address)

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise BuildError(f"the engine did not run: {self._logger.reason()}", where=self.record.engine)


def _fitting(info: TensorInfo, feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    array = feeds.get(info.name)
    if array is None or array.dtype != np.dtype(info.dtype):
        given = "nothing" if array is None else str(array.dtype)
        raise InputError(f"the input {info.name} is {given}", fix=f"the engine takes {info.dtype} {list(info.shape)}")
    return np.ascontiguousarray(array)


def open_built(path: Path, *, threads: int) -> TensorRTEngine:  # noqa: ARG001 - A GPU has none.
    """The registry's way to open an engine file; see :class:`TensorRTEngine`."""
    return TensorRTEngine(path)
