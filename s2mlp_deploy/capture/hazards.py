"""Finding code that means different things to different runtimes.

``x[:, 1:] = x[:, :-1]`` copies a tensor onto itself with overlap. Eager PyTorch does not define the result: it depends
on memory layout and thread count, and on CUDA on luck. Export gives it the meaning that its author had, so the two
differ. The watch runs the module once and looks at the memory of every write.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from s2mlp_deploy.artifact.manifest import Hazard, HazardKind
from s2mlp_deploy.capture.frames import UserLine, last_user_line


def watch(module: nn.Module, inputs: Sequence[Any]) -> tuple[Hazard, ...]:
    """Runs a module once, in evaluation mode and without gradients, and reports its hazards.

    Args:
        module: Left in the mode it was in.
        inputs: Positional arguments; cloned first, because the module may write into them.
    """
    recorder = _Recorder()
    copies = pytree.tree_map(lambda value: value.clone() if isinstance(value, Tensor) else value, tuple(inputs))
    with evaluating(module), torch.no_grad(), recorder:
        module(*copies)
    return recorder.hazards()


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
) -> dict[int, float]:
    """How far the eager module is from its functional meaning on these inputs.

    Returns:
        For each number of threads the largest absolute difference over all outputs; infinity where an output has
        another shape.
    """

    def leaves(call: Callable[..., Any]) -> list[Tensor]:
        copies = pytree.tree_map(lambda value: value.clone() if isinstance(value, Tensor) else value, tuple(inputs))
        return [value for value in pytree.tree_leaves(call(*copies)) if isinstance(value, Tensor)]

    before = torch.get_num_threads()
    result = {}
    with evaluating(module), torch.no_grad():
        expected = leaves(functional)
        try:
            for count in threads:
                torch.set_num_threads(count)
                result[count] = max(
                    (_distance(a, b) for a, b in zip(expected, leaves(module), strict=True)), default=0.0
                )
        finally:
            torch.set_num_threads(before)
    return result


def _distance(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return float("inf")
    return float((a.double() - b.double()).abs().max()) if a.numel() else 0.0


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator with the tensors it gets."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._found: dict[tuple[HazardKind, UserLine | None], list[int]] = {}
        # Storage of a clone -> what it is a clone of. The clones are kept so that no address is used twice.
        self._clones: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        written = _written(func, args)
        for target in written:
            for source in pytree.tree_leaves(args):
                if isinstance(source, Tensor) and source is not target:
                    self._inspect(target, source)
        result = func(*args, **kwargs)
        if func is torch.ops.aten.clone.default:
            self._clones[_storage(result)] = (result, args[0])
        return result

    def _inspect(self, target: Tensor, source: Tensor) -> None:
        if _storage(target) == _storage(source):
            self._note("race", overlap(target, source))
        elif _storage(source) in self._clones:
            original = self._clones[_storage(source)][1]
            if _storage(original) == _storage(target):
                self._note("compiler", overlap(target, original))

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


def _written(func: Any, args: tuple[Any, ...]) -> list[Tensor]:
    """The positional arguments that an operator writes into."""
    schema = getattr(func, "_schema", None)
    if schema is None or not schema.is_mutable:
        return []
    return [
        value
        for argument, value in zip(schema.arguments, args, strict=False)
        if argument.alias_info is not None and argument.alias_info.is_write and isinstance(value, Tensor)
    ]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def overlap(a: Tensor, b: Tensor) -> int:
    """How many cells of one storage two different views share; 0 for the same view twice."""
    if not a.numel() or not b.numel():
        return 0
    if (a.shape, a.stride(), a.storage_offset()) == (b.shape, b.stride(), b.storage_offset()):
        return 0
    low = max(a.storage_offset(), b.storage_offset())
    high = min(_last(a), _last(b))
    if low > high:
        return 0
    touched = torch.zeros(high + 1, dtype=torch.int8)
    for view in (a, b):
        cells = torch.arange(_last(view) + 1).as_strided(view.shape, view.stride(), view.storage_offset()).flatten()
        touched[torch.unique(cells[cells <= high])] += 1
    return int((touched == 2).sum())


def _last(view: Tensor) -> int:
    return int(view.storage_offset()) + sum(
        (size - 1) * stride for size, stride in zip(view.shape, view.stride(), strict=True)
    )
