"""A PyTorch module becomes a functional program: nothing in it writes into its arguments.

Functional means what the author of an in-place shift meant: the right-hand side is read whole before anything is
written. Eager PyTorch does not promise that (see :mod:`s2mlp_deploy.capture.hazards`).
"""

from __future__ import annotations

import inspect
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import ConstantArgument, OutputKind
from torch.fx import GraphModule, Node

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

_NO_BOUND = 2**31


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
        dynamic: Names of :data:`~s2mlp_deploy.graph.axes.DYNAMIC_AXES`, checked by the caller.

    Raises:
        CheckpointError: A weight is NaN, infinite or on the meta device.
        ExportError: The module cannot be captured.
    """
    check_weights(module)
    notes: tuple[str, ...] = ()
    if isinstance(module, ExportedProgram):
        program, notes = module, _limits(module)
    else:
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
                limits = (*_limits(program, spatial), *_check_guards(program, example, free))
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


def _limits(program: ExportedProgram, required: Sequence[str] = ()) -> tuple[str, ...]:
    """What free sizes may be, where that is not every size.

    Raises:
        ExportError: A required height or width is not free after all.
    """
    notes = []
    for node, name, size in _named_sizes(program):
        if not isinstance(size, torch.SymInt) or str(size).isdigit():
            if name in required:
                raise _tied(name, f"{node.name} must have {size}")
            continue
        low, high = _bounds(program, size)
        # torch tells 0 and 1 from all other sizes; a lower bound of 2 is that and no limit of the module's.
        limits = [f"at least {low}"] * (low > 2) + [f"at most {high}"] * (high is not None)
        if not str(size).isidentifier():
            formula = (
                f"the {name} of {node.name} is {internals.expression_of(size)} for a whole number {_symbols(size)}"
            )
            notes.append(" of ".join([formula, *([" and ".join(limits)] if limits else [])]))
        elif limits:
            notes.append(f"the {name} of {node.name} is {' and '.join(limits)}")
    return tuple(notes)


def _named_sizes(program: ExportedProgram) -> Iterator[tuple[Node, str, Any]]:
    """The batch of each tensor input, and of images the height and width, with their names."""
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node.op == "placeholder" and node.name in program.graph_signature.user_inputs and isinstance(value, Tensor):
            for name, axis in DYNAMIC_AXES.items():
                if value.dim() == 4 or (name == "batch" and value.dim()):
                    yield node, name, value.shape[axis]


def _bounds(program: ExportedProgram, size: Any) -> tuple[int, int | None]:
    """The bounds of a free size, or of the one number in its formula; no upper one is None."""
    expression = internals.expression_of(size)
    ranges = [program.range_constraints.get(key) for key in (expression, *expression.free_symbols)]
    known = [limits for limits in ranges if limits is not None]
    low = max((int(limits.lower) for limits in known), default=0)
    # Beyond any tensor is torch's way to say of some formulas that there is no bound.
    highs = [int(limits.upper) for limits in known if limits.upper.is_Integer and limits.upper < _NO_BOUND]
    return low, min(highs, default=None)


def _check_guards(program: ExportedProgram, inputs: tuple[Any, ...], names: Sequence[str]) -> tuple[str, ...]:
    """Asks the program's guards about other sizes: torch keeps there what it cannot say as a range.

    Returns:
        Notes on sizes that heights and widths cannot have: small or odd ones.

    Raises:
        ExportError: A batch is limited in any way, or a height or width is held near the example's.
    """
    module = program.module()
    assert isinstance(module, GraphModule)
    leaves = internals.tree_leaves(inputs)
    shapes = [node.meta.get("val") for node in program.graph.nodes if _is_user_input(program, node)]
    if len(shapes) != len(leaves):
        return ()
    notes: dict[str, str] = {}
    for node, name, size in _named_sizes(program):
        if name not in names or not isinstance(size, torch.SymInt) or str(size).isdigit():
            continue
        low, high = _bounds(program, size)
        if name == "batch" and (high is not None or low > 2):
            raise _tied(name, f"that of {node.name} is {f'at most {high}' if high is not None else f'at least {low}'}")
        for symbol in internals.expression_of(size).free_symbols:
            example = internals.hint_of(size, symbol)
            far = [example * factor for factor in (2, 3, 16, 64)]
            for number in (*far, 1, 2, 3, 5, 7, example + 1, 2 * example + 1):
                if number < low or (high is not None and number > high):
                    continue
                failed = internals.failed_guard(
                    module, [_resized(leaf, value, symbol, number) for leaf, value in zip(leaves, shapes, strict=True)]
                )
                if failed and (name == "batch" or number in far or (number > example and "%" not in failed)):
                    raise _tied(name, f"at {number}, {failed}")
                if failed:
                    notes.setdefault(failed, f"the {name} of {node.name} is limited: at {number}, {failed}")
    return tuple(notes.values())


def _is_user_input(program: ExportedProgram, node: Node) -> bool:
    inputs = program.graph_signature.inputs_to_parameters, program.graph_signature.inputs_to_buffers
    lifted = program.graph_signature.inputs_to_lifted_tensor_constants
    return node.op == "placeholder" and not any(node.name in names for names in (*inputs, lifted))


def _resized(leaf: Any, value: Any, symbol: Any, number: int) -> Any:
    """A tensor without memory that has another size wherever the symbol is in its shape."""
    if not isinstance(leaf, Tensor) or not isinstance(value, Tensor):
        return leaf
    shape = list(leaf.shape)
    sizes: Any = value.shape  # Declared to hold int only.
    for axis, size in enumerate(sizes):
        if isinstance(size, torch.SymInt) and symbol in internals.expression_of(size).free_symbols:
            formula = internals.expression_of(size).subs(symbol, number)
            shape[axis] = int(formula.subs({other: internals.hint_of(size, other) for other in formula.free_symbols}))
    return torch.empty(shape, dtype=leaf.dtype, device="meta")


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
