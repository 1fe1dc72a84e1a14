"""An ONNX graph read by module: which nodes and weights belong to the module of a path, and what it computes in."""

from __future__ import annotations

import ast
import collections
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from s2mlp_deploy.artifact import NETWORK, common_path, module_of
from s2mlp_deploy.graph.operators import MATRIX_OPS, is_movement

SCOPES = "pkg.torch.onnx.name_scopes"
"""Where torch's exporter notes the modules that a node comes from."""
_NUMBERS = {
    ir.DataType.FLOAT: "fp32",
    ir.DataType.FLOAT16: "fp16",
    ir.DataType.BFLOAT16: "bf16",
    ir.DataType.DOUBLE: "fp64",
    ir.DataType.FLOAT8E4M3FN: "fp8",
}


@dataclass
class ModuleNodes:
    """What a graph has of one module, without the modules inside of it.

    Attributes:
        path: Of the module; :data:`~s2mlp_deploy.artifact.NETWORK` for the network's own forward, empty for what names
            no module and has no neighbour that does.
        nodes: In graph order, those of subgraphs too.
        weights: Constants that its nodes read, each counted once in the graph. One that several modules read belongs to
            what their paths have in common.
    """

    path: str
    nodes: list[ir.Node] = field(default_factory=list)
    weights: list[ir.Value] = field(default_factory=list)

    @property
    def operators(self) -> dict[str, int]:
        """How many nodes of each operator, in order of appearance; with a domain of its own ``s2mlp::Shift``."""
        return dict(
            collections.Counter(
                f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in self.nodes
            )
        )

    @property
    def weight_bytes(self) -> dict[str, int]:
        """Bytes of the weights by type of number: ``{"int8": 4096, "fp32": 256}``."""
        found: collections.Counter[str] = collections.Counter()
        for value in self.weights:
            assert value.const_value is not None
            found[number_name(value.const_value.dtype)] += value.const_value.nbytes
        return dict(found)

    @property
    def computes(self) -> dict[str, int]:
        """How many of its GEMMs and convolutions compute in each type; of all its nodes where it has none of those."""
        matrix = [node for node in self.nodes if node.op_type in MATRIX_OPS]
        return dict(collections.Counter(filter(None, map(computes_in, matrix or self.nodes))))


def number_name(dtype: ir.DataType | None) -> str:
    """``fp32``, ``fp16``, ``int8``; empty where it is not known."""
    return "" if dtype is None else _NUMBERS.get(dtype, dtype.name.lower())


def computes_in(node: ir.Node) -> str:
    """The type of number that a node computes in; empty where the graph does not say, or it makes no numbers.

    A GEMM or convolution whose operands are both dequantized before it, with nothing but data movement between,
    computes in their integers: a runtime that knows Q/DQ takes them together.
    """
    if node.op_type in MATRIX_OPS:
        stored = [_stored(value) for value in node.inputs[:2]]
        if len(stored) == 2 and all(stored):
            return "int8" if stored[1] in ("int8", "uint8") else stored[1]
    dtype = node.outputs[0].dtype if node.outputs else None
    return number_name(dtype) if dtype is not None and not _counts(dtype) else ""


def _counts(dtype: ir.DataType) -> bool:
    """Whether numbers of a type are sizes, places or truths."""
    return dtype in (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL, ir.DataType.STRING)


def _stored(value: ir.Value | None) -> str:
    """The type that a dequantized value had before; empty for one that was not dequantized."""
    producer = value.producer() if value is not None else None
    while producer is not None and len(producer.outputs) == 1 and is_movement(producer) and producer.inputs[0]:
        producer = producer.inputs[0].producer()
    if producer is None or producer.op_type != "DequantizeLinear" or producer.inputs[0] is None:
        return ""
    stored = producer.inputs[0]
    return number_name(stored.dtype if stored.const_value is None else stored.const_value.dtype)


