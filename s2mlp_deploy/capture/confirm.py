"""Whether a captured program computes what its module computes, at sizes that the example did not have.

``torch.export`` traces one way through the module's code. It notes most of what that way depends on, but not all: it
takes every free size for 2 or more, so that ``if x.shape[0] > 1`` leaves no guard and a batch of one takes the wrong
branch; and torch's exporter takes operators apart by the example's sizes. So both are run, the program as it will be
translated. The module is run through ``torch.func.functionalize``, which reads before it writes: for code
that copies a tensor onto itself, eager PyTorch would be no reference.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from typing import Any, Self

import sympy
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.func import functionalize

from s2mlp_deploy import torch_internals as internals
from s2mlp_deploy.artifact import SizeLimit
from s2mlp_deploy.capture.axes import FreeAxis, cannot_be_free, resized_shapes, user_values
from s2mlp_deploy.text import first_line_of

LOG = logging.getLogger(__name__)

_SMALL = (1, 2, 3, 5)
_MOST_ELEMENTS = 1 << 24
"""A size at which the inputs hold more elements is not tried."""
_MOST_LOWER, _MOST_NUMBERS = 8, 1 << 10
"""So many sizes below torch's bound are tried at most, and only below so many steps."""
_RTOL = 1e-3
"""Of the peak: the same operators, which add in another order for other sizes."""


