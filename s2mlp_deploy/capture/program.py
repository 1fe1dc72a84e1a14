"""A PyTorch module becomes a functional program: nothing in it writes into its arguments.

Functional means what the author of an in-place shift meant: the right-hand side is read whole before anything is
written. Eager PyTorch does not promise that (see :mod:`s2mlp_deploy.capture.hazards`).
"""

from __future__ import annotations

import inspect
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import ConstantArgument, OutputKind

import s2mlp_deploy.shift.op  # noqa: F401  registers s2mlp::shift
from s2mlp_deploy import torch_internals as internals
from s2mlp_deploy.capture.checks import (
    check_operators,
    check_runs,
    check_weights,
    refuse_mutation,
    user_frame,
)
from s2mlp_deploy.capture.frames import in_forward
from s2mlp_deploy.capture.hazards import evaluating
from s2mlp_deploy.errors import ExportError
from s2mlp_deploy.graph.axes import DYNAMIC_AXES, axis_name
from s2mlp_deploy.text import first_line_of, join_names


@dataclass(frozen=True)
class Captured:
    """A captured program and what its inputs and outputs are called.

    Attributes:
        program: Functional, in evaluation mode.
        input_names: One per tensor input, in order.
        output_names: One per tensor output, in order.
        notes: What was tried and did not work, for the manifest: why the batch is fixed, for example.
    """

    program: ExportedProgram
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    notes: tuple[str, ...] = ()


@internals.exclusive()
def capture(
    module: nn.Module | ExportedProgram,
    example_inputs: Sequence[Any],
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic: Sequence[str] = ("batch",),
) -> Captured:
    """Captures a module in evaluation mode, without gradients.

    A dynamic batch that the module does not allow becomes a fixed one, with a note; other dynamic axes were asked for,
    so that is an error.

    Args:
        module: Any module that ``torch.export`` accepts, left in the mode it was in; or a program already exported.
        example_inputs: Positional inputs: tensors, or structures of tensors.
        input_names: Names for the graph's inputs; default the names of ``forward``'s parameters.
        output_names: Names for its outputs; default dictionary keys, or ``output``, ``output_0``, ...
        dynamic: Names of :data:`~s2mlp_deploy.graph.axes.DYNAMIC_AXES`.

    Raises:
        CheckpointError: A weight is NaN, infinite or on the meta device.
        ExportError: The module cannot be captured.
    """
    notes: tuple[str, ...] = ()
    if isinstance(module, ExportedProgram):
        program = module
    else:
        check_weights(module)
        program, notes = _export(module, tuple(example_inputs), tuple(dynamic))
    with torch.no_grad(), internals.quiet_exporter():
        # An empty table decomposes nothing and still turns in-place writes into values.
        program = program.run_decompositions({})
    refuse_mutation(program)
    notes = (*notes, *check_operators(program))
    inputs, outputs = _names(program, input_names, output_names)
    return Captured(program, inputs, outputs, notes)


