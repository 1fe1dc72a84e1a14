"""What leaves each module of a network, in the captured program and in a graph of it, matched by the module's path.

A value leaves a module where a node of the module makes it and a node outside reads it. One value is matched once,
under the innermost module that it leaves. What cannot be matched for certain is told with the reason, never guessed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.artifact import NETWORK, module_of
from s2mlp_deploy.evidence.layers import Unmatched
from s2mlp_deploy.graph.operators import array_of, data_inputs, is_movement

V = TypeVar("V", bound=Hashable)
Shape = tuple[int | None, ...]

_SHIFT = re.compile(r"Shift(_\d+)?")
CASTS = frozenset({"Cast", "QuantizeLinear", "DequantizeLinear"})
"""What changes how numbers are stored and not which they are."""
_ROWS = 2
"""Axes of a tensor that the file keeps in rows, one for each position of each sample."""


@dataclass(frozen=True)
class Tap:
    """A value of the captured program that leaves a module.

    Attributes:
        path: Of the innermost module that it leaves, or the name of a shift among other nodes of one:
            ``mixer/Shift_1``.
        node: The program's node that makes it.
        ends: The modules around that one that end with the same value.
        kind: The module's class, or ``shift``.
        line: ``file.py:12`` of the user's code that made it; empty where it is not known.
        shape: Free sizes are None; None where it is not known.
        after_norm: The path of the module whose result a batch norm of inference reads to make this value: a file may
            have folded the norm into that module. Empty where there is none.
        shifts: Of a shift among other nodes: how many its module has.
        named: Whether the path is the name of a value, of a graph whose nodes are named after no modules.
    """

    path: str
    node: str
    ends: tuple[str, ...]
    kind: str
    line: str
    shape: Shape | None
    after_norm: str = ""
    shifts: int = 0
    named: bool = False


@dataclass(frozen=True)
class GraphTap:
    """A value of an ONNX graph as it is looked at.

    Attributes:
        value: Its name.
        scale: Of integers: the name of the scale that makes floats of them.
        zero: The name of their zero point; empty where they have none.
        shape: What its rows are seen as; None where it has the module's axes.
    """

    value: str
    scale: str = ""
    zero: str = ""
    shape: Shape | None = None


def exits(values: Iterable[tuple[V, str, Sequence[str | None]]], modules: Collection[str]) -> dict[str, list[V]]:
    """The values that leave each module.

    Args:
        values: In order: each value, the path of the module that makes it, and those of its readers; None for a reader
            outside of everything, such as the graph's end.
        modules: The paths that are modules.

    Returns:
        By module the values that leave it, in order; nothing for modules that nothing leaves.
    """
    found: dict[str, list[V]] = {}
    for value, path, readers in values:
        for module in ancestors(path):
            if module in modules and any(reader is None or not _within(reader, module) for reader in readers):
                found.setdefault(module, []).append(value)
    return found


def ancestors(path: str) -> list[str]:
    """A path and those above it, innermost first, without the root: ``a.b`` gives ``a.b``, ``a``."""
    parts = path.split(".") if path else []
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _within(path: str, module: str) -> bool:
    return path == module or path.startswith(f"{module}.")


def scope_of(node: ir.Node) -> str:
    """The module whose path a node is named after; empty for a node of the root."""
    path = module_of(str(node.name or ""))
    return "" if path == NETWORK else path


def match_taps(taps: Sequence[Tap], graph: ir.Graph) -> tuple[dict[str, GraphTap], tuple[Unmatched, ...]]:
    """Finds each value of the program in a graph, by the path of the module that it leaves.

    Args:
        taps: Of the program, whose paths the graph's nodes are named after.
        graph: Of a file of that program, in any precision.

    Returns:
        By the tap's path the value in the graph; and what has none, with the reason.
    """
    paths = {tap.path for tap in taps} | {end for tap in taps for end in tap.ends} | {t.after_norm for t in taps}
    inputs = {str(value.name) for value in graph.inputs}
    nodes = [node for node in graph if scope_of(node) not in inputs - paths]
    there = {path for node in nodes for path in ancestors(scope_of(node))}
    leaving = exits(
        (
            (value, scope_of(node), readers(value))
            for node in nodes
            for value in node.outputs
            if node.op_type != "Shape"
        ),
        paths,
    )
    folded = {tap.after_norm: tap.path for tap in taps if tap.after_norm and tap.path not in there}
    found: dict[str, GraphTap] = {}
    unmatched: list[Unmatched] = []
    by_name = {str(value.name): value for node in graph for value in node.outputs}
    for tap in taps:
        if tap.path in folded:
            unmatched.append(Unmatched(tap.path, f"the batch norm {folded[tap.path]} is folded into it in the file"))
            continue
        source = tap.after_norm if folded.get(tap.after_norm) == tap.path else tap.path
        own = tap.named or "/" in tap.path
        if tap.named:
            value: ir.Value | str = by_name.get(tap.path, "the file has no value of that name")
        elif own:
            value = shift_result(graph, tap)
        else:
            value = single(leaving.get(source, []), within=source)
        if isinstance(value, str):
            reason = value if source in there or own else _ABSENT
            unmatched.append(Unmatched(tap.path, reason))
            continue
        looked_at = _as_floats(value)
        if looked_at is None:
            unmatched.append(Unmatched(tap.path, "it is integers in the file, and their scale is not one constant"))
            continue
        turned = _in_shape(looked_at, value, tap.shape)
        if turned is None:
            shape = "x".join("?" if size is None else str(size) for size in shape_of(value) or ())
            wanted = "x".join("?" if size is None else str(size) for size in tap.shape or ())
            unmatched.append(Unmatched(tap.path, f"its result is {shape} in the file and {wanted} in the model"))
            continue
        found[tap.path] = turned
    return found, tuple(unmatched)


_ABSENT = "the file has no node of it: it was merged with another module, or computes nothing"


def readers(value: ir.Value) -> list[str | None]:
    """The modules that read a value, and None for the graph's end; sizes that are read off it do not count."""
    found: list[str | None] = [scope_of(node) for node, _ in value.uses() if node.op_type != "Shape"]
    return [*found, None] if value.is_graph_output() else found


