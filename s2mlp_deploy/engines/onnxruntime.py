"""ONNX Runtime. Never imports torch: services run on this file alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.artifact import TensorInfo, check_sizes, read_limits
from s2mlp_deploy.engines.base import Arrays, EngineStatus
from s2mlp_deploy.engines.io_binding import BoundSession
from s2mlp_deploy.engines.optimized import X64_PRECISION, check_optimized, is_optimized, x64_precision
from s2mlp_deploy.engines.packages import broken, load_cuda_libraries, load_onnxruntime, version_of
from s2mlp_deploy.errors import BuildError, InputError, MissingDependencyError, TargetError
from s2mlp_deploy.evidence.tune import Optimize
from s2mlp_deploy.gpu import gpus
from s2mlp_deploy.text import first_line_of

CPU = "CPUExecutionProvider"
_SUFFIX = "ExecutionProvider"
# Providers whose tensors live in CUDA memory.
_ON_GPU = ("CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider")
# Providers' options that have the first run recorded as a CUDA graph.
_GRAPH_OPTIONS = ("enable_cuda_graph", "trt_cuda_graph_enable", "nv_cuda_graph_enable")
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "off": "ORT_DISABLE_ALL",
}


def status() -> EngineStatus:
    """Which build of ONNX Runtime is installed and what it can run on."""
    cpu, gpu = version_of("onnxruntime"), version_of("onnxruntime-gpu")
    if cpu is None and gpu is None:
        return EngineStatus(
            "onnxruntime",
            False,
            missing="onnxruntime",
            install_hint="pip install 's2mlp-deploy[cpu]' (or [gpu], never both)",
        )
    if cpu and gpu:
        return EngineStatus(
            "onnxruntime",
            True,
            version=cpu,
            missing="onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
            "the CUDA and TensorRT providers are gone",
            install_hint="pip uninstall -y onnxruntime onnxruntime-gpu, then install one extra: [cpu] or [gpu]",
        )
    try:
        # Optional, and checked above.
        onnxruntime = load_onnxruntime()
    except ImportError as error:
        return broken("onnxruntime", cpu or gpu, error)
    if gpu and gpus():
        load_cuda_libraries(onnxruntime)  # Without them a provider that is a library of its own is not listed.
    return EngineStatus(
        "onnxruntime", True, version=cpu or gpu, detail=", ".join(onnxruntime.get_available_providers())
    )


class OnnxRuntimeEngine:
    """Runs an ONNX file.

    On a GPU provider, inputs and outputs are bound to device memory (I/O binding), which is kept from run to run; that
    path has never run on a GPU.

    Args:
        model: Path of the file, or the bytes of one that was not optimized ahead of time.
        provider: The execution provider, as ``CUDAExecutionProvider`` or ``cuda``; asking for one that is not there is
            an error, never a silent CPU.
        threads: Threads within an operator; 0 lets ONNX Runtime choose.
        arena: Whether memory that was used once is kept for the next run.
        spin: Whether idle threads spin for work, which is faster and burns the processor.
        device: Number of the GPU, for providers that run on one.
        optimize: How far ONNX Runtime may go in fusing and folding nodes.
        profile_to: Times every node of every run, for a file in this folder that :meth:`end_profile` writes.
        flush_denormals: Whether subnormal numbers count as 0: in the thread that opens the first file of a process, and
            it stays so (:class:`~s2mlp_deploy.engines.own_thread.InOwnThread` keeps that away from others).
        provider_options: Of the provider, by ONNX Runtime's names, on top of the device's number. CUDA's provider is
            asked not to use TF32, so that fp32 is fp32; ``{"use_tf32": "1"}`` allows it. With ``enable_cuda_graph``
            only the shapes of the first run are taken: ONNX Runtime would replay that one for all others.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        TargetError: The provider is not there.
        ArtifactError: The file was optimized ahead of time, and for another machine, or its sidecar is missing.
        BuildError: ONNX Runtime cannot load the file.
    """

    def __init__(
        self,
        model: Path | bytes,
        *,
        provider: str = CPU,
        threads: int = 0,
        arena: bool = True,
        spin: bool = True,
        device: int = 0,
        optimize: Optimize = "all",
        profile_to: Path | None = None,
        flush_denormals: bool = False,
        provider_options: Mapping[str, str] | None = None,
    ) -> None:
        onnxruntime = _load()
        self._provider, lacking = _provider_here(onnxruntime, provider)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Errors reach the user as exceptions; the same words, with source lines, would stand beside them on stderr.
        options.log_severity_level = 4
        if profile_to is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile_to / "profile")
        options.enable_cpu_mem_arena = arena
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
        options.add_session_config_entry("session.set_denormal_as_zero", "1" if flush_denormals else "0")
        # Where the processor would saturate int8 products; elsewhere the faster kernels stay.
        options.add_session_config_entry(X64_PRECISION, x64_precision())
        if isinstance(model, Path) and is_optimized(model):
            check_optimized(model, onnxruntime.__version__)
            optimize = "off"  # A second look of the optimizer would only cost time at every start.
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[optimize])
        where = str(model) if isinstance(model, Path) else "the given bytes"
        chosen = (self._provider, provider_settings(self._provider, device, provider_options))
        try:
            self._session = onnxruntime.InferenceSession(
                str(model) if isinstance(model, Path) else model, options, providers=[chosen]
            )
        except Exception as error:  # ONNX Runtime raises a dozen types of its own, with no common base but this.
            raise BuildError(
                f"ONNX Runtime cannot load the model: {first_line_of(error)}",
                where=where,
                fix="export it again, or check that the file is an ONNX model",
            ) from error
        if self._session.get_providers()[0] != self._provider:
            raise TargetError(
                f"ONNX Runtime fell back to {self._session.get_providers()[0]} instead of {self._provider}"
                + (f": {lacking}" if lacking else ""),
                where=where,
                fix="`s2mlp-deploy doctor` shows what this machine lacks",
            )
        self.inputs = tuple(_info(argument) for argument in self._session.get_inputs())
        self.outputs = tuple(_info(argument) for argument in self._session.get_outputs())
        self.limits = read_limits(self.metadata)
        self._bound = (
            BoundSession(
                onnxruntime,
                self._session,
                self.inputs,
                self.outputs,
                kind="cuda",
                device=device,
                captures=captures_graph(chosen[1]),
            )
            if self._provider in _ON_GPU
            else None
        )

    @property
    def name(self) -> str:
        """``onnxruntime`` and the provider."""
        return f"onnxruntime ({self._provider.removesuffix(_SUFFIX)})"

    @property
    def metadata(self) -> dict[str, str]:
        """The file's own metadata entries."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def end_profile(self) -> Path:
        """The file with the time of every node; no later run is timed."""
        return Path(self._session.end_profiling())

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """See :class:`~s2mlp_deploy.engines.base.Engine`.

        Raises:
            InputError: A free size is none of those that the graph was made for, or a CUDA graph is of other shapes.
            BuildError: The inputs do not fit the graph.
        """
        check_sizes(self.limits, {name: array.shape for name, array in feeds.items()})
        try:
            values = self._session.run(None, dict(feeds)) if self._bound is None else self._bound.run(feeds)
        except InputError:
            raise
        except Exception as error:  # As above.
            shapes = {name: tuple(array.shape) for name, array in feeds.items()}
            raise BuildError(
                f"ONNX Runtime refused the inputs: {first_line_of(error)}",
                where=f"inputs {shapes}",
                fix=f"the graph takes {', '.join(f'{i.name} {list(i.shape)} {i.dtype}' for i in self.inputs)}",
            ) from error
        return {info.name: np.asarray(value) for info, value in zip(self.outputs, values, strict=True)}


