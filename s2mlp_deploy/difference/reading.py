"""An ONNX graph as it is compared: its nodes by module, each with what it computes in words that can be compared."""

from __future__ import annotations

import functools
import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir

from s2mlp_deploy.artifact import common_path
from s2mlp_deploy.difference.constants import Constant, bytes_of, constant_of, numbers_of
from s2mlp_deploy.difference.weights import Weight
from s2mlp_deploy.graph.modules import modules_of, number_name

_SHOWN = 16
"""Numbers of a constant that are shown; of longer ones a digest is compared."""

_QDQ = frozenset({"QuantizeLinear", "DequantizeLinear"})
_DIGEST = 6
_FUNCTION = "function "


@dataclass(eq=False)
class Node:
    """A node of a graph.

    Attributes:
        node: The node.
        op: Its operator, with a domain of its own ``s2mlp::Shift``.
        module: Path of its module.
        settings: Attributes and constants that are no weights, by name, in words; defaults are filled in.
        weights: How many elements each weight has that it reads.
    """

    node: ir.Node
    op: str
    module: str
    settings: Mapping[str, str]
    weights: tuple[int, ...]

    @property
    def name(self) -> str:
        """Its name; where it has none, that of its result."""
        return self.node.name or next((str(value.name) for value in self.node.outputs if value.name), "")

    @functools.cached_property
    def what(self) -> tuple[object, ...]:
        """What it computes, types and shapes aside."""
        return (self.op, tuple(sorted(self.settings.items())), self.weights)


@dataclass
class Graph:
    """A graph.

    Attributes:
        model: As it was read.
        nodes: By module, in graph order; nodes that hold constants are left out.
        weights: Constants of numbers that nodes read.
        bytes: Of constants, by module and type of number.
        constants: What nodes read that is constant.
    """

    model: ir.Model
    nodes: dict[str, list[Node]] = field(default_factory=dict)
    weights: list[Weight] = field(default_factory=list)
    bytes: dict[str, dict[str, int]] = field(default_factory=dict)
    constants: dict[ir.Value, Constant] = field(default_factory=dict)

    @property
    def names_modules(self) -> bool:
        """Whether the file tells modules apart."""
        return any(map(is_module, self.nodes))

    def join(self, nodes: list[Node]) -> None:
        """Makes one nameless module of all."""
        sizes: Counter[str] = Counter()
        for kinds in self.bytes.values():
            sizes.update(kinds)
        for node in nodes:
            node.module = ""
        for weight in self.weights:
            weight.module = ""
        self.nodes, self.bytes = {"": nodes}, {"": dict(sizes)}

    def rename(self, names: Mapping[str, str]) -> None:
        """Gives modules other paths."""
        self.nodes = {names.get(path, path): nodes for path, nodes in self.nodes.items()}
        self.bytes = {names.get(path, path): sizes for path, sizes in self.bytes.items()}
        for path, nodes in self.nodes.items():
            for node in nodes:
                node.module = path
        for weight in self.weights:
            weight.module = names.get(weight.module, weight.module)


def is_module(path: str) -> bool:
    """Whether a path is that of a module, not the network's own or that of a function."""
    return bool(path) and not path.startswith(("(", _FUNCTION))


def read(model: ir.Model) -> Graph:
    """Reads a model's graph, its subgraphs and its functions."""
    graph = Graph(model)
    opset = model.opset_imports.get("", 1)
    found: dict[ir.Value, Weight] = {}
    for module in modules_of(model.graph).values():
        if module.weights:
            graph.bytes[module.path] = module.weight_bytes
        for node in module.nodes:
            _add(graph, found, node, module.path, opset)
    for function in model.functions.values():
        path = f"{_FUNCTION}{function.name}"
        for node in function.all_nodes():
            _add(graph, found, node, path, function.opset_imports.get("", opset))
    graph.weights = list(found.values())
    return graph


