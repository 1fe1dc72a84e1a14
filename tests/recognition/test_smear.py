"""What an overlapping copy leaves of a shift."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from s2mlp_deploy.recognition.smear import match_smear
from s2mlp_deploy.shift.spec import ShiftGroup


@pytest.fixture
def x() -> Tensor:
    return torch.arange(1, 1 + 2 * 5 * 4 * 8, dtype=torch.int32).reshape(2, 5, 4, 8)


def rows_down(x: Tensor, channels: slice) -> None:
    """As the overlapping copy of one thread, from front to back."""
    for row in range(1, x.shape[1]):
        x[:, row, :, channels] = x[:, row - 1, :, channels]


def smeared(x: Tensor) -> Tensor:
    y = x.clone()
    rows_down(y, slice(0, 2))
    y[:, :-1, :, 2:4] = x[:, 1:, :, 2:4]
    rows_down(y.transpose(1, 2), slice(4, 6))
    y[:, :, :-1, 6:] = x[:, :, 1:, 6:]
    return y


def test_the_papers_shift_is_named(x: Tensor) -> None:
    found = match_smear(smeared(x), x)
    assert found is not None
    assert found.smeared == (True, False, True, False)
    offsets = [(1, 0), (-1, 0), (0, 1), (0, -1)]
    assert found.spec.groups == tuple(ShiftGroup(2, offset) for offset in offsets)
    assert (found.spec.axes, found.spec.channel_axis, found.spec.border) == ((1, 2), 3, "keep")
    assert torch.equal(found.of(x), smeared(x))


def test_channels_first_and_a_copy_from_back_to_front(x: Tensor) -> None:
    x = x.permute(0, 3, 1, 2).contiguous()
    y = x.clone()
    y[:, :4] = x[:, :4, -1:]
    y[:, 4:, 1:] = x[:, 4:, :-1]
    found = match_smear(y, x)
    assert found is not None
    assert found.smeared == (True, False)
    assert found.spec.groups == (ShiftGroup(4, (-1,)), ShiftGroup(4, (1,)))


def test_one_row_everywhere_alone_may_be_meant(x: Tensor) -> None:
    assert match_smear(x[:, :1].expand_as(x).contiguous(), x) is None
    half = x.clone()
    half[..., :4] = x[:, :1, :, :4]
    assert match_smear(half, x) is None


def test_shifts_copies_and_other_movements_are_none(x: Tensor) -> None:
    assert match_smear(x, x) is None
    assert match_smear(x.roll(1, 1), x) is None
    wrong = smeared(x)
    wrong[0, 3, 2, 1] = x[0, 3, 2, 1]
    assert match_smear(wrong, x) is None
