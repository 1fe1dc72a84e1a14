"""What a module of the gallery is, and what a shift means in NumPy.

The gallery is written from what public code does with shifts, without knowledge of how the package finds them.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from s2mlp_deploy.shift.spec import BORDERS, Border, ShiftGroup, ShiftSpec

Array = np.ndarray[Any, Any]
Groups = Sequence[tuple[int, tuple[int, ...]]]
"""Channels and offsets of each group."""
Item = tuple[ShiftSpec, ...]
"""One shift, and the other ways in which it may be told: the same movement seen in another layout."""


@dataclass(frozen=True)
class Case:
    """A module, and what its author means.

    Attributes:
        name: Unique in the gallery.
        family: Which kind of public code it stands for.
        module: Makes the module.
        inputs: Makes its example inputs.
        expected: Its shifts, in order; empty for a near miss.
        also: Other complete answers that are as right: several shifts told as one, for example.
        truth: The module's outputs in the papers' meaning, from NumPy; flat, in order. None where eager is the truth.
        race: It writes onto what it reads, so eager PyTorch's result is undefined.
        exact: Nothing is computed but ``+ 1``, so that every bit is known.
        rest: Operators of the program that are not the shift's and stay although they move data.
        export: Whether its ONNX is made in the default run, not only in the slow one.
        forms: Whether every form is tried, not only the default one.
        sizes: Other shapes of its inputs at which a program with dynamic sizes must be right too.
        large: Shapes as deployed networks have them, for timing; default the example's.
    """

    name: str
    family: str
    module: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Tensor, ...]]
    expected: tuple[Item, ...] = ()
    also: tuple[tuple[Item, ...], ...] = ()
    truth: Callable[..., Sequence[Array]] | None = None
    race: bool = False
    exact: bool = True
    rest: frozenset[str] = frozenset()
    export: bool = False
    forms: bool = False
    sizes: tuple[tuple[int, ...], ...] = ()
    large: tuple[tuple[int, ...], ...] = ()


class Collection:
    """The cases of one file, in the order in which they are written."""

    def __init__(self, family: str) -> None:
        self.family = family
        self.cases: list[Case] = []

    def add(
        self,
        *expected: ShiftSpec | Item,
        shape: tuple[int, ...] | Sequence[tuple[int, ...]] = (),
        **fields: Any,
    ) -> Callable[[Any], Any]:
        """Makes a case of a function, or of a class of modules, named after it.

        A function that only shifts (``x + 1``, so that the capture need not write into its input) has its truth from
        the first expected specification unless it gives one.
        """
        items = tuple(item if isinstance(item, tuple) else (item,) for item in expected)
        shapes = [shape] if not shape or isinstance(shape[0], int) else list(shape)

        def decorate(body: Any) -> Any:
            is_module = isinstance(body, type)
            if items and not is_module and "truth" not in fields:
                fields["truth"] = only(items[0][0])
            name = camel_to_words(body.__name__) if is_module else body.__name__.replace("_", "-")
            self.cases.append(
                Case(
                    name=name,
                    family=fields.pop("family", self.family),
                    module=body if is_module else functools.partial(BodyOfTwo if len(shapes) > 1 else Body, body),
                    inputs=functools.partial(numbers, *shapes),
                    expected=items,
                    **fields,
                )
            )
            return body

        return decorate


def camel_to_words(name: str) -> str:
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")


class Body(nn.Module):
    """A function of one tensor as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class BodyOfTwo(Body):
    """A function of two tensors as a module."""

    def forward(self, x: Tensor, other: Tensor) -> Any:
        return self.function(x, other)


def numbers(*shapes: Sequence[int], seed: int = 0) -> tuple[Tensor, ...]:
    """Normal numbers rounded to multiples of 1/64, which ``+ 1`` leaves exact."""
    generator = torch.Generator().manual_seed(seed)
    return tuple((torch.randn(tuple(shape), generator=generator) * 64).round() / 64 for shape in shapes)


def spec(groups: Groups, axes: tuple[int, ...], channel_axis: int, border: Border = "keep") -> ShiftSpec:
    return ShiftSpec(tuple(ShiftGroup(count, tuple(steps)) for count, steps in groups), axes, channel_axis, border)


def nhwc(groups: Groups, border: Border = "keep") -> ShiftSpec:
    """A shift of a channels-last image."""
    return spec(groups, (1, 2), 3, border)


def nchw(groups: Groups, border: Border = "keep") -> ShiftSpec:
    """A shift of a channels-first image."""
    return spec(groups, (2, 3), 1, border)


def either(groups: Groups, border: Border = "keep") -> Item:
    """A shift between two permutations, which may be told in both layouts; the input is channels-first."""
    return nchw(groups, border), nhwc(groups, border)


def four(each: int, step: int = 1) -> Groups:
    """The paper's first shift: +H, -H, +W, -W."""
    return [(each, (step, 0)), (each, (-step, 0)), (each, (0, step)), (each, (0, -step))]


def turned(each: int, step: int = 1) -> Groups:
    """The paper's second shift: +W, -W, +H, -H."""
    return [(each, (0, step)), (each, (0, -step)), (each, (step, 0)), (each, (-step, 0))]


