"""ONNX graphs for the engines' tests: written by hand, or converted by tools that are not ours."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from s2mlp_deploy.artifact import Manifest

FLOAT, HALF, INT8, INT32, INT64, FP8 = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.INT8,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.FLOAT8E4M3FN,
)
# What quantize_static leaves for TensorRT: symmetric int8 on the inputs of GEMMs.
_GEMMS = ["MatMul", "Gemm", "Conv"]
_FOR_TENSORRT = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "AddQDQPairToWeight": True,
    "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": _GEMMS,
}


def value(name: str, dtype: int, shape: Sequence[int | str | None] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def constant(name: str, array: Any, dtype: Any = None) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(array, dtype), name)


def fp8_constant(name: str, shape: Sequence[int], number: float) -> onnx.TensorProto:
    return helper.make_tensor(name, FP8, shape, [number] * int(np.prod(shape, dtype=int)))


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], name: str = "", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, name=name or f"the_{op}", **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Sequence[onnx.TensorProto] = (),
    *,
    opset: int = 20,
    ir: int = 10,
    domains: Sequence[str] = (),
    metadata: dict[str, Any] | None = None,
) -> onnx.ModelProto:
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    made = helper.make_model(
        helper.make_graph(nodes, "graph", inputs, outputs, constants), opset_imports=imports, ir_version=ir
    )
    if metadata is not None:
        describe(made, **metadata)
    return made


def describe(made: onnx.ModelProto, **metadata: Any) -> onnx.ModelProto:
    """Gives a graph the metadata entry of an artifact's file, over what it has."""
    entries = {item.key: item.value for item in made.metadata_props}
    known = msgspec.json.decode(entries.get("s2mlp_deploy", "{}"))
    entries["s2mlp_deploy"] = msgspec.json.encode(known | metadata).decode()
    helper.set_model_props(made, entries)
    return made


def metadata_of(manifest: Manifest, precision: str) -> dict[str, Any]:
    """What a file of an artifact says of itself."""
    return msgspec.json.decode(manifest.timeless(precision))


def save(made: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(made.SerializeToString())
    return path


def perceptron(dtype: int = FLOAT, *, metadata: dict[str, Any] | None = None) -> onnx.ModelProto:
    """Two MatMuls with a Relu between, in one type."""
    array = np.float16 if dtype == HALF else np.float32
    return model(
        [
            node("MatMul", ["input", "w1"], ["a"], "fc1/MatMul"),
            node("Relu", ["a"], ["b"], "act/Relu"),
            node("MatMul", ["b", "w2"], ["output"], "fc2/MatMul"),
        ],
        [value("input", dtype, ["batch", 8])],
        [value("output", dtype, ["batch", 8])],
        [constant("w1", np.eye(8), array), constant("w2", np.eye(8), array)],
        metadata=metadata,
    )


def to_quantized(
    path: Path, output: Path, feeds: Callable[[], list[dict[str, np.ndarray]]], precision: str = "int8"
) -> Path:
    """Q/DQ on the inputs of every GEMM, by ONNX Runtime's quantizer."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._feeds = iter(feeds())

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._feeds, None)

    int8 = precision == "int8"
    kind = QuantType.QInt8 if int8 else QuantType.QFLOAT8E4M3FN
    logging.getLogger().setLevel(logging.ERROR)
    quantize_static(
        path,
        output,
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=_GEMMS,
        per_channel=int8,
        calibrate_method=CalibrationMethod.MinMax if int8 else CalibrationMethod.Distribution,
        activation_type=kind,
        weight_type=kind,
        extra_options=_FOR_TENSORRT,
    )
    return save(describe(onnx.load(output), precision=f"{precision}-trt"), output)
