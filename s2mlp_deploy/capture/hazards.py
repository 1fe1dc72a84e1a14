"""Finding code that means different things to different runtimes.

``x[:, 1:] = x[:, :-1]`` copies a tensor onto itself with overlap. Eager PyTorch does not define the result: it depends
on memory layout and thread count, and on CUDA on luck. Export gives it the meaning that its author had, so the two
differ. The watch runs the module once and looks at the memory of every write.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from s2mlp_deploy import torch_internals as internals
from s2mlp_deploy.artifact.manifest import Hazard, HazardKind
from s2mlp_deploy.capture.frames import UserLine, last_user_line
from s2mlp_deploy.capture.overlap import View, overlap


def watch(module: nn.Module, inputs: Sequence[Any]) -> tuple[Hazard, ...]:
    """Runs a module once, in evaluation mode and without gradients, and reports its hazards.

    Args:
        module: Left in the mode it was in.
        inputs: Positional arguments; cloned first, because the module may write into them.
    """
    recorder = _Recorder()
    copies = cloned(inputs)
    # torch.cond compiles its branches, and a compiler under a dispatch mode fails now and then; eagerly they run as
    # written, with the user's lines.
    with evaluating(module), torch.no_grad(), torch.compiler.set_stance("force_eager"), recorder:
        module(*copies)
    return recorder.hazards()


def cloned(inputs: Sequence[Any]) -> tuple[Any, ...]:
    """The inputs with copies of their tensors, for code that may write into them."""
    copies: tuple[Any, ...] = internals.tree_map(
        lambda value: value.clone() if isinstance(value, Tensor) else value, tuple(inputs)
    )
    return copies


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; afterwards every submodule is in the mode it was in."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for child, mode in modes.items():
            child.training = mode


def eager_deviation(
    module: nn.Module, functional: Callable[..., Any], inputs: Sequence[Any], *, threads: Sequence[int] = (1, 2)
) -> dict[int, float | None]:
    """How far the eager module is from its functional meaning on these inputs.

    Returns:
        For each number of threads the largest absolute difference over all outputs; None where an output has another
        shape, or is not finite in one of them only.
    """

    def leaves(call: Callable[..., Any]) -> list[Tensor]:
        return [value for value in internals.tree_leaves(call(*cloned(inputs))) if isinstance(value, Tensor)]

    result: dict[int, float | None] = {}
    with evaluating(module), torch.no_grad():
        expected = leaves(functional)
        for count in threads:
            with internals.threads(count):
                actual = leaves(module)
            worst = max((_distance(a, b) for a, b in zip(expected, actual, strict=True)), default=0.0)
            result[count] = worst if math.isfinite(worst) else None
    return result


def _distance(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return float("inf")
    difference = (a.double() - b.double()).abs()
    # Infinite in both, and in the same direction: a mask, for example.
    difference[(a == b) | (a.isnan() & b.isnan())] = 0.0
    return float(difference.nan_to_num(nan=math.inf, posinf=math.inf).max()) if a.numel() else 0.0


@dataclass(frozen=True)
class _Copied:
    """What a clone is a copy of.

    Attributes:
        clone: Keeps the number of the clone's memory from being given away; not the memory itself.
        original: The same for the tensor that was cloned.
        view: Which part of the original's memory that tensor was.
    """

    clone: internals.StorageWeakRef
    original: internals.StorageWeakRef
    view: View


class _Recorder(internals.TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator with the tensors it gets; keeps none of them alive."""

    # Without it, torch refuses torch.cond, scan and while_loop under a dispatch mode.
    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._found: dict[tuple[HazardKind, UserLine | None], list[int]] = {}
        self._clones: dict[int, _Copied] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, internals.HigherOrderOperator):
            return self._run_higher_order(func, args, kwargs)
        written = _written(func, args, kwargs)
        given = internals.tree_leaves((args, kwargs)) if written else []
        for target in written:
            for source in given:
                if isinstance(source, Tensor) and source is not target:
                    self._inspect(target, source)
        result = func(*args, **kwargs)
        if func is torch.ops.aten.clone.default:
            clone, original = (internals.weak_storage(tensor) for tensor in (result, args[0]))
            self._clones[internals.storage_of(result)] = _Copied(clone, original, View.of(args[0]))
        return result

    def _run_higher_order(
        self, func: internals.HigherOrderOperator, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Runs an operator that takes functions; of ``torch.cond`` the watch goes on in the branch that is taken."""
        if func is torch.ops.higher_order.cond and len(args) == 4:
            predicate, if_true, if_false, operands = args
            with self:
                return (if_true if predicate else if_false)(*operands)
        return func(*args, **kwargs)

    def _inspect(self, target: Tensor, source: Tensor) -> None:
        memory = internals.storage_of(target)
        if memory == internals.storage_of(source):
            self._note("race", overlap(View.of(target), View.of(source)))
            return
        copied = self._clones.get(internals.storage_of(source))
        if copied is not None and copied.original.cdata == memory:
            self._note("compiler", overlap(View.of(target), copied.view))

    def _note(self, kind: HazardKind, elements: int) -> None:
        if elements:
            line = last_user_line(traceback.extract_stack())
            entry = self._found.setdefault((kind, line), [0, 0])
            entry[0] += 1
            entry[1] += elements

    def hazards(self) -> tuple[Hazard, ...]:
        """What was seen, in order."""
        return tuple(
            Hazard(kind, line.short if line else "", line.code if line else "", writes, elements)
            for (kind, line), (writes, elements) in self._found.items()
        )


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors that an operator writes into: arguments by place or by name (``out=``), and lists of them."""
    schema = internals.schema_of(func)
    if schema is None or not schema.is_mutable:
        return []
    bound = {argument.name: value for argument, value in zip(schema.arguments, args, strict=False)} | kwargs
    values = [
        bound.get(argument.name)
        for argument in schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    return [value for value in internals.tree_leaves(values) if isinstance(value, Tensor)]