class Comparison:
    """A program and its module, run side by side. Use as a context manager.

    Attributes that the module sets while running are set back at the end: tensors of functionalize must not stay in it.

    Args:
        program: As ``torch.export`` made it.
        module: In evaluation mode.
        inputs: The example that the program was made with.

    Attributes:
        usable: Whether differences say anything. They do not where both differ on the very inputs that the program was
            made with (the module draws random numbers, or changes itself).
    """

    def __init__(self, program: ExportedProgram, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        # Its forward alone: the module's hook refuses what torch's ranges leave out, which is what is asked here.
        self._program = _as_translated(program).module(check_guards=False).forward
        self._undecomposed = program
        self._module = module
        self._inputs = inputs
        self._leaves, self._structure = internals.tree_flatten(inputs)
        self._values = user_values(program)
        self._mutates = bool(program.graph_signature.buffers_to_mutate)
        self._stack = ExitStack()
        self.usable = False

    def __enter__(self) -> Self:
        """Run both on the example."""
        self._stack.enter_context(torch.no_grad())
        self._stack.enter_context(internals.exclusive())
        self._stack.enter_context(_as_it_was(self._module))
        if not self._mutates and len(self._values) == len(self._leaves):
            self._reference = _reference(self._module, self._inputs)
            with suppress(UncomparableError):  # A module that does not run on its own example is told elsewhere.
                self.usable = _compare(self._reference, self._program, self._inputs) is None
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the module as it was."""
        self._stack.close()

    def at(self, symbol: sympy.Symbol, number: int) -> str | None:
        """How they differ where a symbol of the sizes has another value, in words; None where they do not.

        Raises:
            RefusedError: The module does not run at this size, and the program does.
            UncomparableError: Neither does, or the inputs would be very large.
        """
        pairs = list(zip(self._leaves, self._values, strict=True))
        shapes = resized_shapes(pairs, {symbol: number})
        if sum(math.prod(shape) for shape in shapes if shape is not None) > _MOST_ELEMENTS:
            raise UncomparableError
        resized = [leaf if s is None else _resized(leaf, s) for leaf, s in zip(self._leaves, shapes, strict=True)]
        inputs = internals.tree_unflatten(resized, self._structure)
        try:
            return _compare(self._reference, self._program, inputs)
        except UncomparableError as error:
            # functionalize may fail where the module itself does not.
            if not _runs(self._module, inputs) and self._computes(inputs):
                raise RefusedError from error
            raise

    def _computes(self, inputs: tuple[Any, ...]) -> bool:
        """Whether the graph would compute something: torch's operators check more than those that they are made of."""
        return _runs(self._program, inputs) or _runs(self._decomposed, inputs)

    @cached_property
    def _decomposed(self) -> Callable[..., Any]:
        with internals.tracing():
            forward: Callable[..., Any] = self._undecomposed.run_decompositions().module(check_guards=False).forward
        return forward


def _as_translated(program: ExportedProgram) -> ExportedProgram:
    """The program whose operators become ONNX: what it was taken apart into may fit the example's sizes alone."""
    try:
        return internals.decomposed_by_exporter(program)
    except Exception:  # Then the export will fail as well, and says of what.
        LOG.debug("the program cannot be taken apart", exc_info=True)
        return program


class UncomparableError(Exception):
    """Nothing can be said at this size."""


class RefusedError(UncomparableError):
    """The module has no result at this size, and the program, or the graph that is made of it, computes one."""


def confirm(
    program: ExportedProgram,
    module: nn.Module,
    inputs: tuple[Any, ...],
    limits: dict[FreeAxis, SizeLimit],
    *,
    seconds: float = 20.0,
) -> dict[FreeAxis, SizeLimit]:
    """Runs program and module at other sizes than the example's, one free size at a time, small ones first.

    Args:
        program: As ``torch.export`` made it.
        module: In evaluation mode.
        inputs: The example that the program was made with.
        limits: What the free sizes may be by torch's ranges, formulas and guards.
        seconds: After this time no further size is tried; the batch of one comes first.

    Returns:
        The limits, wider where both agree at smaller sizes (torch demands two clips of a program that was traced with
        two), from 2 on where a height or width of 1 is another thing to the module, and without small sizes that the
        module refuses (circular padding by more than there is) and the program does not.

    Raises:
        ExportError: The program computes something else than the module at a size that it takes, or something where
            the module refuses a large size.
    """
    rules = dict(limits)
    axes: dict[sympy.Symbol, FreeAxis] = {}
    for axis in limits:
        axes.setdefault(axis.symbol, axis)
    if not axes:
        return rules
    with Comparison(program, module, inputs) as comparison:
        if not comparison.usable:
            LOG.warning("%s: free sizes could not be compared with the module's own results", type(module).__name__)
            return rules
        started = time.monotonic()
        taken = {symbol: {axis.example} for symbol, axis in axes.items()}
        refused: dict[sympy.Symbol, set[int]] = {symbol: set() for symbol in axes}
        for symbol, number in _choices(axes):
            axis, size = axes[symbol], axes[symbol].at(number)
            if time.monotonic() - started > seconds:
                break
            if not rules[axis].allows(size):
                continue
            try:
                what = comparison.at(symbol, number)
            except UncomparableError as error:
                if isinstance(error, RefusedError):
                    refused[symbol].add(number)
                continue
            if what is not None and (axis.name == "batch" or size > 1):
                raise cannot_be_free(axis.name, f"at {size} (the example has {axis.at(axis.example)}), {what}")
            if what is None:
                taken[symbol].add(number)
            else:
                rules |= {a: replace(rule, min=2) for a, rule in rules.items() if a.symbol is symbol and rule.min < 2}
        for symbol, axis in axes.items():
            own = {a: rule for a, rule in rules.items() if a.symbol is symbol}
            if refused[symbol]:
                rules |= _raised(comparison, symbol, axis, own, min(taken[symbol]), max(refused[symbol]))
            rules |= _lowered(comparison, symbol, axis, {a: r for a, r in rules.items() if a.symbol is symbol})
    return rules


def _raised(
    comparison: Comparison,
    symbol: sympy.Symbol,
    axis: FreeAxis,
    rules: Mapping[FreeAxis, SizeLimit],
    least: int,
    refused: int,
) -> dict[FreeAxis, SizeLimit]:
    """The rules of one symbol without the small sizes that the module refuses.

    Args:
        comparison: Of the program with its module.
        symbol: Of the size.
        axis: One that has it.
        rules: Of all that have it.
        least: The smallest value that the module takes, of those tried.
        refused: The largest that it refuses.
    """
    if refused > least:
        raise cannot_be_free(
            axis.name, f"at {axis.at(refused)} (the example has {axis.at(axis.example)}), the module does not run"
        )
    for number in range(least - 1, refused, -1):
        try:
            if comparison.at(symbol, number) is not None:
                break
        except UncomparableError:
            break
        least = number
    return {a: replace(rule, min=max(rule.min, a.at(least))) for a, rule in rules.items()}


def _lowered(
    comparison: Comparison, symbol: sympy.Symbol, axis: FreeAxis, rules: Mapping[FreeAxis, SizeLimit]
) -> dict[FreeAxis, SizeLimit]:
    """The rules of one symbol with smaller sizes, each of which was tried."""
    rule = rules[axis]
    lower = dict(rules)
    if rule.min <= 2:
        return lower
    numbers = [number for number in range(1, _MOST_NUMBERS) if axis.at(number) < rule.min]
    tried = [number for number in numbers if axis.at(number) % rule.multiple == rule.remainder]
    for number in reversed(tried[-_MOST_LOWER:]):
        try:
            if comparison.at(symbol, number) is not None:
                break
        except UncomparableError:
            break
        lower = {a: replace(r, min=min(r.min, a.at(number))) for a, r in lower.items()}
    return lower


def _choices(axes: Mapping[sympy.Symbol, FreeAxis]) -> Iterator[tuple[sympy.Symbol, int]]:
    for small in _SMALL:
        yield from ((symbol, small) for symbol, axis in axes.items() if small != axis.example)
    for symbol, axis in axes.items():
        # The first whole clips, or windows, that the rule allows; and sizes beyond the example's.
        step = 8 if axis.example < 8 else axis.example
        beyond = (axis.example + 1, 2 * axis.example, axis.example + step)
        yield from ((symbol, number) for number in dict.fromkeys(beyond) if number not in _SMALL)


def _resized(leaf: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A tensor of another size: the example's values, and where they are floats other ones like them."""
    if tuple(leaf.shape) == shape or not leaf.numel():
        return leaf if tuple(leaf.shape) == shape else leaf.new_zeros(shape)
    if leaf.is_floating_point():
        generator = torch.Generator().manual_seed(0)
        spread = float(leaf.float().std(correction=0)) or 1.0
        noise = torch.randn(shape, generator=generator)
        return (noise * spread + float(leaf.float().mean())).to(leaf.dtype)
    for axis, size in enumerate(shape):
        leaf = leaf.index_select(axis, torch.arange(size) % leaf.shape[axis])
    return leaf


def _reference(module: nn.Module, inputs: tuple[Any, ...]) -> Callable[..., Any]:
    """The module with its functional meaning; the module itself where torch cannot make that."""
    functional = functionalize(lambda *arguments: module(*arguments))
    try:
        functional(*copy.deepcopy(inputs))
    except Exception:
        LOG.debug("%s cannot be run through functionalize", type(module).__name__, exc_info=True)
        return module
    return functional


def _compare(reference: Callable[..., Any], program: Callable[..., Any], inputs: tuple[Any, ...]) -> str | None:
    """How the two differ on these inputs, in words; None where they do not.

    Raises:
        UncomparableError: The reference does not run on them.
    """
    try:
        expected = _run(reference, inputs)
    except Exception as error:
        raise UncomparableError from error
    try:
        actual = _run(program, inputs)
    except Exception as error:
        return f"the captured program fails: {first_line_of(error)}"
    for one, other in zip(expected, actual, strict=True):
        if one.shape != other.shape:
            return f"the captured program gives the shape {list(other.shape)}, the module {list(one.shape)}"
        one, other = one.double(), other.double()
        finite = one[one.isfinite()]
        peak = float(finite.abs().max()) if finite.numel() else 0.0
        if not torch.allclose(one, other, rtol=_RTOL, atol=_RTOL * peak, equal_nan=True):
            return "the captured program gives other numbers than the module"
    return None


def _runs(function: Callable[..., Any], inputs: tuple[Any, ...]) -> bool:
    try:
        _run(function, inputs)
    except Exception:  # A module of the user's own may raise anything.
        return False
    return True


def _run(function: Callable[..., Any], inputs: tuple[Any, ...]) -> list[Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [value for value in internals.tree_leaves(function(*copy.deepcopy(inputs))) if isinstance(value, Tensor)]


@contextmanager
def _as_it_was(module: nn.Module) -> Iterator[None]:
    """Takes back attributes that modules set while they run: tensors of functionalize must not stay in them."""
    kept = [(part, dict(part.__dict__), dict(part._buffers), dict(part._parameters)) for part in module.modules()]
    try:
        yield
    finally:
        for part, attributes, buffers, parameters in kept:
            part.__dict__.clear()
            part.__dict__.update(attributes)
            part._buffers.clear()
            part._buffers.update(buffers)
            part._parameters.clear()
            part._parameters.update(parameters)
