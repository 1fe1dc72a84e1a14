"""What a flavour's ONNX parser or builder refuses, a function for each rule, so that it is said before anything loads.

Every rule was met on TensorRT-RTX 1.7.1.116 unless its comment names another source; ``tests`` give each one a graph
and compare the verdict with that parser's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from s2mlp_deploy.engines.tensorrt.flavours import FP8_CAPABILITY, Flavour, capability_of
from s2mlp_deploy.engines.tensorrt.graph import OnnxFile

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Violation:
    """A rule that a node breaks.

    Attributes:
        node: Its name; empty where the whole file breaks it.
        problem: What is wrong, without the node's name.
        fix: The option that mends it.
    """

    node: str
    problem: str
    fix: str


Rule = Callable[[OnnxFile, Flavour, tuple[str, ...]], Iterator[Violation]]

_QUANTIZE = ("QuantizeLinear", "DequantizeLinear")
_FOR_TENSORRT = "quantize for TensorRT: `export --precision int8` writes model.int8-trt.onnx with symmetric int8 inputs"
_QUANTIZED_TYPES = frozenset(("INT8", "UINT8", "FLOAT8E4M3FN", "INT4", "FLOAT4E2M1"))
# Where an operator reads the axes it works along. resolvedWeights(...) and makeAxesMask in the parser's messages.
_CONSTANT_INPUTS = {
    **{
        f"Reduce{kind}": 1
        for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
    },
    "Squeeze": 1,
    "Unsqueeze": 1,
}
_AXES_INPUTS = {"Slice": 3, "Pad": 3}
_REDUCED_SCATTERS = ("ScatterND", "ScatterElements")
_NO_TYPES = frozenset(("STRING", "COMPLEX64", "COMPLEX128", "INT16", "UINT16", "UINT32", "UINT64"))


def opset(file: OnnxFile, flavour: Flavour, targets: tuple[str, ...]) -> Iterator[Violation]:
    """The parser itself checks no opset, so a newer meaning of an operator would pass unseen."""
    del targets
    if file.opset > flavour.max_opset:
        yield Violation(
            "",
            f"opset {file.opset} is newer than {flavour.max_opset}, the newest that {flavour.title} is known to read",
            f"export with --opset {min(flavour.max_opset, 20)}",
        )


def operators(file: OnnxFile, flavour: Flavour, targets: tuple[str, ...]) -> Iterator[Violation]:
    """Operators without an importer, or from a later version on."""
    del targets
    functions = {(key[0], key[1]) for key in file.model.functions}
    for node in file.nodes:
        if (node.domain, node.op_type) in functions:
            continue
        if node.domain not in ("", "ai.onnx"):
            yield Violation(
                _name(node),
                f"{node.domain}::{node.op_type} is no standard operator, and {flavour.title} has no plugin for it here",
                "export without custom operators; files written by onnxruntime's optimizer cannot be built",
            )
        elif node.op_type in flavour.no_importer:
            yield Violation(_name(node), f"{flavour.title} cannot parse {node.op_type}", _instead_of(node.op_type))
        elif (since := flavour.since.get(node.op_type)) and flavour.version < since:
            yield Violation(
                _name(node),
                f"{flavour.title} {flavour.version_text} cannot parse {node.op_type}, which came with "
                f"{'.'.join(map(str, since))}",
                f"build with {flavour.title} {'.'.join(map(str, since))} or newer; {_instead_of(node.op_type)}",
            )


def _instead_of(op: str) -> str:
    if op == "DeformConv":
        return (
            "constant whole offsets become a shift and a convolution (`inspect` of the source says why these did not); "
            "with others the file runs in ONNX Runtime only"
        )
    if op.startswith("QLinear") or op.endswith("Integer") or op == "DynamicQuantizeLinear":
        return _FOR_TENSORRT
    return "replace the operator in the model, or export with another --opset"


def zero_points(file: OnnxFile, flavour: Flavour, targets: tuple[str, ...]) -> Iterator[Violation]:
    """``Non-zero zero point is not supported``."""
    del targets
    for node in _quantizers(file):
        zero = node.inputs[2] if len(node.inputs) > 2 else None
        if zero is None:
            continue
        value = zero.const_value
        if value is None:
            yield Violation(_name(node), f"{flavour.title} needs a constant zero point", _FOR_TENSORRT)
        elif value.numpy().astype("float32").any():
            yield Violation(
                _name(node), f"{flavour.title} quantizes symmetrically: the zero point must be 0", _FOR_TENSORRT
            )


def quantized_types(file: OnnxFile, flavour: Flavour, targets: tuple[str, ...]) -> Iterator[Violation]:
    """``input has type Int32 but must have type FP8, FP4, Int4, Int8, or UInt8``: a quantized bias."""
    del targets
    for node in _quantizers(file):
        quantized = node.inputs[0] if node.op_type == "DequantizeLinear" else node.outputs[0]
        dtype = quantized.dtype.name if quantized is not None and quantized.dtype is not None else None
        if dtype == "INT32":
            yield Violation(_name(node), f"{flavour.title} takes no bias quantized to int32", _FOR_TENSORRT)
        elif dtype is not None and dtype not in _QUANTIZED_TYPES | _NO_TYPES:
            yield Violation(_name(node), f"{flavour.title} does not quantize to {dtype.lower()}", _FOR_TENSORRT)


def mixed_types(file: OnnxFile, flavour: Flavour, targets: tuple[str, ...]) -> Iterator[Violation]:
    """``ElementWiseOperation SUM must have same input types``: the standard asks for that too."""
    del flavour, targets
    # Optional: `doctor` and the registry read this package without it.
    import onnx

    for node in file.nodes:
        if node.domain not in ("", "ai.onnx"):
            continue
        try:
            schema = onnx.defs.get_schema(node.op_type, file.opset)
        except onnx.defs.SchemaError:
            continue
        groups: dict[str, set[str]] = {}
        for index, value in enumerate(node.inputs):
            formal = schema.inputs[min(index, len(schema.inputs) - 1)] if schema.inputs else None
            if value is None or value.dtype is None or formal is None or not formal.is_homogeneous:
                continue
            groups.setdefault(formal.type_str, set()).add(value.dtype.name.lower())
        for types in groups.values():
            if len(types) > 1:
                yield Violation(
                    _name(node),
                    f"{node.op_type} mixes {' and '.join(sorted(types))}; networks are strongly typed",
                    "export with --precision fp16, which casts where types meet, instead of converting afterwards",
                )


def constant_axes(file: OnnxFile, flavour: Flavour, targets: tuple[str, ...]) -> Iterator[Violation]:
    """``Axis input must resolve to a build-time constant``."""
    del targets
    for node in file.nodes:
        since = flavour.tensor_axes_since.get(node.op_type)
        index = _CONSTANT_INPUTS.get(node.op_type)
        if index is None and since is not None and flavour.version < since:
            index = _AXES_INPUTS.get(node.op_type)
        if index is None or len(node.inputs) <= index or node.domain not in ("", "ai.onnx"):
            continue
        value = node.inputs[index]
        if value is not None and not _is_constant(value):
            yield Violation(
                _name(node),
                f"{flavour.title} {flavour.version_text} needs the axes of {node.op_type} as an initializer",
                "export with fixed axes; a value computed from the input's shape comes from --dynamic height,width",
            )


def scatters(file: OnnxFile, flavour: Flavour, targets: tuple[str, ...]) -> Iterator[Violation]:
    """``ScatterND with reduction is not supported``; ScatterElements the same on RTX."""
    del targets
    for node in file.nodes:
        reduction = node.attributes.get("reduction") if node.op_type in _REDUCED_SCATTERS else None
        if reduction is None or reduction.value == "none":
            continue
        # From the change log of 10.0: ScatterElements with reduction has a plugin there.
        if node.op_type == "ScatterElements" and not flavour.targets:
            continue
        yield Violation(
            _name(node),
            f"{flavour.title} cannot parse {node.op_type} with a reduction",
            "write the addition outside of the indexed assignment; `inspect` shows which writes were no shift",
        )


def types(file: OnnxFile, flavour: Flavour, targets: tuple[str, ...]) -> Iterator[Violation]:
    """``Failed to convert ONNX date type to TensorRT data type``."""
    del targets
    graph = file.model.graph
    for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
        if value.dtype is not None and value.dtype.name in _NO_TYPES:
            yield Violation(
                value.name or "",
                f"{flavour.title} has no type {value.dtype.name.lower()}",
                "export the model with another type for this tensor",
            )


def fp8(file: OnnxFile, flavour: Flavour, targets: tuple[str, ...]) -> Iterator[Violation]:
    """``Cannot compile for target(s) sm86, because the model contains HW-specific datatypes: fp8_e4m3``."""
    del flavour
    old = [target for target in targets if capability_of(target) < FP8_CAPABILITY]
    if not old:
        return
    for node in _quantizers(file):
        values = (*node.inputs, *node.outputs)
        if any(value is not None and value.dtype is not None and "FLOAT8" in value.dtype.name for value in values):
            yield Violation(
                _name(node),
                f"{', '.join(old)} has no fp8 arithmetic, which begins with sm{FP8_CAPABILITY}",
                f"leave {', '.join(old)} out, or build the int8 or fp16 file for it",
            )


def fp32_gemms(file: OnnxFile, flavour: Flavour, targets: tuple[str, ...]) -> Iterator[Violation]:
    """``Cannot compile operation for Turing (SM75): FP32 GEMM is not supported``."""
    without = [target for target in targets if target in flavour.no_fp32_gemm]
    if not without:
        return
    for node in file.nodes:
        value = node.inputs[0] if node.op_type in ("MatMul", "Gemm") else None
        if value is not None and value.dtype is not None and value.dtype.name == "FLOAT":
            yield Violation(
                _name(node),
                f"{flavour.title} compiles no fp32 {node.op_type} for {', '.join(without)}",
                f"build the fp16 file for {', '.join(without)}, or leave that target out",
            )


RULES: dict[str, Rule] = {
    "opset": opset,
    "operator": operators,
    "zero-point": zero_points,
    "quantized-type": quantized_types,
    "mixed-types": mixed_types,
    "constant-axes": constant_axes,
    "scatter": scatters,
    "type": types,
    "fp8": fp8,
    "fp32-gemm": fp32_gemms,
}


def _quantizers(file: OnnxFile) -> Iterator[ir.Node]:
    return (node for node in file.nodes if node.op_type in _QUANTIZE and node.domain in ("", "ai.onnx"))


def _name(node: ir.Node) -> str:
    return node.name or (node.outputs[0].name if node.outputs else "") or node.op_type


def _is_constant(value: ir.Value) -> bool:
    producer = value.producer()
    if producer is None:
        return value.const_value is not None
    # The parser folds what is computed from constants alone.
    return producer.op_type != "Shape" and all(_is_constant(item) for item in producer.inputs if item is not None)