def modules_of(graph: ir.Graph) -> dict[str, ModuleNodes]:
    """Reads a graph by module, from the names of its nodes or the scopes that torch's exporter notes.

    A node that names no module belongs to the one that its readers have in common, else to that of what it reads: Q and
    DQ of other tools, and what an optimizer put in.

    Args:
        graph: In any precision, of any exporter. Types must be inferred for ``computes`` to tell anything.

    Returns:
        By path, in the order of the modules' first nodes.
    """
    nodes = list(graph.all_nodes())
    paths = _paths(nodes, {str(value.name) for value in (*graph.inputs, *graph.outputs)})
    found: dict[str, ModuleNodes] = {}
    readers: dict[ir.Value, list[str]] = {}
    for node in nodes:
        path = paths[node]
        module = found.setdefault(path, ModuleNodes(path))
        module.nodes.append(node)
        if node.op_type == "Constant":
            module.weights += [value for value in node.outputs if value.const_value is not None]
        for value in dict.fromkeys(node.inputs):
            if value is not None and value.is_initializer() and value.const_value is not None:
                readers.setdefault(value, []).append(path)
    for value, of in readers.items():
        path = _shared(of)
        found.setdefault(path, ModuleNodes(path)).weights.append(value)
    return found


def name_nodes_after_scopes(graph: ir.Graph) -> None:
    """Gives nodes that torch's exporter noted modules of names that tell them: ``blocks.0.fc/MatMul_7``.

    A node in between that it noted nothing of, as the parts of a chunk, is named as in :func:`modules_of`. Names of
    values stay.

    Args:
        graph: Changed in place; graphs without such notes stay as they are.
    """
    nodes = list(graph)
    if not any(map(noted_scope, nodes)):
        return
    paths = _paths(nodes, {str(value.name) for value in (*graph.inputs, *graph.outputs)})
    for index, node in enumerate(nodes):
        if paths[node] not in ("", NETWORK) and not module_of(str(node.name or "")):
            node.name = f"{paths[node]}/{node.op_type}_{index}"


def scopes_of(node: ir.Node) -> str:
    """The path in the scopes that torch's exporter notes: the module whose forward made the node; empty without any."""
    return noted_scope(node) or ""


def noted_scope(node: ir.Node) -> str | None:
    """The path in the scopes; empty for the network's own forward, None where no module is noted."""
    scopes = node.metadata_props.get(SCOPES)
    try:
        path = ast.literal_eval(scopes) if scopes else ()
    except (ValueError, SyntaxError):
        return None
    # The last entry is the operation itself, those before it are the modules from the root down. Under a key of its own
    # torch keeps nodes that its passes made, sizes above all.
    if not isinstance(path, list) or len(path) < 2 or str(path[-2]).startswith("_empty_nn_module_stack"):
        return None
    return str(path[-2])


def _paths(nodes: list[ir.Node], ends: set[str]) -> dict[ir.Node, str]:
    """The module of each node."""
    paths = {node: _own_path(node, ends) for node in nodes}
    for node in reversed(nodes):
        if not paths[node]:
            paths[node] = _neighbours(paths, (user for value in node.outputs for user, _ in value.uses()))
    for node in nodes:
        if not paths[node]:
            paths[node] = _neighbours(paths, (value.producer() for value in node.inputs if value is not None))
    return paths


def _own_path(node: ir.Node, ends: set[str]) -> str:
    path = module_of(str(node.name or ""))
    # What converts an input or an output is named after it, not after a module.
    converts = path in ends and node.op_type in ("QuantizeLinear", "DequantizeLinear", "Cast")
    if path and not converts:
        return path
    noted = noted_scope(node)
    return NETWORK if noted == "" else noted or ""


def _neighbours(paths: Mapping[ir.Node, str], near: Iterable[ir.Node | None]) -> str:
    return _shared(paths.get(node, "") for node in near if node is not None)


def _shared(paths: Iterable[str]) -> str:
    """What the named ones among paths have in common: the network itself where that is nothing; empty without any."""
    named = [path for path in paths if path]
    return common_path(named) or NETWORK if named else ""
