"""Random chains of movements: whatever is found in them, the program computes what it did before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from s2mlp_deploy.capture.program import capture
from s2mlp_deploy.errors import ExportError
from s2mlp_deploy.export.rewrite import rewrite_shifts

Step = Callable[[Tensor, int, int], Tensor]
"""Takes a tensor of rank 4, an axis, and a small number."""


def _part(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Two halves along another axis, of which the first is to be moved."""
    other = 1 if axis != 1 else 3
    half = x.shape[other] // 2
    return x.narrow(other, 0, half), x.narrow(other, half, x.shape[other] - half)


def roll(x: Tensor, axis: int, step: int) -> Tensor:
    return torch.roll(x, step, axis)


def roll_half(x: Tensor, axis: int, step: int) -> Tensor:
    first, second = _part(x, axis)
    return torch.cat([torch.roll(first, step, axis), second], 1 if axis != 1 else 3)


def assign(x: Tensor, axis: int, step: int) -> Tensor:
    y, size = x.clone(), x.shape[axis]
    count = size - abs(step)
    y.narrow(axis, max(step, 0), count).copy_(x.narrow(axis, max(-step, 0), count))
    return y


def assign_half(x: Tensor, axis: int, step: int) -> Tensor:
    y, size = torch.zeros_like(x), x.shape[axis]
    count = size - abs(step)
    target, source = y.narrow(axis, max(step, 0), count), x.narrow(axis, max(-step, 0), count)
    _part(target, axis)[0].copy_(_part(source, axis)[0])
    _part(y, axis)[1].copy_(_part(x, axis)[1])
    return y


def assign_all_but_the_last(x: Tensor, axis: int, step: int) -> Tensor:
    y = x.clone()
    y.narrow(axis, 1, 2).copy_(x.narrow(axis, 0, 2))
    return y


def replicate(x: Tensor, axis: int, step: int) -> Tensor:
    size = x.shape[axis]
    edge = x.narrow(axis, 0 if step > 0 else size - 1, 1)
    inside = x.narrow(axis, max(-step, 0), size - abs(step))
    edges = [edge] * abs(step)
    return torch.cat([*edges, inside] if step > 0 else [inside, *edges], axis)


def pad(x: Tensor, axis: int, step: int, mode: str = "constant") -> Tensor:
    if axis < 2:
        return x
    before, after = max(step, 0), max(-step, 0)
    pads = (before, after, 0, 0) if axis == 3 else (0, 0, before, after)
    return F.pad(x, pads, mode=mode).narrow(axis, after, x.shape[axis])


def reflect(x: Tensor, axis: int, step: int) -> Tensor:
    return pad(x, axis, step, "reflect")


def wrap(x: Tensor, axis: int, step: int) -> Tensor:
    return pad(x, axis, step, "circular")


def flip(x: Tensor, axis: int, step: int) -> Tensor:
    return x.flip(axis)


def swap(x: Tensor, axis: int, step: int) -> Tensor:
    return x.transpose(axis, 1 + axis % 3).transpose(axis, 1 + axis % 3).contiguous()


def turn(x: Tensor, axis: int, step: int) -> Tensor:
    return x.transpose(2, 3)


def table(x: Tensor, axis: int, step: int) -> Tensor:
    return x.index_select(axis, (torch.arange(x.shape[axis]) - step).clamp(0, x.shape[axis] - 1))


def reversed_table(x: Tensor, axis: int, step: int) -> Tensor:
    return x.index_select(axis, torch.arange(x.shape[axis] - 1, -1, -1))


def rows(x: Tensor, axis: int, step: int) -> Tensor:
    order = [(row - step) % x.shape[axis] for row in range(x.shape[axis])]
    parts = x.unbind(axis)
    return torch.stack([parts[row] for row in order], axis)


def flat(x: Tensor, axis: int, step: int) -> Tensor:
    return torch.roll(x.flatten(2), step, 2).view(x.shape)


def erase(x: Tensor, axis: int, step: int) -> Tensor:
    y = x.clone()
    y.select(axis, 0 if step > 0 else -1).fill_(0.0)
    return y


def first_items(x: Tensor, axis: int, step: int) -> Tensor:
    y = x.clone()
    y[:2, :, 1:] = x[:2, :, :-1]
    return y


def masked(x: Tensor, axis: int, step: int) -> Tensor:
    index = torch.arange(x.shape[axis])
    shape = [1] * x.dim()
    shape[axis] = -1
    return torch.where((index >= abs(step)).view(shape), torch.roll(x, abs(step), axis), x)


