"""Overlapping writes and dropped clones: what is noted, and that watching keeps no tensor alive."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._higher_order_ops import while_loop

from s2mlp_deploy.capture.hazards import eager_deviation, watch


class Rows(nn.Module):
    def __init__(self, clone: bool) -> None:
        super().__init__()
        self.clone = clone

    def forward(self, x: Tensor) -> Tensor:
        x = x * 1
        x[:, 1:] = x[:, :-1].clone() if self.clone else x[:, :-1]
        return x


@pytest.mark.parametrize(("clone", "kind"), [(False, "race"), (True, "compiler")])
def test_kind_line_and_elements(clone: bool, kind: str) -> None:
    (hazard,) = watch(Rows(clone), [torch.rand(2, 6, 3)])
    assert (hazard.kind, hazard.writes, hazard.elements) == (kind, 1, 2 * 4 * 3)
    assert hazard.where.startswith(f"{Path(__file__).name}:")
    assert hazard.code.startswith("x[:, 1:] = ")
    assert hazard.eager_deviation is None


class ManyClones(nn.Module):
    """Frees each clone before it makes the next one, of the same size, so that addresses come again."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[weakref.ref[Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        whole = x * 1
        for _ in range(50):
            gone = whole[:, :-1].clone()
            self.made.append(weakref.ref(gone))
            del gone
            # No clone, though it may lie where one lay.
            fresh = torch.ones_like(whole[:, :-1])
            whole[:, 1:] = fresh
        return whole


def test_memory_that_comes_again_is_no_clone_and_none_is_kept() -> None:
    module = ManyClones()
    assert watch(module, [torch.rand(2, 6, 3)]) == ()
    alive: list[int] = []

    class Counting(ManyClones):
        def forward(self, x: Tensor) -> Tensor:
            result = super().forward(x)
            gc.collect()
            alive.append(sum(reference() is not None for reference in self.made))
            return result

    watch(Counting(), [torch.rand(2, 6, 3)])
    assert alive == [0]


class Masked(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, float("-inf"))


@pytest.mark.parametrize(
    ("functional", "wanted"),
    [
        (Masked(), 0.0),
        (lambda x: Masked()(x) + 0.25, 0.25),
        (lambda x: x, None),
        (lambda x: x[:1], None),
        (lambda x: x * float("nan"), None),
    ],
)
def test_deviation_of_eager_outputs(functional: object, wanted: float | None) -> None:
    x = torch.tensor([[1.0, -1.0], [0.5, -2.0]])
    threads = torch.get_num_threads()
    found = eager_deviation(Masked(), functional, [x], threads=(1, 2))  # type: ignore[arg-type]
    assert found == {1: wanted, 2: wanted}
    assert torch.get_num_threads() == threads


class RowsInABranch(nn.Module):
    def racing(self, x: Tensor) -> Tensor:
        x = x * 1
        x[:, 1:] = x[:, :-1]
        return x

    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, self.racing, lambda x: x * 3, (x,))


def test_the_branch_that_is_taken_is_watched() -> None:
    x = torch.rand(2, 6, 3)
    (hazard,) = watch(RowsInABranch(), [x])
    assert (hazard.kind, hazard.code) == ("race", "x[:, 1:] = x[:, :-1]")
    assert watch(RowsInABranch(), [-x]) == ()


class Counting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        start = torch.zeros((), dtype=torch.int64)
        return while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, y * 2), (start, x))[1]


def test_a_loop_runs_under_the_watch() -> None:
    assert watch(Counting(), [torch.rand(2, 3)]) == ()


class Out(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x * 1
        torch.add(x[:, :-1], 1, out=x[:, 1:])
        return x


class ListOfTensors(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x * 1
        torch._foreach_copy_([x[:, 1:]], [x[:, :-1]])
        return x


class Apart(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x * 1
        torch.add(x[:, :3], 1, out=x[:, 3:])
        torch._foreach_add_([x[:, :3], x[:, 3:]], 1)
        return x


@pytest.mark.parametrize(("module", "races"), [(Out(), 1), (ListOfTensors(), 1), (Apart(), 0)])
def test_targets_by_name_and_in_lists(module: nn.Module, races: int) -> None:
    assert [hazard.kind for hazard in watch(module, [torch.rand(2, 6, 3)])] == ["race"] * races