def check_provider(name: str) -> None:
    """Refuses a provider that is not here; empty for the CPU's.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        TargetError: See :func:`find_provider`.
    """
    _provider_here(_load(), name or CPU)


def _provider_here(onnxruntime: Any, name: str) -> tuple[str, str]:
    """The provider of that name, and what of CUDA could not be loaded for it; see :func:`find_provider`."""
    # First: where CUDA's provider is a library of its own, it is there only once it has loaded.
    names = {text for provider in _ON_GPU for text in (provider.lower(), provider.removesuffix(_SUFFIX).lower())}
    lacking = load_cuda_libraries(onnxruntime) if name.lower() in names else ""
    try:
        return find_provider(name, onnxruntime.get_available_providers()), lacking
    except TargetError as error:
        if not lacking:
            raise
        raise TargetError(f"{error.problem}: {lacking}", fix=error.fix) from None


def _load() -> Any:
    try:
        return load_onnxruntime()
    except ImportError:
        raise MissingDependencyError("onnxruntime", extra="cpu", purpose="running ONNX files") from None


def open_graph(path: Path, part: str, *, threads: int, **options: Any) -> OnnxRuntimeEngine:
    """The registry's way to open an ONNX file; see :class:`OnnxRuntimeEngine`."""
    return OnnxRuntimeEngine(path, provider=part or CPU, threads=threads, **options)


def provider_settings(provider: str, device: int, given: Mapping[str, str] | None) -> dict[str, str]:
    """The options that a provider gets.

    Args:
        provider: Its full name.
        device: Number of the GPU.
        given: What the user asked for, which wins.
    """
    own = {"device_id": str(device)} if provider in _ON_GPU else {}
    # On by default, as in TensorRT: fp32 GEMMs would round their inputs to 10 bits of mantissa.
    return own | ({"use_tf32": "0"} if provider == "CUDAExecutionProvider" else {}) | dict(given or {})


def captures_graph(settings: Mapping[str, str]) -> bool:
    """Whether a provider with these options records the first run as a CUDA graph."""
    # ONNX Runtime takes any value as text: True is one that it reads.
    return any(str(settings.get(name, "0")).lower() in ("1", "true") for name in _GRAPH_OPTIONS)


def find_provider(name: str, there: Sequence[str]) -> str:
    """The provider of that name among those that are there; short names and any case are taken.

    Raises:
        TargetError: It is not there; lists those that are.
    """
    wanted = name.lower()
    for provider in there:
        if wanted and wanted in (provider.lower(), provider.removesuffix(_SUFFIX).lower()):
            return provider
    raise TargetError(
        f"ONNX Runtime has no {name} here", fix=f"choose one of {', '.join(there)}, or install another extra"
    )


def _info(argument: Any) -> TensorInfo:
    # An axis without a name comes as None: it is dynamic all the same.
    shape = tuple(size if isinstance(size, (int, str)) else "?" for size in argument.shape)
    return TensorInfo(argument.name, _DTYPES.get(argument.type, argument.type), shape)
