"""A PyTorch module becomes a functional program: nothing in it writes into its arguments.

Functional means what the author of an in-place shift meant: the right-hand side is read whole before anything is
written. Eager PyTorch does not promise that (see :mod:`s2mlp_deploy.capture.hazards`).
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, OutputKind

import s2mlp_deploy.shift.op  # noqa: F401  registers s2mlp::shift
from s2mlp_deploy import torch_internals as internals
from s2mlp_deploy.artifact import SizeLimit
from s2mlp_deploy.capture.axes import (
    FreeAxis,
    cannot_be_free,
    check_free,
    check_named,
    check_program,
    constant_sizes,
    dynamic_shapes,
    free_axes,
    size_limits,
    with_batches,
)
from s2mlp_deploy.capture.checks import (
    check_operators,
    check_runs,
    check_weights,
    line_of_data_access,
    refuse_mutation,
    user_frame,
)
from s2mlp_deploy.capture.confirm import confirm
from s2mlp_deploy.capture.frames import in_forward
from s2mlp_deploy.capture.hazards import evaluating
from s2mlp_deploy.errors import ExportError
from s2mlp_deploy.text import first_line_of, join_names


@dataclass(frozen=True)
class Captured:
    """A captured program and what its inputs and outputs are called.

    Attributes:
        program: Functional, in evaluation mode.
        input_names: One per tensor input, in order.
        output_names: One per tensor output, in order.
        notes: What was tried and did not work, for the manifest: why the batch is fixed, for example; and the limits
            in words.
        limits: What free sizes may be, where that is not every size.
    """

    program: ExportedProgram
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    limits: tuple[SizeLimit, ...] = ()


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

    A batch that the module does not allow to be free becomes that of the example, with a note; other dynamic axes were
    asked for, so that is an error. The program is run beside the module at other sizes than the example's
    (:mod:`.confirm`).

    Args:
        module: Any module that ``torch.export`` accepts, left in the mode it was in; or a program already exported.
        example_inputs: Positional inputs: tensors, or structures of tensors.
        input_names: Names for the graph's inputs; default the names of ``forward``'s parameters.
        output_names: Names for its outputs; default dictionary keys, or ``output``, ``output_0``, ...
        dynamic: Names of :data:`~s2mlp_deploy.graph.axes.DYNAMIC_AXES`, checked by the caller.

    Raises:
        CheckpointError: A weight is NaN, infinite or on the meta device.
        ExportError: The module cannot be captured, or no input has an axis that is to be free.
    """
    check_weights(module)
    check_named(tuple(example_inputs), dynamic)
    notes: tuple[str, ...] = ()
    if isinstance(module, ExportedProgram):
        rules, free = size_limits(module, tuple(example_inputs), ()), free_axes(module)
        program = _functional(module)
        check_program(program, dynamic)
        fixed = constant_sizes(program)
        lost = [axis for axis in free if (axis.input, axis.name) in fixed]
        rules = {axis: rule for axis, rule in rules.items() if axis not in lost}
        notes = tuple(
            f"the {axis.name} of {axis.input} is fixed: torch makes {fixed[axis.input, axis.name]} of it where it "
            "replaces writes in place"
            for axis in lost
        )
    else:
        program, rules, notes = _export(module, tuple(example_inputs), tuple(dynamic))
    refuse_mutation(program)
    inputs, outputs = _names(program, input_names, output_names)
    called = dict(
        zip((name for name in program.graph_signature.user_inputs if isinstance(name, str)), inputs, strict=True)
    )
    limits = tuple(replace(rule, input=called[rule.input]) for rule in rules.values() if rule.limits)
    notes = (*notes, *map(str, limits), *check_operators(program))
    return Captured(program, inputs, outputs, notes, limits)


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
) -> tuple[ExportedProgram, dict[FreeAxis, SizeLimit], tuple[str, ...]]:
    """The program with as many of the asked axes free as can be, what limits them, and why the batch is not free."""
    failures: list[ExportError] = []
    with evaluating(module):
        for example, free, automatic in _attempts(inputs, dynamic):
            try:
                program = _try_export(module, example, dynamic_shapes(example, free, automatic))
                limits = size_limits(program, example, free)
                program = _functional(program)
                check_free(program, free)
                limits = confirm(program, module, example, limits)
                if "batch" in free:
                    _check_batch(limits, inputs)
            except _DecidesByValuesError:
                raise  # No other choice of free sizes changes that, and each attempt takes as long as this one.
            except ExportError as error:
                failures.append(error)
                continue
            fixed = "batch" in dynamic and "batch" not in free
            return program, limits, (f"the batch is fixed: {failures[0].problem}",) if fixed else ()
        check_runs(module, inputs)
    # What ties a size says more than torch's constraints; else the last attempt, which asked for the least.
    spatial = len(dynamic) > ("batch" in dynamic)
    raise next((failure for failure in failures if "cannot be free" in failure.problem), failures[0 if spatial else -1])


