"""What recognition does beyond the gallery: constants, and regions that cannot be followed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2mlp_deploy.capture.program import capture
from s2mlp_deploy.export.rewrite import Rewritten, rewrite_shifts
from s2mlp_deploy.recognition import search as recognise


def found(module: nn.Module, *shape: int) -> Rewritten:
    return rewrite_shifts(capture(module, (torch.rand(shape),)).program)


class TwoRegions(nn.Module):
    """Two shifts with a layer between them."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.roll(x, 1, 2).relu()
        return torch.cat([x[:, :, :1], x[:, :, :-1]], 2)


def test_region_that_cannot_be_followed_is_a_near_miss_and_others_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = recognise.move

    def move(node: Any, *rest: Any) -> Any:
        if "roll" in node.name:
            raise RuntimeError("no such kernel\nsecond line")
        return original(node, *rest)

    monkeypatch.setattr(recognise, "move", move)
    result = found(TwoRegions(), 2, 3, 7)
    assert [shift.spec.border for shift in result.shifts] == ["keep"]
    (miss,) = result.near_misses
    assert miss.reason == "its cells could not be followed: RuntimeError: no such kernel"
    assert miss.origin.idiom == "roll"


class ShiftedConstant(nn.Module):
    """A table of positions, shifted on the way: no shift of the network's."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.rand(3, 7))

    def forward(self, x: Tensor) -> Tensor:
        kernel = torch.zeros(3, 1, 3)
        kernel[:2, 0, 0] = 1
        kernel[2:, 0, 2] = 0.5
        return F.conv1d(x, kernel, padding=1, groups=3) + F.pad(self.positions, (1, 0))[:, :-1]


def test_constants_are_neither_shifts_nor_near_misses() -> None:
    result = found(ShiftedConstant(), 2, 3, 7)
    assert not result.shifts
    assert not result.near_misses


class Pieces(nn.Module):
    """Two pieces of one tensor, written in turn."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + 1
        first, second = x.chunk(2, 2)
        first[:, 1:] = first[:, :-1]
        second[:, :-1] = second[:, 1:]
        return torch.stack([first, second])


def test_line_of_a_shift_is_that_of_its_own_piece() -> None:
    result = found(Pieces(), 2, 7, 6)
    assert [shift.origin.code for shift in result.shifts] == [
        "first[:, 1:] = first[:, :-1]",
        "second[:, :-1] = second[:, 1:]",
    ]


class Shuffled(nn.Module):
    """Channels change places."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + 1)[:, [2, 0, 1, 3]]


def test_permutation_of_channels_is_told_as_one() -> None:
    result = found(Shuffled(), 2, 4, 6, 5)
    assert not result.shifts
    (miss,) = result.near_misses
    assert miss.reason.startswith("whole slices along axis 1 change places")