def single(values: Sequence[ir.Value], *, within: str | None = None) -> ir.Value | str:
    """The one value that leaves a module, or why there is none. A tensor and its rounded forms are one value.

    Args:
        values: That leave it.
        within: The module, where several values may be parts of one that it makes.
    """
    roots: dict[ir.Value, list[ir.Value]] = {}
    for value in values:
        roots.setdefault(root_of(value), []).append(value)
    if not roots:
        return "nothing leaves it in the file"
    if len(roots) > 1:
        wholes = {_whole(root, within) for root in roots} if within is not None else set()
        if len(wholes) == 1:
            return wholes.pop()
        return f"{len(roots)} tensors leave it in the file, and which is which the names do not tell"
    forms = next(iter(roots.values()))
    # What was quantized and read as floats again is what the layers behind it compute with.
    return next((v for v in forms if _made_by(v) == "DequantizeLinear"), forms[-1])


def _whole(value: ir.Value, module: str) -> ir.Value:
    """What a value is a part of: the value above all movement of its module."""
    producer = value.producer()
    while (
        producer is not None
        and (producer.op_type in CASTS or (is_movement(producer) and len(data_inputs(producer)) == 1))
        and producer.inputs
        and (above := producer.inputs[0]) is not None
        and (maker := above.producer()) is not None
        and _within(scope_of(maker), module)
    ):
        value, producer = above, maker
    return value


def _made_by(value: ir.Value) -> str:
    producer = value.producer()
    return producer.op_type if producer is not None else ""


def root_of(value: ir.Value) -> ir.Value:
    """The tensor itself, above changes of its type."""
    producer = value.producer()
    while producer is not None and producer.op_type in CASTS and producer.inputs[0] is not None:
        value = producer.inputs[0]
        producer = value.producer()
    return value


def shift_result(graph: ir.Graph, tap: Tap) -> ir.Value | str:
    """The result of a shift that has nodes of its own name."""
    module = tap.path.partition("/")[0]
    there = {name for node in graph if (name := shift_of(node)).partition("/")[0] == module and name}
    if len(there) != tap.shifts:
        # Equal shifts of one tensor are computed once, and the numbers of the others are not the program's then.
        return f"the file has {len(there)} shifts of the module, the program {tap.shifts}: which is which is not told"
    nodes = [node for node in graph if shift_of(node) == tap.path and node.op_type not in CASTS]
    made = [value for node in nodes for value in node.outputs]
    own = set(nodes)
    results = [v for v in made if v.is_graph_output() or any(reader not in own for reader, _ in v.uses())]
    if len(results) != 1:
        return "the file has no shift of that name" if not nodes else f"it has {len(results)} results in the file"
    return results[0]


def shift_of(node: ir.Node) -> str:
    """The name of the shift that a node is part of: ``mixer/Shift_1``; empty where it is of none."""
    module, _, rest = str(node.name or "").partition("/")
    shift, _, own = rest.partition("/")
    return f"{module}/{shift}" if own and _SHIFT.fullmatch(shift) else ""