def smear(x: Tensor, axis: int, step: int) -> Tensor:
    y = x.clone()
    for row in range(1, x.shape[axis]):
        y.select(axis, row).copy_(y.select(axis, row - 1))
    return y


STEPS: tuple[Step, ...] = (
    roll,
    roll_half,
    assign,
    assign_half,
    assign_all_but_the_last,
    replicate,
    pad,
    reflect,
    wrap,
    flip,
    swap,
    turn,
    table,
    reversed_table,
    rows,
    flat,
    erase,
    first_items,
    masked,
    smear,
)


@dataclass(frozen=True)
class Link:
    step: Step
    axis: int
    count: int

    def __repr__(self) -> str:
        return f"{self.step.__name__}(axis={self.axis}, step={self.count})"


class Chain(nn.Module):
    """Movements in a row, whose results on the way may be used too."""

    def __init__(self, links: tuple[Link, ...], tapped: bool) -> None:
        super().__init__()
        self.links, self.tapped = links, tapped

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = x + 1
        results = []
        for link in self.links:
            x = link.step(x, link.axis, link.count)
            results.append(x)
        return tuple(results) if self.tapped else (x,)


links = st.builds(Link, st.sampled_from(STEPS), st.integers(1, 3), st.sampled_from((-2, -1, 1, 2)))


def check(chain: tuple[Link, ...], tapped: bool, dynamic: tuple[str, ...]) -> None:
    module = Chain(chain, tapped)
    try:
        program = capture(module, (_cells(2, 4, 5, 5),), dynamic=dynamic).program
    except ExportError:
        return  # A row by row copy of a dynamic axis has no program.
    before = program.module()
    shapes = [(2, 4, 5, 5)]
    if _is_dynamic(program, 0):
        shapes += [(1, 4, 5, 5), (3, 4, 5, 5)]
    if _is_dynamic(program, 2) and _is_dynamic(program, 3):
        shapes += [(2, 4, 6, 6), (3, 4, 9, 7)]
    wanted = [(_cells(*shape), _try(before, _cells(*shape))) for shape in shapes]
    after = rewrite_shifts(program).program.module()
    for x, results in wanted:
        if results is None:
            continue  # torch's own program refuses this size.
        for got, true in zip(after(x.clone()), results, strict=True):
            assert torch.equal(got, true), tuple(x.shape)


def _cells(*shape: int) -> Tensor:
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)


def _is_dynamic(program: torch.export.ExportedProgram, axis: int) -> bool:
    name = program.graph_signature.user_inputs[0]
    node = next(node for node in program.graph.nodes if node.name == name)
    return not isinstance(node.meta["val"].shape[axis], int)


def _try(module: nn.Module, x: Tensor) -> list[Tensor] | None:
    try:
        return [result.clone() for result in module(x)]
    except (AssertionError, RuntimeError):
        return None


CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large]
# Each example is a capture: shrinking a failure would take many minutes.
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
chains = st.lists(links, min_size=1, max_size=3).map(tuple)
axes = st.sampled_from([(), ("batch",), ("batch", "height", "width")])


def test_roll_along_channels_beside_dynamic_axes_keeps_its_meaning() -> None:
    check((Link(roll, 1, 2),), False, ("batch", "height", "width"))


def test_window_of_a_source_that_another_size_lacks_keeps_its_meaning() -> None:
    check((Link(first_items, 3, 1), Link(assign, 2, -2)), False, ("batch", "height", "width"))


@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=CHECKS, phases=PHASES)
@given(chains, st.booleans(), axes)
def test_recognition_keeps_the_meaning_of_any_chain(
    chain: tuple[Link, ...], tapped: bool, dynamic: tuple[str, ...]
) -> None:
    note(f"{chain}, tapped: {tapped}, dynamic: {dynamic}")
    check(chain, tapped, dynamic)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=300, deadline=None, suppress_health_check=CHECKS, phases=PHASES)
@given(chains, st.booleans(), axes)
def test_recognition_keeps_the_meaning_of_many_chains(
    chain: tuple[Link, ...], tapped: bool, dynamic: tuple[str, ...]
) -> None:
    note(f"{chain}, tapped: {tapped}, dynamic: {dynamic}")
    check(chain, tapped, dynamic)


def test_the_first_two_of_a_batch_of_one_are_one() -> None:
    # torch says that they are two: it takes free sizes for two or more.
    check((Link(first_items, 1, -2), Link(assign_all_but_the_last, 3, -1), Link(first_items, 1, -2)), False, ("batch",))
