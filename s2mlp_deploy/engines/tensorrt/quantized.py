"""Where the Q/DQ pairs of a graph stand, and why int8 may be slower than fp16 with them.

The pains are those of TensorRT's users (TensorRT #3197, #4554): a pair that neither GEMM nor convolution reads
turns into a kernel of its own and a reformat, and what is not quantized runs in the type of the graph around it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from s2mlp_deploy.engines.tensorrt.graph import OnnxFile
from s2mlp_deploy.graph.operators import DATA_MOVEMENT_OPS, MATRIX_OPS
from s2mlp_deploy.text import join_names

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Quantization:
    """What the Q/DQ pairs of a graph do.

    Attributes:
        types: Quantized element types, ``int8`` or ``float8e4m3fn``.
        quantize: QuantizeLinear nodes on activations, each of which is work at run time; those on weights are folded.
        matrix_ops: How many GEMMs and convolutions there are, without those that a shift is written as.
        quantized: Of these, how many read quantized values on both sides.
        not_quantized: Names of the others.
        exceptions: Names of those left in higher precision on purpose.
        unread: Names of DequantizeLinear nodes whose values reach no GEMM or convolution.
        islands: Names of Cast nodes that lead from fp16 to fp32 and to nodes that are no exceptions.
        around: Types that values are dequantized to: that of the graph around, ``float32`` or ``float16``.
        advice: Why int8 is likely slower than fp16 with this graph; empty where nothing speaks for it.
    """

    types: tuple[str, ...]
    quantize: int
    matrix_ops: int
    quantized: int
    not_quantized: tuple[str, ...]
    exceptions: tuple[str, ...]
    unread: tuple[str, ...]
    islands: tuple[str, ...]
    around: tuple[str, ...]
    advice: tuple[str, ...]


def has_quantized_values(file: OnnxFile) -> bool:
    """Whether there is a DequantizeLinear at all."""
    return any(node.op_type == "DequantizeLinear" for node in file.nodes)


def examine(file: OnnxFile) -> Quantization | None:
    """Looks at a graph; None where it has no Q/DQ."""
    dequantize = [node for node in file.nodes if node.op_type == "DequantizeLinear"]
    if not dequantize:
        return None
    matrix_ops = [node for node in file.nodes if node.op_type in MATRIX_OPS and not file.is_shift(node.name or "")]
    plain = [node for node in matrix_ops if not _reads_quantized(node)]
    exempt = [node for node in plain if any(item.covers(node.name or "") for item in file.exceptions)]
    unread = [node for node in dequantize if not node.outputs[0].is_graph_output() and not _feeds_matrix_op(node)]
    islands = [
        node for node in file.nodes if node.op_type == "Cast" and _widens(node) and not _is_on_purpose(node, file)
    ]
    found = Quantization(
        types=tuple(sorted(_types(dequantize))),
        quantize=sum(node.op_type == "QuantizeLinear" and not _on_constant(node) for node in file.nodes),
        matrix_ops=len(matrix_ops),
        quantized=len(matrix_ops) - len(plain),
        not_quantized=_names(node for node in plain if node not in exempt),
        exceptions=_names(exempt),
        unread=_names(unread),
        islands=_names(islands),
        around=tuple(sorted(_around(dequantize))),
        advice=(),
    )
    return replace(found, advice=tuple(_advice(found)))


def _advice(found: Quantization) -> Iterator[str]:
    if "float32" in found.around:
        yield (
            "the graph around the Q/DQ pairs is fp32, so everything that is not quantized runs in fp32 and moves twice "
            "the bytes of fp16: quantize on top of an fp16 graph"
        )
    if found.not_quantized:
        yield (
            f"{len(found.not_quantized)} of {found.matrix_ops} GEMMs and convolutions are not quantized "
            f"({join_names(found.not_quantized)}): each boundary between them and the others costs a quantizing or "
            "reformatting pass"
        )
    if found.unread:
        yield (
            f"{len(found.unread)} Q/DQ pairs feed no GEMM or convolution ({join_names(found.unread)}): they break "
            "fusions and become kernels that only convert; quantize the inputs of GEMMs and convolutions alone"
        )
    if found.islands and "float16" in found.around:
        yield (
            f"{len(found.islands)} casts lead from fp16 into fp32 islands ({join_names(found.islands)}): what lies "
            "between runs in fp32 with a conversion on each side"
        )
    if found.matrix_ops and found.quantize > 2 * found.matrix_ops:
        yield (
            f"{found.quantize} QuantizeLinear nodes for {found.matrix_ops} GEMMs and convolutions: more conversions "
            "than their inputs need"
        )


def _types(dequantize: list[ir.Node]) -> set[str]:
    return {
        node.inputs[0].dtype.name.lower()
        for node in dequantize
        if node.inputs[0] is not None and node.inputs[0].dtype is not None
    }


def _around(dequantize: list[ir.Node]) -> set[str]:
    names = {node.outputs[0].dtype.name.lower() for node in dequantize if node.outputs[0].dtype is not None}
    return {"float32" if name == "float" else name for name in names}


def _reads_quantized(node: ir.Node) -> bool:
    return all(value is not None and _is_dequantized(value) for value in node.inputs[:2])


def _is_dequantized(value: ir.Value) -> bool:
    producer = value.producer()
    while producer is not None and producer.op_type in DATA_MOVEMENT_OPS:
        source = producer.inputs[0]
        producer = source.producer() if source is not None else None
    return producer is not None and producer.op_type == "DequantizeLinear"


def _on_constant(node: ir.Node) -> bool:
    source = node.inputs[0]
    return source is not None and source.producer() is None and source.const_value is not None


def _feeds_matrix_op(node: ir.Node) -> bool:
    waiting, seen = [node.outputs[0]], set()
    while waiting:
        value = waiting.pop()
        for user, _ in value.uses():
            if user.op_type in MATRIX_OPS:
                return True
            if user.op_type in DATA_MOVEMENT_OPS and user not in seen:
                seen.add(user)
                waiting += user.outputs
    return False


def _widens(node: ir.Node) -> bool:
    source, target = node.inputs[0], node.outputs[0]
    return (
        source is not None
        and source.dtype is not None
        and target.dtype is not None
        and (source.dtype.name, target.dtype.name) == ("FLOAT16", "FLOAT")
        and not target.is_graph_output()
    )


def _is_on_purpose(cast: ir.Node, file: OnnxFile) -> bool:
    """Whether all that reads a Cast was left in fp32 on purpose: fp16 files have such islands too."""
    users = [user for user, _ in cast.outputs[0].uses()]
    return all(any(item.covers(node.name or "") for item in file.exceptions) for node in (users or [cast]))


def _names(nodes: Iterator[ir.Node] | list[ir.Node]) -> tuple[str, ...]:
    return tuple(node.name or node.op_type for node in nodes)
