"""ONNX's own checker: of files that others wrote, and of graphs before they are written."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

from s2mlp_deploy.text import first_line_of

_CONSTANT_BYTES = 1024
"""Initializers up to this size are shapes, axes and scalars, which shape inference needs to see."""

_LONGEST = 300
"""Characters of what the checker says that are shown: it repeats the names of others."""


def problem_of_file(path: Path) -> str:
    """Why a file's graph cannot mean anything: a cycle, an input that nothing makes, an operator that does not exist.

    Operators of other domains than ONNX's own are not judged, and shapes are not inferred, as :func:`problem_of` does.

    Returns:
        What ONNX's checker says; empty where it accepts the file.
    """
    try:
        onnx.checker.check_model(str(path))
    except Exception as error:  # The checker's own type, protobuf's, and ValueError.
        # The lines up to where the checker prints the whole node.
        problem = " ".join(str(error).partition("==>")[0].split())[:_LONGEST]
        if "topologically sorted" not in problem:
            return problem
        # Runtimes take nodes in any order, and converters to float16 write them so.
        try:
            model = ir.load(path, format="protobuf")
        except Exception as error:  # Its own type, for what ONNX's checker takes.
            return first_line_of(error)
        return _problem(model, infer=False) if in_order(model) else "it has a cycle"
    return ""


def in_order(model: ir.Model) -> bool:
    """Puts each node behind those that it reads, where the file has another order.

    Returns:
        Whether that can be done: not where the graph has a cycle, which stays as it is.
    """
    seen: set[ir.Node] = set()
    for node in model.graph.all_nodes():
        producers = {value.producer() for value in node.inputs if value is not None} - {None}
        if not producers <= seen:
            break
        seen.add(node)
    else:
        return True
    try:
        model.graph.sort()
    except ValueError:
        return False
    return True


def problem_of(model: ir.Model) -> str:
    """What ONNX's checker says of a graph when every shape and type is inferred again; empty where it accepts it.

    The checker copies what it checks, so it gets large weights as inputs, which cost nothing.
    """
    return _problem(model.clone(), infer=True)


def _problem(shell: ir.Model, *, infer: bool) -> str:
    """Of a graph that loses its weights here."""
    weights = dict(shell.graph.initializers)
    shell.graph.initializers.clear()
    try:
        checked = ir.to_proto(shell)
        for value in weights.values():
            if value.const_value is not None and value.const_value.nbytes <= _CONSTANT_BYTES:
                checked.graph.initializer.append(weight_proto(value))
            else:
                checked.graph.input.append(ir.to_proto(value))
        onnx.checker.check_model(checked, full_check=infer)
    except Exception as error:
        return first_line_of(error)
    return ""


def weight_proto(value: ir.Value) -> onnx.TensorProto:
    """An initializer as it is written, under its name in the graph and with its own bytes."""
    tensor = value.const_value
    assert tensor is not None
    if isinstance(tensor, ir.ExternalTensor):
        # Written as it is, it would refer to the file that it was read from.
        tensor = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, shape=tensor.shape)
    proto = ir.to_proto(tensor)
    # The tensor may be known by an older name; what nodes refer to is the value's.
    proto.name = value.name or ""
    return proto