def _add(graph: Graph, found: dict[ir.Value, Weight], node: ir.Node, module: str, opset: int) -> None:
    if node.op_type == "Constant" and not node.domain:
        return
    names = _input_names(node.domain, node.op_type, node.version or opset)
    settings = dict(_defaults(node.domain, node.op_type, node.version or opset))
    settings |= {name: _attribute(item) for name, item in node.attributes.items()}
    sizes: list[int] = []
    # A node that a constant goes through is no reader of it.
    passes = constant_of(node.outputs[0], opset) is not None if node.outputs else False
    for position, value in enumerate(node.inputs):
        constant = constant_of(value, opset)
        if constant is None or value is None:
            continue
        graph.constants[value] = constant
        if passes and position == 0:
            continue
        scale = node.op_type in _QDQ and position > 0
        if constant.is_float and not scale:
            weight = found.setdefault(value, Weight(constant, module))
            weight.readers.append((node, position))
            sizes.append(constant.elements)
        else:
            name = names[min(position, len(names) - 1)] if names else f"input {position}"
            settings[name] = _numbers(constant.stored)
    if node.op_type == "Slice" and set(settings.get("steps", "").strip("[]").split(", ")) == {"1"}:
        del settings["steps"]  # The default of an input, which the schema does not tell.
    op = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    graph.nodes.setdefault(module, []).append(Node(node, op, module, settings, tuple(sorted(sizes))))


@functools.lru_cache(maxsize=4096)
def _schema(domain: str, op: str, opset: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op, opset, domain)
    except (onnx.defs.SchemaError, TypeError):  # TypeError: of a version that no 32 bits hold.
        return None


def _input_names(domain: str, op: str, opset: int) -> tuple[str, ...]:
    schema = _schema(domain, op, opset)
    return () if schema is None else tuple(item.name for item in schema.inputs)


@functools.lru_cache(maxsize=4096)
def _defaults(domain: str, op: str, opset: int) -> tuple[tuple[str, str], ...]:
    """The attributes that a node has which does not say them."""
    schema = _schema(domain, op, opset)
    if schema is None:
        return ()
    return tuple(
        (name, _attribute(ir.serde.deserialize_attribute(item.default_value)))
        for name, item in schema.attributes.items()
        if item.default_value is not None and item.default_value.name
    )


def _attribute(attribute: ir.Attr) -> str:
    """An attribute's value in words that are equal where the values are."""
    value = attribute.value
    if attribute.type == ir.AttributeType.GRAPH:
        return f"graph of {len(value)} nodes"
    if attribute.type == ir.AttributeType.TENSOR:
        return _numbers(value)
    if isinstance(value, bytes):
        value = value.decode(errors="backslashreplace")
    if isinstance(value, float):
        return f"{value:.9g}"
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, Sequence):
        items = [f"{item:.9g}" if isinstance(item, float) else str(item) for item in value]
        if len(items) <= _SHOWN:
            return f"[{', '.join(items)}]"
        return f"{len(items)} values {_digest(repr(items).encode())}"
    return str(value) if value is not None else f"attribute {attribute.ref_attr_name}"


def _numbers(tensor: ir.TensorProtocol) -> str:
    """A constant that is no weight, in words."""
    sizes = tuple(int(size) for size in tensor.shape if isinstance(size, int))
    if math.prod(sizes) <= _SHOWN and tensor.dtype != ir.DataType.STRING:
        try:
            array = numbers_of(tensor)
        except ValueError:
            return "damaged"
        numbers = [f"{float(item):.6g}" if _is_float(array) else str(item) for item in array.reshape(-1).tolist()]
        return numbers[0] if not sizes and numbers else f"[{', '.join(numbers)}]"
    return f"{number_name(tensor.dtype)} {'x'.join(map(str, sizes))} {_digest(bytes_of(tensor))}"


def _is_float(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bool:
    return array.dtype.kind not in "iub"


def _digest(data: bytes) -> str:
    return f"#{hashlib.blake2b(data, digest_size=_DIGEST).hexdigest()}"


def root_of(paths: Sequence[str]) -> str:
    """What all modules of a network lie in; empty where they lie side by side."""
    return common_path(filter(is_module, paths))