def moved(x: Array, groups: Groups, axes: Sequence[int], channel_axis: int, border: str = "keep") -> Array:
    """What a shift means: for every cell of every group, where its value comes from."""
    assert border in BORDERS
    parts, start = [], 0
    for count, steps in groups:
        part = np.take(x, range(start, start + count), axis=channel_axis)
        start += count
        value, inside = part, np.ones(part.shape, bool)
        for axis, step in zip(axes, steps, strict=True):
            size = part.shape[axis]
            wanted = np.arange(size) - step
            shape = [1] * part.ndim
            shape[axis] = size
            inside = inside & ((wanted >= 0) & (wanted < size)).reshape(shape)
            cells = wanted % size if border == "circular" else wanted.clip(0, size - 1)
            value = np.take(value, cells, axis=axis)
        if border == "keep":
            value = np.where(inside, value, part)
        if border == "zero":
            value = np.where(inside, value, np.zeros_like(part))
        parts.append(value)
    assert start == x.shape[channel_axis]
    return np.concatenate(parts, channel_axis)


def moved_by(x: Array, wanted: ShiftSpec) -> Array:
    """:func:`moved` by a specification."""
    groups = [(group.channels, group.offsets) for group in wanted.groups]
    return moved(x, groups, wanted.axes, wanted.channel_axis, wanted.border)


def only(wanted: ShiftSpec) -> Callable[..., Sequence[Array]]:
    """The truth of a module that adds 1 and shifts."""
    return lambda module, x: [moved_by(x + 1, wanted)]


def with_reference(**shifts: ShiftSpec) -> Callable[..., Sequence[Array]]:
    """The truth of a network: the same with its methods of these names replaced by NumPy."""

    def truth(module: nn.Module, *inputs: Array) -> Sequence[Array]:
        model = copy.deepcopy(module).eval()
        replaced = 0
        for child in model.modules():
            for name, wanted in shifts.items():
                if callable(getattr(child, name, None)):
                    replaced += 1
                    child._modules.pop(name, None)
                    setattr(child, name, functools.partial(_numpy_shift, wanted=wanted))
        assert replaced >= len(shifts)
        with torch.no_grad():
            return flat(model(*(torch.from_numpy(x.copy()) for x in inputs)))

    return truth


def _numpy_shift(x: Tensor, wanted: ShiftSpec) -> Tensor:
    return torch.from_numpy(moved_by(x.numpy(), wanted))


def flat(outputs: Any) -> list[Array]:
    """Every tensor of a structure of outputs, in order."""
    return [tensor.detach().numpy() for tensor in torch.utils._pytree.tree_leaves(outputs)]


def seeded(module: nn.Module) -> nn.Module:
    """The same random weights every time."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return module.eval()


def same_shift(found: ShiftSpec, wanted: ShiftSpec, shape: Sequence[int] | None = None) -> bool:
    """Whether two specifications say the same movement.

    Groups beside each other with equal offsets, axes along which nothing moves, the order of the axes, and the channel
    axis of a single group do not matter; neither does keep or edge where no group moves by more than one cell.
    """
    return _normal(found, shape) == _normal(wanted, shape)


def _normal(told: ShiftSpec, shape: Sequence[int] | None) -> tuple[Any, ...]:
    used = sorted(
        (axis, position) for position, axis in enumerate(told.axes) if any(g.offsets[position] for g in told.groups)
    )

    def steps(group: ShiftGroup) -> tuple[int, ...]:
        offsets = [group.offsets[position] for _, position in used]
        if told.border == "circular" and shape is not None:
            offsets = [step % shape[axis] for step, (axis, _) in zip(offsets, used, strict=True)]
        return tuple(offsets)

    groups: list[tuple[int, tuple[int, ...]]] = []
    for offsets, members in itertools.groupby(told.groups, key=steps):
        groups.append((sum(group.channels for group in members), offsets))
    simple = all(sum(map(abs, offsets)) <= 1 for _, offsets in groups)
    border = "edge" if told.border == "keep" and simple else told.border
    parts: Any = (told.channel_axis, tuple(groups)) if len(groups) > 1 else groups[0][1]
    return parts, tuple(axis for axis, _ in used), border


def explains(found: Sequence[ShiftSpec], answer: Sequence[Item]) -> bool:
    """Whether the shifts found are those of the answer, each once, in any order."""
    if len(found) != len(answer):
        return False
    return any(
        all(any(same_shift(shift, told) for told in item) for shift, item in zip(order, answer, strict=True))
        for order in itertools.permutations(found)
    )


Slices = Mapping[int, slice]


def window(rank: int, slices: Slices) -> tuple[slice, ...]:
    """An index of a tensor of that rank that is whole along every other axis."""
    return tuple(slices.get(axis, slice(None)) for axis in range(rank))


def targets_and_sources(
    rank: int, steps: Mapping[int, int], channel_axis: int, channels: slice
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """``x[targets] = x[sources]`` moves by those steps along those axes."""
    target, source = {channel_axis: channels}, {channel_axis: channels}
    for axis, step in steps.items():
        if step > 0:
            target[axis], source[axis] = slice(step, None), slice(None, -step)
        if step < 0:
            target[axis], source[axis] = slice(None, step), slice(-step, None)
    return window(rank, target), window(rank, source)
