"""Running ONNX files, and files compiled ahead of time, with OpenVINO."""

from __future__ import annotations

import functools
import io
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.artifact import METADATA_KEY, check_onnx, check_sizes, read_description, read_limits
from s2mlp_deploy.artifact.onnx_interface import OnnxInterface, read_interface
from s2mlp_deploy.engines.base import Arrays
from s2mlp_deploy.engines.openvino import library
from s2mlp_deploy.engines.openvino.counters import Counters
from s2mlp_deploy.engines.openvino.library import CPU, OPENVINO, reason_of
from s2mlp_deploy.engines.openvino.saturation import may_saturate
from s2mlp_deploy.engines.openvino.widening import in_float32, miscomputed
from s2mlp_deploy.engines.optimized import is_optimized
from s2mlp_deploy.engines.record import build_again, check_runs_here, read_engine
from s2mlp_deploy.errors import ArtifactError, BuildError, TargetError
from s2mlp_deploy.files import to_json
from s2mlp_deploy.processor import processor
from s2mlp_deploy.text import join_names

LOG = logging.getLogger(__name__)

_INT8_KERNELS = "LP_TRANSFORMS_MODE"
"""OpenVINO's setting that replaces Q and DQ by int8 kernels; without it, they round in float32, which is exact."""

_IN_FLOAT32 = (
    "int8 is computed in float32, without its speed: this processor has no VNNI, and OpenVINO would cut sums off; "
    "its int8 file of quantize --reduce-range has weights that fit"
)


