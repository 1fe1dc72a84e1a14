"""Movements that are one shift at most sizes and another somewhere: none is accepted for sizes nobody compared."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from s2mlp_deploy.capture.program import capture
from s2mlp_deploy.export.rewrite import Rewritten, rewrite_shifts
from s2mlp_deploy.recognition import dependence, elsewhere

Move = Callable[[Tensor], Tensor]


class Moved(nn.Module):
    """A movement between two computations, with a table of rows that runs on below the 45th."""

    def __init__(self, move: Move | None = None) -> None:
        super().__init__()
        rows = torch.arange(512) - 1
        rows[0] = 0
        rows[45:] = torch.arange(45, 512)
        self.register_buffer("rows", rows)
        self.move = move

    def forward(self, x: Tensor) -> Tensor:
        x = x * 2
        moved = x.index_select(2, self.rows[: x.shape[2]]) if self.move is None else self.move(x)
        return moved + 1


def rewritten(move: Move | None, *shape: int) -> Rewritten:
    dynamic = ("batch", "height", "width")
    return rewrite_shifts(capture(Moved(move), (torch.rand(shape),), dynamic=dynamic).program)


def roll(step: Callable[[int, int], int]) -> Move:
    return lambda x: torch.roll(x, step(x.shape[2], x.shape[3]), 2)


def from_window_to_window(x: Tensor) -> Tensor:
    rows = torch.arange(x.shape[2])
    return x.index_select(2, torch.where(rows % 64 == 0, rows, rows - 1))


def up_to(last: int) -> Move:
    return lambda x: x.index_select(2, (torch.arange(x.shape[2]) - 1).clamp(0, last))


def filled(x: Tensor) -> Tensor:
    y = torch.full_like(x, x.shape[2] // 300)
    y[:, :, 1:] = x[:, :, :-1]
    return y


WRONG = {
    "h // 16": roll(lambda h, _: h // 16),
    "max(1, h // 64)": roll(lambda h, _: max(1, h // 64)),
    "(h + 4) // 64 + 1": roll(lambda h, _: (h + 4) // 64 + 1),
    "1 + h % 2": roll(lambda h, _: 1 + h % 2),
    "h % 20 + 1": roll(lambda h, _: h % 20 + 1),
    "min(h, 32) // 16": roll(lambda h, _: torch.sym_min(h, 32) // 16),
    "h * w // 400": roll(lambda h, w: h * w // 400),
    "h * h // 4096 + 1": roll(lambda h, _: h * h // 4096 + 1),
    "max(1, h - 100)": roll(lambda h, _: torch.sym_max(1, h - 100)),
    "round(h / 100) + 1": roll(lambda h, _: round(h * 0.01) + 1),
    "1 + h // 5000": roll(lambda h, _: 1 + h // 5000),
    "w - h": roll(lambda h, w: w - h),
    "w % h + 1": roll(lambda h, w: w % h + 1),
    "rows from window to window": from_window_to_window,
    "rows up to 100": up_to(100),
    "rows up to 5000": up_to(5000),
    "a table that ends": None,
    "a border that is 0 up to 300": filled,
}


@pytest.mark.parametrize("rule", WRONG)
def test_a_step_that_changes_at_some_size_is_no_shift(rule: str) -> None:
    result = rewritten(WRONG[rule], 2, 8, 20, 24)
    assert not result.shifts
    assert result.near_misses


@pytest.fixture
def few_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than 32,768 elements are compared at another size, in place of 33 million."""
    monkeypatch.setattr(elsewhere, "_MAX_ELEMENTS", 1 << 15)


def test_more_elements_than_can_be_compared_are_no_excuse(few_elements: None) -> None:
    assert not rewritten(roll(lambda h, _: 1 + h // 512), 2, 8, 12, 12).shifts


def pairs(x: Tensor) -> Tensor:
    """Rows move down within the upper half, and the lower half stays."""
    half = x.shape[2] // 2
    return torch.cat([torch.roll(x[:, :, :half], 1, 2), x[:, :, half:]], 2)


def halves(x: Tensor) -> Tensor:
    y = torch.roll(x, 1, 2)
    return torch.cat([y[:, :, : x.shape[2] // 2], y[:, :, x.shape[2] // 2 :]], 2)


def down(x: Tensor) -> Tensor:
    rows = (torch.arange(x.shape[2]) - 1).clamp(0, x.shape[2] - 1)
    return x.index_select(2, rows)


RIGHT = {
    "1": roll(lambda *_: 1),
    "h - 1": roll(lambda h, _: h - 1),
    "halves of a roll": halves,
    "a roll of the upper half": pairs,
    "a table of rows": down,
}


@pytest.mark.parametrize("rule", RIGHT)
def test_a_step_that_is_the_same_at_all_sizes_is_a_shift(rule: str) -> None:
    (shift,) = rewritten(RIGHT[rule], 2, 8, 20, 24).shifts
    assert {abs(group.offsets[0]) for group in shift.spec.groups} == {1}


def test_a_fill_has_no_values_of_the_tensor_that_it_is_like() -> None:
    """torchvision makes an unused mask like the image: what the network did before has no part in it."""

    class Filled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 1e-5
            return torch.where(y.new_ones(x.shape[0], 1, dtype=torch.bool), y, x)

    nodes = capture(Filled(), [torch.zeros(2, 3)]).program.graph.nodes
    (fill,) = (node for node in nodes if node.name.startswith("new_ones"))
    reached = {node.name.partition("_")[0] for node in dependence._upstream([fill])}
    assert reached == {"new", "sym", "x"}


def test_a_large_example_is_proven_at_small_sizes(few_elements: None) -> None:
    (shift,) = rewritten(RIGHT["1"], 2, 8, 48, 60).shifts
    assert shift.spec.border == "circular"
