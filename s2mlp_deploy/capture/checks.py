"""What a module and its program must be to become a graph; each refusal names the line and the fix."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument
from torch.fx import GraphModule, Node
from torch.overrides import TorchFunctionMode

from s2mlp_deploy import torch_internals as internals
from s2mlp_deploy.capture.frames import UserLine, last_user_line, line_of_stack
from s2mlp_deploy.capture.hazards import cloned, evaluating
from s2mlp_deploy.errors import CheckpointError, ExportError
from s2mlp_deploy.text import first_line_of, join_names


def check_weights(module: nn.Module | ExportedProgram) -> None:
    """Refuses a module or program that can only answer NaN, or that has no weights yet.

    NaN is refused anywhere, infinity in parameters only.

    Raises:
        CheckpointError: Names the weights.
    """
    # Buffers that are not saved count too: a module's state dict has them not, a program has them as constants.
    saved = {**module.state_dict, **module.constants} if isinstance(module, ExportedProgram) else module.state_dict()
    named: dict[str, Any] = {**dict(module.named_parameters()), **dict(module.named_buffers()), **saved}
    state = {name: tensor for name, tensor in named.items() if isinstance(tensor, Tensor)}
    lazy = [name for name, tensor in state.items() if nn.parameter.is_lazy(tensor)]
    if lazy:
        raise CheckpointError(
            f"{len(lazy)} weights of lazy layers have no shape yet",
            where=join_names(lazy),
            fix="call the module once on its example in the factory, then load its weights",
        )
    meta = [name for name, tensor in state.items() if tensor.is_meta]
    if meta:
        raise CheckpointError(
            f"{len(meta)} weights are on the meta device and have no values",
            where=join_names(meta),
            fix="load a checkpoint, or build the module on the CPU",
        )
    parameters = {name for name, _ in module.named_parameters()}
    bad = []
    for name, tensor in state.items():
        if tensor.is_floating_point():
            # A mask is a buffer of -inf, and no training put it there.
            wrong = ~tensor.isfinite() if name in parameters else tensor.isnan()
            if bool(wrong.any()):
                bad.append(f"{name} ({int(wrong.sum())} of {tensor.numel()} values)")
    if bad:
        raise CheckpointError(
            f"{len(bad)} weights hold NaN or infinite values",
            where=join_names(bad),
            fix="use a checkpoint from before the training diverged",
        )


def check_runs(module: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Tells example inputs that do not fit from a module that cannot be captured.

    Raises:
        ExportError: The module itself fails on the example.
    """
    try:
        with torch.no_grad():
            module(*cloned(inputs))
    except Exception as error:
        raise ExportError(
            f"{type(module).__name__} does not run on its example inputs: {first_line_of(error)}",
            where=user_frame(error),
            fix=f"give example inputs that fit; they are {_described(inputs)}",
        ) from error