def _as_floats(value: ir.Value) -> GraphTap | None:
    """How a value is read as floats: itself, the DQ behind integers, or one of its own; None where there is no way."""
    name = str(value.name)
    if value.dtype not in (ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.FLOAT8E4M3FN):
        return GraphTap(name)
    scaling = next((reader for reader, _ in value.uses() if reader.op_type == "DequantizeLinear"), None)
    above = value.producer()
    while scaling is None and above is not None and above.op_type != "QuantizeLinear":
        if not (is_movement(above) or above.op_type == "Cast") or above.inputs[0] is None:
            return None
        above = above.inputs[0].producer()
    scaling = scaling or above
    if scaling is None or scaling.inputs[1] is None:
        return None
    scale = array_of(scaling.inputs[1])
    if scale is None or scale.size != 1:
        return None
    zero = scaling.inputs[2] if len(scaling.inputs) > 2 else None
    return GraphTap(name, str(scaling.inputs[1].name), str(zero.name) if zero is not None else "")


def shape_of(value: ir.Value) -> Shape | None:
    """Its sizes, None for a free one; None where they are not known."""
    return None if value.shape is None else tuple(size if isinstance(size, int) else None for size in value.shape)


def _fits(shape: Shape | None, wanted: Shape | None) -> bool:
    """Whether two shapes may be the same; what is not known is looked at when the graph has run."""
    if shape is None or wanted is None:
        return True
    return len(shape) == len(wanted) and all(
        a is None or b is None or a == b for a, b in zip(shape, wanted, strict=True)
    )


def _in_shape(tap: GraphTap, value: ir.Value, wanted: Shape | None) -> GraphTap | None:
    """A value where it has the program's shape, else the transposition of it that the graph itself makes."""
    if _fits(shape_of(value), wanted):
        return tap
    turned = [reader.outputs[0] for reader, _ in value.uses()]
    if turned and all(_made_by(v) == "Transpose" and _fits(shape_of(v), wanted) for v in turned) and not tap.scale:
        return GraphTap(str(turned[0].name))
    rows = shape_of(value)
    if (
        rows is None
        or wanted is None
        or not len(rows) == _ROWS < len(wanted)
        or rows[1] != wanted[-1]
        or wanted.count(None) > 1
    ):
        return None
    known = [size for size in wanted[:-1] if size is not None]
    return replace(tap, shape=wanted) if rows[0] is None or rows[0] == math.prod(known) else None


def _seen_as(graph: ir.Graph, rows: ir.Value, shape: Shape) -> ir.Value:
    """Rows with the axes that they have in the module."""
    sizes = np.array([-1 if size is None else size for size in shape], np.int64)
    target = ir.Value(
        name=f"{rows.name}/tap.shape",
        type=ir.TensorType(ir.DataType.INT64),
        shape=ir.Shape([len(shape)]),
        const_value=ir.tensor(sizes),
    )
    graph.register_initializer(target)
    result = ir.Value(name=f"{rows.name}/tap.view", type=rows.type, shape=ir.Shape(shape))
    producer = rows.producer()
    assert producer is not None
    graph.insert_after(producer, ir.Node("", "Reshape", [rows, target], outputs=[result], name=f"{rows.name}/view"))
    return result


def tapped(model: ir.Model, taps: Mapping[str, GraphTap]) -> tuple[ir.Model, dict[str, str]]:
    """A graph with more outputs.

    Args:
        model: Stays as it is.
        taps: By path the values that become outputs.

    Returns:
        A copy; and by path the name of the output.
    """
    model = model.clone()
    graph = model.graph
    values: dict[str, ir.Value] = {str(v.name): v for v in (*graph.inputs, *graph.initializers.values())}
    values.update({str(v.name): v for node in graph for v in node.outputs})
    already = {str(value.name) for value in graph.outputs}
    named: dict[str, str] = {}
    for path, tap in taps.items():
        value = values[tap.value]
        if tap.scale:
            scale = values[tap.scale]
            result = ir.Value(name=f"{tap.value}/tap.out", type=ir.TensorType(ir.DataType.FLOAT), shape=value.shape)
            inputs = [value, scale, *([values[tap.zero]] if tap.zero else [])]
            producer = value.producer()
            node = ir.Node("", "DequantizeLinear", inputs, outputs=[result], name=f"{tap.value}/tap")
            assert producer is not None
            graph.insert_after(producer, node)
            value = result
        if tap.shape is not None:
            value = _seen_as(graph, value, tap.shape)
        if str(value.name) not in already:
            already.add(str(value.name))
            graph.outputs.append(value)
        named[path] = str(value.name)
    return model, named