class OpenVinoEngine:
    """Runs an ONNX file. May be called from several threads.

    Args:
        path: The file.
        device: ``CPU``, ``GPU`` or ``NPU``, or one of several by its number: ``GPU.1``. Only the CPU was ever tried.
        threads: On a CPU; 0 lets OpenVINO choose.
        throughput: Whether many runs at once count (:meth:`run_many`), not the time of one.
        flush_denormals: Whether numbers below the smallest normal one count as 0, on a CPU.
        profile_to: Times every node of every run, for a file in this folder that :meth:`end_profile` writes.

    Raises:
        MissingDependencyError: OpenVINO is not installed.
        TargetError: There is no such device, or it computes in another precision than it was told to.
        ArtifactError: It is no ONNX file, or one that ONNX Runtime optimized for itself.
        BuildError: OpenVINO cannot load the file.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: str = CPU,
        threads: int = 0,
        throughput: bool = False,
        flush_denormals: bool = False,
        profile_to: Path | None = None,
    ) -> None:
        self._openvino = library.load()
        check_onnx(path)
        told = read_interface(path)
        check_operators(told, path)
        core = library.shared_core()
        self.device = library.find_device(device, core.available_devices)
        config = configuration_of(
            told,
            path,
            self.device,
            threads=threads,
            throughput=throughput,
            flush_denormals=flush_denormals,
            profile=profile_to is not None,
        )
        compiled, self.notes = compiled_of(core, path, self.device, config)
        if self.notes:
            _warn(self.notes)
        counters = None if profile_to is None else Counters(compiled, self._openvino.get_version(), profile_to)
        self._use(compiled, told, counters)

    def _use(self, compiled: Any, told: OnnxInterface, counters: Counters | None = None) -> None:
        self._compiled = compiled
        self.inputs, self.outputs, self.metadata = told.inputs, told.outputs, told.metadata
        self.limits = read_limits(self.metadata)
        # By name: OpenVINO may keep names of nodes beside those of the graph, and in an order of its own.
        self._in = {info.name: compiled.input(info.name) for info in self.inputs}
        self._out = {info.name: compiled.output(info.name) for info in self.outputs}
        self._idle: list[Any] = []
        self._queue: Any = None
        self._counters = counters

    @property
    def name(self) -> str:
        """``openvino`` and the device."""
        return f"{OPENVINO} ({self.device})"

    @property
    def properties(self) -> dict[str, str]:
        """What OpenVINO says it computes with, by its names of the settings."""
        names = (
            *("INFERENCE_PRECISION_HINT", "EXECUTION_MODE_HINT", "PERFORMANCE_HINT"),
            *("NUM_STREAMS", "INFERENCE_NUM_THREADS", "CPU_DENORMALS_OPTIMIZATION", "DYNAMIC_QUANTIZATION_GROUP_SIZE"),
        )
        there = self._compiled.get_property("SUPPORTED_PROPERTIES")
        return {name: str(self._compiled.get_property(name)) for name in names if name in there}

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """See :class:`~s2mlp_deploy.engines.base.Engine`.

        Raises:
            InputError: A free size is none of those that the graph was made for.
            BuildError: The inputs do not fit the graph.
        """
        self._check(feeds)
        try:
            request = self._idle.pop()  # Not two threads get the same one.
        except IndexError:
            request = self._compiled.create_infer_request()
        start = time.perf_counter()
        try:
            results = request.infer(self._tensors(feeds), share_inputs=True, share_outputs=True)
            if self._counters is not None:
                self._counters.ran((time.perf_counter() - start) * 1e3)
            # The memory is the request's, whose next run writes there.
            return {name: np.array(results[port]) for name, port in self._out.items()}
        except RuntimeError as error:
            raise self._refusal(feeds, reason_of(error)) from error
        finally:
            self._idle.append(request)

    def run_many(self, feeds: Mapping[str, NDArray[Any]], count: int) -> None:
        """Runs the same inputs so often, as many at once as the device works best with, and drops the outputs.

        Raises:
            InputError: See :meth:`run`.
            BuildError: See :meth:`run`.
        """
        self._check(feeds)
        if self._queue is None:
            self._queue = self._openvino.AsyncInferQueue(self._compiled)  # Of as many requests as that.
        tensors = self._tensors(feeds)
        try:
            for _ in range(count):
                self._queue.start_async(tensors, share_inputs=True)
            self._queue.wait_all()
        except RuntimeError as error:
            raise self._refusal(feeds, reason_of(error)) from error

    def end_profile(self) -> Path:
        """The file with the time of every node (:class:`~s2mlp_deploy.engines.openvino.counters.CountersFile`)."""
        assert self._counters is not None
        kinds = {item.node_name: item.node_type for request in self._idle for item in request.get_profiling_info()}
        return self._counters.write(kinds, {info.name for info in (*self.inputs, *self.outputs)})

    def _tensors(self, feeds: Mapping[str, NDArray[Any]]) -> dict[Any, NDArray[Any]]:
        # Not ascontiguousarray, which gives a number without axes one.
        return {port: np.asarray(feeds[name], order="C") for name, port in self._in.items()}

    def _check(self, feeds: Mapping[str, NDArray[Any]]) -> None:
        check_sizes(self.limits, {name: array.shape for name, array in feeds.items()})
        # OpenVINO would cast, and leave what a run before had put into an input that is missing.
        if {*feeds} != {*self._in}:
            raise self._refusal(feeds, "inputs are missing, or of other names")
        for info in self.inputs:
            if str(feeds[info.name].dtype) != info.dtype:
                raise self._refusal(feeds, f"{info.name} is {feeds[info.name].dtype}")

    def _refusal(self, feeds: Mapping[str, NDArray[Any]], problem: str) -> BuildError:
        shapes = {name: tuple(array.shape) for name, array in feeds.items()}
        return BuildError(
            f"OpenVINO refused the inputs: {problem}",
            where=f"inputs {shapes}",
            fix=f"the graph takes {', '.join(f'{i.name} {list(i.shape)} {i.dtype}' for i in self.inputs)}",
        )


class CompiledEngine(OpenVinoEngine):
    """Runs a file that was compiled ahead of time; its sidecar must lie beside it.

    Args:
        path: The file.
        threads: On a CPU; 0 lets OpenVINO choose.
        throughput: Whether many runs at once count (:meth:`run_many`), not the time of one.

    Raises:
        ArtifactError: It was changed, has no sidecar, or was compiled for another version, platform or processor; the
            message has the command that builds it again.
        MissingDependencyError: OpenVINO is not installed.
        TargetError: Its device is not here.
        BuildError: OpenVINO cannot load it.
    """

    def __init__(self, path: Path, *, threads: int = 0, throughput: bool = False) -> None:
        record = read_engine(path)
        self._openvino = library.load()
        check_runs_here(path, record, version=str(self._openvino.get_version()), capability=None)
        core = library.shared_core()
        again = build_again(path, replace(record, arguments=("--engine", OPENVINO)))  # For the CPU, which is here.
        target = record.targets[0] if record.targets else CPU
        self.device = library.find_device(target, core.available_devices, str(path), again)
        kept = {"precision": record.precision, "preprocessing_in_graph": record.preprocessing_in_graph}
        described = {**kept, "limits": record.limits}
        told = OnnxInterface(record.inputs, record.outputs, {METADATA_KEY: to_json(described).decode()})
        config = configuration_of(told, path, self.device, threads=threads, throughput=throughput)
        try:
            compiled = core.import_model(io.BytesIO(path.read_bytes()), self.device, dict(config))
        except RuntimeError as error:
            raise BuildError(
                f"OpenVINO cannot load the engine: {reason_of(error)}", where=str(path), fix=build_again(path, record)
            ) from error
        check_precision(compiled, config, path)
        self.notes = record.advice
        self._use(compiled, told)


def configuration_of(
    told: OnnxInterface,
    path: Path,
    device: str,
    *,
    threads: int = 0,
    throughput: bool = False,
    flush_denormals: bool = False,
    profile: bool = False,
) -> dict[str, Any]:
    """What a file is compiled with; see :func:`~s2mlp_deploy.engines.openvino.library.configuration`.

    Raises:
        ArtifactError: What it says of itself is damaged.
    """
    precision = str(read_description(told.metadata.get(METADATA_KEY), path).get("precision", ""))
    # int8 for TensorRT stands on a float16 graph.
    half = precision == "fp16" or precision.endswith("-trt")
    return library.configuration(
        device, half=half, threads=threads, throughput=throughput, flush_denormals=flush_denormals, profile=profile
    )


def check_operators(told: OnnxInterface, path: Path) -> None:
    """Refuses a file with operators that are ONNX Runtime's own, or that OpenVINO takes and computes as others.

    Measured with 2026.4: of a Resize with ``antialias`` it leaves that out, without a word.

    Raises:
        ArtifactError: ONNX Runtime optimized it for itself.
        BuildError: There are operators that OpenVINO computes as others.
    """
    if is_optimized(path):
        raise ArtifactError(
            "the file was optimized for ONNX Runtime, whose own operators OpenVINO does not know",
            where=str(path),
            fix="name the file that it was made from",
        )
    if told.antialiased:
        raise BuildError(
            f"OpenVINO resizes without antialiasing, which the file asks for in "
            f"{join_names(told.antialiased, limit=3)}",
            where=str(path),
            fix="run it with --engine onnxruntime; `export --with-preprocessing` resizes by products, which every "
            "engine computes",
        )


def compiled_of(core: Any, path: Path, device: str, config: Mapping[str, Any]) -> tuple[Any, tuple[str, ...]]:
    """A graph that is ready to run, and what to know about its speed.

    Args:
        core: OpenVINO's.
        path: An ONNX file.
        device: Its name of the device.
        config: What :func:`~s2mlp_deploy.engines.openvino.library.configuration` made.

    Raises:
        BuildError: OpenVINO cannot load it.
        TargetError: It computes in another precision than it was told to.
    """
    chosen = dict(config)
    try:
        model = core.read_model(str(path))
        if device == CPU:
            model = in_float32(library.load(), model)
            _check_products(model, path)
            if processor().int8_saturates and may_saturate(model):
                chosen[_INT8_KERNELS] = False
        compiled = core.compile_model(model, device, chosen)
    except RuntimeError as error:
        raise BuildError(
            f"OpenVINO cannot load the model: {reason_of(error)}",
            where=str(path),
            fix="export it again; where an operator is not supported, `--engine onnxruntime` may have it",
        ) from error
    check_precision(compiled, config, path)
    return compiled, (_IN_FLOAT32,) if _INT8_KERNELS in chosen else ()


def _check_products(model: Any, path: Path) -> None:
    if names := miscomputed(model):
        raise BuildError(
            f"OpenVINO computes products with factors below 0 in front of a QuantizeLinear as others, here in "
            f"{join_names(names, limit=3)}",
            where=str(path),
            fix="run it with --engine onnxruntime",
        )


@functools.cache
def _warn(notes: tuple[str, ...]) -> None:
    """Once a process: layers are compared on many graphs of one file."""
    LOG.warning("OpenVINO: %s", "; ".join(notes))


def check_precision(compiled: Any, config: Mapping[str, Any], path: Path) -> None:
    """Refuses a compiled graph that does not compute in what it was told to.

    Raises:
        TargetError: It does not.
    """
    told = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if told != config["INFERENCE_PRECISION_HINT"]:
        raise TargetError(
            f"OpenVINO computes in {told} instead of {config['INFERENCE_PRECISION_HINT']}",
            where=str(path),
            fix="use another device: `s2mlp-deploy doctor` lists them",
        )


def open_graph(path: Path, part: str, *, threads: int, **options: Any) -> OpenVinoEngine:
    """The registry's way to open an ONNX file; see :class:`OpenVinoEngine`."""
    return OpenVinoEngine(path, device=part or CPU, threads=threads, **options)


def open_built(path: Path, *, threads: int, **options: Any) -> CompiledEngine:
    """The registry's way to open a compiled file; see :class:`CompiledEngine`."""
    return CompiledEngine(path, threads=threads, **options)