def _attempts(
    inputs: tuple[Any, ...], dynamic: tuple[str, ...]
) -> Iterator[tuple[tuple[Any, ...], tuple[str, ...], tuple[str, ...]]]:
    """Examples with the axes that are to be free and those of them for which torch may find a rule; the best first."""
    spatial = tuple(name for name in dynamic if name != "batch")
    if "batch" in dynamic:
        # torch.export takes what is 1 in the example for a constant: one image, or one clip of eight.
        single = any(
            isinstance(leaf, Tensor) and leaf.dim() and leaf.shape[0] == 1 for leaf in internals.tree_leaves(inputs)
        )
        wide = with_batches(inputs, 2) if single else inputs
        # A named Dim promises every size from 1 on; AUTO lets torch find a rule such as "a multiple of 8".
        yield wide, dynamic, ()
        if spatial:
            yield wide, dynamic, spatial
        yield wide, dynamic, dynamic
        for times in (3,) if single else (2, 3):
            yield with_batches(inputs, times), dynamic, dynamic
    yield inputs, spatial, ()
    if spatial:
        yield inputs, spatial, spatial


def _check_batch(limits: Mapping[FreeAxis, SizeLimit], inputs: tuple[Any, ...]) -> None:
    """A batch is free where it takes any number of whole clips from one on, or is that of the example.

    Raises:
        ExportError: It is limited in another way, or not to what the example has.
    """
    for rule in (rule for axis, rule in limits.items() if axis.name == "batch"):
        if rule.max is not None or rule.min > max(2, rule.multiple + rule.remainder):
            raise cannot_be_free("batch", str(rule))
        tensors = [leaf for leaf in internals.tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.dim()]
        if not rule.allows(tensors[0].shape[0]):
            raise cannot_be_free("batch", f"{rule}, and the example has {tensors[0].shape[0]}")


def _functional(program: ExportedProgram) -> ExportedProgram:
    """The program with values in place of in-place writes: an empty table decomposes nothing else."""
    with torch.no_grad(), internals.tracing(), internals.one_lookup():
        functional: ExportedProgram = program.run_decompositions({})
    return functional


class _DecidesByValuesError(ExportError):
    """A branch or an integer of the module depends on the values of tensors."""


def _try_export(module: nn.Module, inputs: tuple[Any, ...], shapes: Any) -> ExportedProgram:
    try:
        # Under gradients, torch.export refuses in-place writes on the pieces of a chunk.
        with torch.no_grad(), internals.tracing(), internals.whole_stacks(in_forward):
            return torch.export.export(module, inputs, dynamic_shapes=_bound(module, shapes))
    except internals.GuardOnDataDependentSymNode as error:
        raise _DecidesByValuesError(
            f"{type(module).__name__} decides by the values of tensors, and a graph takes one way only",
            where=user_frame(error),
            fix="use torch.where instead of `if`; make integers that come from tensors (int(x), x.item()) constants of "
            "the module",
        ) from error
    except Exception as error:
        around = line_of_data_access(module, inputs) if "fake tensor" in str(error) else None
        if around is not None:
            raise ExportError(
                f"{type(module).__name__} writes through `.data`, which torch.export cannot follow",
                where=around,
                fix="write into the tensor itself, or use detach() in place of .data",
            ) from error
        raise ExportError(
            f"torch.export cannot capture {type(module).__name__}: {_reason(error)}",
            where=user_frame(error),
            fix="control flow and shapes must not depend on the values of tensors (torch.where, not `if`), and the "
            "module must accept the example inputs",
        ) from error


def _reason(error: Exception) -> str:
    """What torch says of the failure; of violated constraints which, not where to read about them."""
    details = [line.strip(" -") for line in str(error).splitlines() if line.strip().startswith("- ")]
    said = details[0] if "Constraints violated" in first_line_of(error) and details else first_line_of(error)
    said = said.partition(" If you're using")[0]  # torch's advice is about torch's own calls.
    # What torch calls a size (s77) tells nobody anything.
    symbols = list(dict.fromkeys(re.findall(r"\bs\d+\b", said)))
    for number, symbol in enumerate(symbols, start=1):
        said = re.sub(rf"\b{symbol}\b", f"size{number}" if len(symbols) > 1 else "size", said)
    return said


def _bound(module: nn.Module, shapes: tuple[Any, ...]) -> tuple[Any, ...]:
    """The shapes of positional arguments as forward takes them: those of ``*args`` are one tuple."""
    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return shapes
    first = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*shapes[:first], tuple(shapes[first:]))


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
