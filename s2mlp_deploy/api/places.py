"""Where files of a precision are measured on this machine. Imports neither torch nor onnx."""

from __future__ import annotations

from dataclasses import dataclass

from s2mlp_deploy.choices import GRAPH_ENGINE
from s2mlp_deploy.engines import onnxruntime
from s2mlp_deploy.engines.packages import version_of
from s2mlp_deploy.engines.tensorrt.library import rtx_status, tensorrt_status
from s2mlp_deploy.gpu import gpus


@dataclass(frozen=True)
class Place:
    """Where a file is measured.

    Attributes:
        engine: What runs it.
        meant: Whether the file is made for that.
    """

    engine: str
    meant: bool = True


def place_of(precision: str) -> Place | str:
    """Where a file of a precision is measured on this machine, or why nowhere.

    Args:
        precision: Of the file: ``int8-trt``, for example.
    """
    if precision.endswith("-trt"):
        if not gpus():
            return "it is for TensorRT, and there is no NVIDIA GPU here"
        for status in (tensorrt_status(), rtx_status()):
            if status.available:
                if version_of("cuda-bindings") is None:
                    return "it is for TensorRT, and cuda-bindings, which runs engines, is not installed here"
                return Place(status.name)
        return "it is for TensorRT, which is not installed here"
    status = onnxruntime.status()
    if not status.available:
        return "ONNX Runtime is not installed here"
    if precision != "fp16":
        return Place(GRAPH_ENGINE)
    if gpus() and "CUDAExecutionProvider" in status.detail:
        return Place(f"{GRAPH_ENGINE}:cuda")
    return Place(GRAPH_ENGINE, meant=False)


def why_not(place: Place | str) -> str:
    """Why a file is not measured on what it is meant for; empty where it is."""
    if isinstance(place, str):
        return place
    return "" if place.meant else "it is for a GPU, and there is none here that ONNX Runtime can use"