def _names(
    program: ExportedProgram, input_names: Sequence[str] | None, output_names: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of inputs and outputs: those given where their number fits, else the program's own.

    Raises:
        ExportError: A name was given twice; ONNX has one value a name.
    """
    own = [name for name in program.graph_signature.user_inputs if isinstance(name, str)]
    inputs = list(input_names) if input_names is not None and len(input_names) == len(own) else own
    count = len(program.graph_signature.user_outputs)
    given = output_names is not None and len(output_names) == count
    outputs = list(output_names or ()) if given else _output_names(program)
    twice = [name for name, times in Counter([*inputs, *(outputs if given else [])]).items() if times > 1]
    if twice:
        raise ExportError(
            f"two inputs or outputs are called {join_names(map(repr, twice))}",
            where=f"inputs {join_names(inputs)}; outputs {join_names(outputs)}",
            fix="give each input and output a name of its own",
        )
    taken = set(inputs)
    for index, name in enumerate(outputs):
        # {"a_b": x, "a": {"b": y}} gives both the same name, and a dictionary may repeat an input's.
        others = (f"{name}_{number}" for number in itertools.count(1))
        free = next(text for text in itertools.chain([name], others) if text not in taken)
        taken.add(free)
        outputs[index] = free
    return tuple(inputs), tuple(outputs)


def _export(
    module: nn.Module, inputs: tuple[Any, ...], dynamic: tuple[str, ...]
) -> tuple[ExportedProgram, tuple[str, ...]]:
    unknown = [name for name in dynamic if name not in DYNAMIC_AXES]
    if unknown:
        raise ExportError(
            f"no axis is called {', '.join(map(repr, unknown))}", fix=f"choose from {', '.join(DYNAMIC_AXES)}"
        )
    spatial = tuple(name for name in dynamic if name != "batch")
    wide = _widened(inputs)
    # A named Dim promises every size from 1 on; AUTO lets torch find a rule such as "a multiple of 8" or "17 or more".
    attempts = [(inputs, spatial, ())] + ([(inputs, spatial, spatial)] if spatial else [])
    if "batch" in dynamic:
        automatic = [(), *([spatial] if spatial else []), dynamic]
        attempts = [(wide, dynamic, names) for names in automatic] + attempts
    failures: list[ExportError] = []
    with evaluating(module):
        for example, free, automatic_names in attempts:
            try:
                program = _try_export(module, example, _dynamic_shapes(example, free, automatic_names))
                limits = _limits(program, spatial)
                if set(spatial) & set(automatic_names):
                    _probe(program, example, spatial)
            except _DecidesByValuesError:
                raise  # No other choice of free sizes changes that, and each attempt takes as long as this one.
            except ExportError as error:
                failures.append(error)
                continue
            if "batch" in dynamic and "batch" not in free:
                return program, (f"the batch is fixed: {failures[0].problem}", *limits)
            return program, (*_fixed_batch_notes(program), *limits)
        check_runs(module, inputs)
    # What ties a size says more than torch's constraints; else the last attempt, which asked for the least.
    raise next((failure for failure in failures if "cannot be free" in failure.problem), failures[0 if spatial else -1])


class _DecidesByValuesError(ExportError):
    """A branch or an integer of the module depends on the values of tensors."""


def _limits(program: ExportedProgram, names: Sequence[str]) -> tuple[str, ...]:
    """What free heights and widths may be, where that is not every size.

    Raises:
        ExportError: One is not free after all.
    """
    notes = []
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node.name not in program.graph_signature.user_inputs or not isinstance(value, Tensor) or value.dim() != 4:
            continue
        for name in names:
            size: Any = value.shape[DYNAMIC_AXES[name]]
            if str(size).isdigit():
                raise _tied(name, f"{node.name} must have {size}")
            limits = program.range_constraints.get(internals.expression_of(size))
            low = int(limits.lower) if limits is not None else 0
            # torch tells 0 and 1 from all other sizes; a lower bound of 2 is that and no limit of the module's.
            if low > 2:
                notes.append(f"the {name} of {node.name} is at least {low}")
            elif not str(size).isidentifier():
                notes.append(
                    f"the {name} of {node.name} is {internals.expression_of(size)} for a whole number {_symbols(size)}"
                )
    return tuple(notes)


def _tied(axes: str, reason: str) -> ExportError:
    return ExportError(
        f"{axes} cannot be free: {reason}",
        fix=f"leave {axes} away from the dynamic axes, or make the module independent of it",
    )


def _probe(program: ExportedProgram, inputs: tuple[Any, ...], names: Sequence[str]) -> None:
    """Tries twice the example's size: torch keeps what ties a size to a constant in guards, not in the shapes.

    Raises:
        ExportError: The program takes no other size.
    """

    def double(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dim() == 4:
            for name in names:
                value = torch.cat([value, value], DYNAMIC_AXES[name])
        return value

    try:
        with torch.no_grad():
            program.module()(*internals.tree_map(double, inputs))
    except Exception as error:
        raise _tied(" and ".join(names), f"at twice the example's size, {first_line_of(error)}") from error


def _symbols(size: Any) -> str:
    return ", ".join(sorted(map(str, internals.expression_of(size).free_symbols)))


def _try_export(module: nn.Module, inputs: tuple[Any, ...], shapes: Any) -> ExportedProgram:
    try:
        # Under gradients, torch.export refuses in-place writes on the pieces of a chunk.
        with torch.no_grad(), internals.quiet_exporter(), internals.whole_stacks(in_forward):
            return torch.export.export(module, inputs, dynamic_shapes=_bound(module, shapes))
    except internals.GuardOnDataDependentSymNode as error:
        raise _DecidesByValuesError(
            f"{type(module).__name__} decides by the values of tensors, and a graph takes one way only",
            where=user_frame(error),
            fix="use torch.where instead of `if`; make integers that come from tensors (int(x), x.item()) constants of "
            "the module",
        ) from error
    except Exception as error:
        raise ExportError(
            f"torch.export cannot capture {type(module).__name__}: {_reason(error)}",
            where=user_frame(error),
            fix="control flow and shapes must not depend on the values of tensors (torch.where, not `if`), and the "
            "module must accept the example inputs",
        ) from error


def _reason(error: Exception) -> str:
    """What torch says of the failure; of violated constraints which, not where to read about them."""
    details = [line.strip(" -") for line in str(error).splitlines() if line.strip().startswith("- ")]
    if "Constraints violated" in first_line_of(error) and details:
        return details[0]
    return first_line_of(error)


def _bound(module: nn.Module, shapes: tuple[Any, ...]) -> tuple[Any, ...]:
    """The shapes of positional arguments as forward takes them: those of ``*args`` are one tuple."""
    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return shapes
    first = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*shapes[:first], tuple(shapes[first:]))


def _widened(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Doubles a batch of one: torch.export takes an axis of size 1 for a constant."""

    def widen(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dim() and value.shape[0] == 1:
            return torch.cat([value, value])
        return value

    result: tuple[Any, ...] = internals.tree_map(widen, inputs)
    return result


def _dynamic_shapes(inputs: tuple[Any, ...], dynamic: Sequence[str], automatic: Sequence[str]) -> Any:
    # One Dim per name: inputs share it.
    dims = {name: Dim.AUTO if name in automatic else Dim(name, min=1) for name in dynamic}

    def axes(value: Any) -> dict[int, Any] | None:
        if not isinstance(value, Tensor):
            return None
        spatial = value.dim() == 4
        return {DYNAMIC_AXES[name]: dim for name, dim in dims.items() if value.dim() and (name == "batch" or spatial)}

    return internals.tree_map(axes, inputs)


def _fixed_batch_notes(program: ExportedProgram) -> tuple[str, ...]:
    fixed = [
        node.name
        for node in program.graph.nodes
        if node.op == "placeholder"
        and node.name in program.graph_signature.user_inputs
        and isinstance(node.meta.get("val"), Tensor)
        and node.meta["val"].dim()
        # torch leaves a size that it found to be constant as a symbolic integer of one value.
        and str(node.meta["val"].shape[0]).isdigit()
    ]
    return (f"the batch of {', '.join(fixed)} is fixed: the module ties it to a constant",) if fixed else ()


def _output_names(program: ExportedProgram) -> list[str]:
    """Names from the structure that forward returns."""
    spec = program.call_spec.out_spec
    assert spec is not None
    tree = internals.tree_unflatten(list(range(spec.num_leaves)), spec)
    names = []
    signature = program.graph_signature.output_specs
    kept = [spec.arg for spec in signature if spec.kind == OutputKind.USER_OUTPUT]
    for (path, _), argument in zip(internals.tree_flatten_with_path(tree)[0], kept, strict=True):
        if isinstance(argument, ConstantArgument):  # An output that is None has a place in the structure, but no name.
            continue
        keys = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path]
        text = "_".join(keys) if keys else "output"
        names.append(f"output_{text}" if text[:1].isdigit() else text)
    return names


def input_shapes(program: ExportedProgram) -> list[tuple[int | str, ...]]:
    """Shape of every tensor input in order, dynamic sizes as text."""
    return [
        tuple(_named(axis, size) for axis, size in enumerate(node.meta["val"].shape))
        for node in program.graph.nodes
        if node.op == "placeholder"
        and node.name in program.graph_signature.user_inputs
        and isinstance(node.meta.get("val"), Tensor)
    ]


def _named(axis: int, size: Any) -> int | str:
    """A size for people: the number, or what the axis is called where it is free."""
    text = str(size)
    if text.isdigit():
        return int(text)
    return axis_name(axis, text) if text.isidentifier() else text