def returned_tensors(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """The tensors that a module returns for its example inputs; none where it fails, which a capture explains."""
    try:
        with evaluating(module), torch.no_grad(), torch.random.fork_rng(devices=[]):
            values = internals.tree_leaves(module(*cloned(inputs)))
    except Exception:  # Whatever the user's code raises.
        return ()
    return tuple(value for value in values if isinstance(value, Tensor))


def _described(inputs: tuple[Any, ...]) -> str:
    leaves = [
        f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
        if isinstance(value, Tensor)
        else type(value).__name__
        for value in internals.tree_leaves(inputs)
    ]
    return ", ".join(leaves) or "none"


def refuse_mutation(program: ExportedProgram) -> None:
    """Refuses a module whose forward changes its input or its buffers.

    Raises:
        ExportError: Names what is changed.
    """
    signature = program.graph_signature
    inputs, buffers = signature.user_inputs_to_mutate.values(), signature.buffers_to_mutate.values()
    # What is written back is the value of the last write.
    written = {*signature.user_inputs_to_mutate, *signature.buffers_to_mutate}
    lines = [line_of_stack(node.meta.get("stack_trace")) for node in program.graph.nodes if node.name in written]
    where = join_names(list(dict.fromkeys(str(line) for line in lines if line)), separator="; ") or None
    if inputs:
        raise ExportError(
            f"forward changes {', '.join(map(repr, inputs))} in place",
            where=where,
            fix="work on a copy: begin forward with x = x.clone()",
        )
    if buffers:
        raise ExportError(
            f"forward changes the buffers {', '.join(map(repr, buffers))}, and a graph keeps no state between runs",
            where=where,
            fix="update them in training only (if self.training: ...), or make them an input and an output",
        )


def check_operators(program: ExportedProgram) -> tuple[str, ...]:
    """Refuses what cannot be compared or has no fixed interface; notes what is drawn at random.

    Raises:
        ExportError: Dropout is on, a shape depends on values, something is bfloat16, or an output is no tensor.
    """
    _refuse_bfloat16(program)
    notes = []
    for node in all_nodes(program):
        line = line_of_stack(node.meta.get("stack_trace"))
        value = node.meta.get("val")
        if isinstance(value, Tensor) and internals.free_unbacked_symbols(value):
            raise ExportError(
                f"a shape depends on the values of tensors: {node.target}",
                where=str(line) if line else None,
                fix="return whole tensors with a mask or scores (torch.where), and select after the model",
            )
        schema = internals.schema_of(node.target)
        if node.op != "call_function" or schema is None or not _is_random(node.target):
            continue
        values = {
            argument.name: node.args[index] if index < len(node.args) else node.kwargs.get(argument.name)
            for index, argument in enumerate(schema.arguments)
        }
        probability = next((values[name] for name in ("p", "dropout", "dropout_p") if values.get(name)), 0)
        if probability and ("dropout_p" in values or values.get("train") is True):
            raise ExportError(
                "dropout is on in evaluation mode",
                where=str(line) if line else None,
                fix="use nn.Dropout, or F.dropout(x, p, self.training); export a .pt2 program from model.eval()",
            )
        if values.get("training") is True or not {"train", "training", "dropout_p"} & values.keys():
            place = f"{line.short}: {line.code}" if line else "its place is unknown"
            notes.append(f"{node.target} draws at random, so that parity cannot hold ({place})")
    for spec in program.graph_signature.output_specs:
        if isinstance(spec.arg, ConstantArgument) and spec.arg.value is not None:
            raise ExportError(
                f"forward returns {spec.arg.value!r}, which is no tensor", fix="return tensors, or structures of them"
            )
    return tuple(dict.fromkeys(notes))


def _refuse_bfloat16(program: ExportedProgram) -> None:
    nodes = [node for node in all_nodes(program) if node.op == "call_function" and _dtype(node) == torch.bfloat16]
    if nodes:
        # Where autocast adds the casts, torch notes no lines.
        lines = (line_of_stack(node.meta.get("stack_trace")) for node in nodes)
        raise ExportError(
            f"{nodes[0].target} computes in bfloat16, for which ONNX Runtime has hardly any kernels",
            where=next((str(line) for line in lines if line), None),
            fix="leave torch.autocast and casts to bfloat16 out of forward; --precision makes smaller files",
        )


def _dtype(node: Node) -> torch.dtype | None:
    value = node.meta.get("val")
    return value.dtype if isinstance(value, Tensor) else None


def all_nodes(program: ExportedProgram) -> Iterator[Node]:
    """The nodes of a program, those in the branches of ``torch.cond`` too."""
    for module in program.graph_module.modules():
        if isinstance(module, GraphModule):
            yield from module.graph.nodes


def _is_random(target: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(target, "tags", ())


class _DataAccess(TorchFunctionMode):
    """Notes the first line of the user's that asks a tensor for its ``.data``."""

    def __init__(self) -> None:
        super().__init__()
        self.line: UserLine | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.line is None and func == Tensor.data.__get__:  # type: ignore[attr-defined]
            self.line = last_user_line(traceback.extract_stack()[:-1])
        return func(*args, **(kwargs or {}))


def line_of_data_access(module: nn.Module, inputs: Sequence[Any]) -> str | None:
    """The first line of a module that goes around torch through ``Tensor.data``; runs the module.

    ``torch.export`` cannot follow what is done there, and names neither the line nor the attribute.
    """
    try:
        with torch.no_grad(), _DataAccess() as watching:
            module(*inputs)
    except Exception:
        return None
    line: UserLine | None = watching.line
    return str(line) if line is not None else None


def user_frame(error: BaseException) -> str | None:
    """File, line and code of the innermost frame of a traceback that is the user's."""
    line = last_user_line(traceback.extract_tb(error.__traceback__))
    return str(line) if line else None
