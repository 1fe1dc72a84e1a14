"""ONNX Runtime. Never imports torch: services run on this file alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.engines.base import Arrays, EngineStatus
from s2mlp_deploy.engines.packages import version_of
from s2mlp_deploy.errors import BuildError, MissingDependencyError, TargetError

CPU = "CPUExecutionProvider"
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
    import onnxruntime

    return EngineStatus(
        "onnxruntime", True, version=cpu or gpu, detail=", ".join(onnxruntime.get_available_providers())
    )


class OnnxRuntimeEngine:
    """Runs an ONNX file.

    Args:
        model: Path of the file, or its bytes.
        provider: The execution provider; asking for one that is not there is an error, never a silent CPU.
        threads: Threads within an operator; 0 lets ONNX Runtime choose.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        TargetError: The provider is not there.
        BuildError: ONNX Runtime cannot load the file.
    """

    def __init__(self, model: Path | bytes, *, provider: str = CPU, threads: int = 0) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingDependencyError("onnxruntime", extra="cpu", purpose="running ONNX files") from None
        there = onnxruntime.get_available_providers()
        if provider not in there:
            raise TargetError(
                f"ONNX Runtime has no {provider} here",
                fix=f"choose one of {', '.join(there)}, or install another extra",
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        where = str(model) if isinstance(model, Path) else "the given bytes"
        try:
            self._session = onnxruntime.InferenceSession(
                str(model) if isinstance(model, Path) else model, options, providers=[provider]
            )
        except Exception as error:  # ONNX Runtime raises a dozen types of its own, with no common base but this.
            raise BuildError(
                f"ONNX Runtime cannot load the model: {_first_line(error)}",
                where=where,
                fix="export it again, or check that the file is an ONNX model",
            ) from error
        if self._session.get_providers()[0] != provider:
            raise TargetError(
                f"ONNX Runtime fell back to {self._session.get_providers()[0]} instead of {provider}",
                where=where,
                fix="`s2mlp-deploy doctor` shows what this machine lacks",
            )
        self._provider = provider
        self.inputs = tuple(_info(argument) for argument in self._session.get_inputs())
        self.outputs = tuple(_info(argument) for argument in self._session.get_outputs())

    @property
    def name(self) -> str:
        """``onnxruntime`` and the provider."""
        return f"onnxruntime ({self._provider.removesuffix('ExecutionProvider')})"

    @property
    def metadata(self) -> dict[str, str]:
        """The file's own metadata entries."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """See :class:`~s2mlp_deploy.engines.base.Engine`.

        Raises:
            BuildError: The inputs do not fit the graph.
        """
        try:
            values = self._session.run(None, dict(feeds))
        except Exception as error:  # As above.
            shapes = {name: tuple(array.shape) for name, array in feeds.items()}
            raise BuildError(
                f"ONNX Runtime refused the inputs: {_first_line(error)}",
                where=f"inputs {shapes}",
                fix=f"the graph takes {', '.join(f'{i.name} {list(i.shape)} {i.dtype}' for i in self.inputs)}",
            ) from error
        return {info.name: np.asarray(value) for info, value in zip(self.outputs, values, strict=True)}


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _info(argument: Any) -> TensorInfo:
    # An axis without a name comes as None: it is dynamic all the same.
    shape = tuple(size if isinstance(size, (int, str)) else "?" for size in argument.shape)
    return TensorInfo(argument.name, _DTYPES.get(argument.type, argument.type), shape)
