"""The images that rows are of, told from how the rows move."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from s2mlp_deploy.recognition.frames import shifts_in_frames
from s2mlp_deploy.shift.op import shift
from s2mlp_deploy.shift.spec import BORDERS, Border, ShiftSpec

FOUR = [(1, 0), (-1, 0), (0, 1), (0, -1)]
DIAGONAL = [(1, 1), (-2, 1), (0, 0), (1, -1)]
HIGH, WIDE = 6, 5


def numbers(*shape: int) -> Tensor:
    return torch.arange(1, math.prod(shape) + 1, dtype=torch.int32).reshape(shape)


def moved(steps: list[tuple[int, int]], border: Border, *, first: bool = False) -> tuple[ShiftSpec, Tensor]:
    """Two images of 6 x 5 with eight channels, which come last or first."""
    axes, channel_axis, shape = ((2, 3), 1, (2, 8, HIGH, WIDE)) if first else ((1, 2), 3, (2, HIGH, WIDE, 8))
    spec = ShiftSpec.equal_groups(8, steps, axes=axes, channel_axis=channel_axis, border=border)
    return spec, shift(numbers(*shape), spec)


def found(after: Tensor, *shape: int, known: tuple[tuple[int, ...], ...] = ()) -> list[tuple[int, ...]]:
    """The sizes, which must say the very movement."""
    before = numbers(*shape)
    result = []
    for frame, specs in shifts_in_frames(after.reshape(shape), before, known):
        assert specs
        for spec in specs:
            assert torch.equal(shift(before.reshape(frame), spec).flatten(), after.flatten())
        result.append(frame)
    return result


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("steps", [FOUR, DIAGONAL], ids=["four ways", "diagonal"])
def test_rows_tell_height_and_width(steps: list[tuple[int, int]], border: Border) -> None:
    _, last = moved(steps, border)
    # Rows of all images, of each, and rows that a table counts in blocks of channels.
    assert found(last, 2 * HIGH * WIDE, 8) == [(-1, HIGH, WIDE, 8)]
    assert found(last, 2, HIGH * WIDE, 8) == [(-1, HIGH, WIDE, 8)]
    _, first = moved(steps, border, first=True)
    assert found(first, 2, 8, HIGH * WIDE) == [(-1, 8, HIGH, WIDE)]


def test_a_tensor_of_the_graph_tells_the_sizes_of_what_is_wholly_flat() -> None:
    _, after = moved(FOUR, "keep")
    assert found(after, 2, HIGH * WIDE * 8) == []
    assert found(after, 2, HIGH * WIDE * 8, known=((2, HIGH * WIDE * 8), (2, HIGH, WIDE, 8))) == [(-1, HIGH, WIDE, 8)]


@pytest.mark.parametrize("step", [(0, 1), (0, -2)])
def test_one_group_along_rows(step: tuple[int, int]) -> None:
    _, after = moved([step], "zero")
    assert found(after, 2, HIGH * WIDE, 8) == [(-1, HIGH, WIDE, 8)]


def rows(table: Tensor) -> Tensor:
    """Eight channels of two images whose rows are looked up."""
    return numbers(2, HIGH * WIDE, 8)[:, table.flatten()]


GRID = torch.arange(HIGH * WIDE).reshape(HIGH, WIDE)
OTHERS = {
    "each row twice": GRID.flatten() // 2 * 2,
    "each row three times": GRID.flatten() // 3 * 3,
    "turned in threes": GRID.reshape(-1, 3).roll(1, 1),
    "turned around": GRID.roll(1, 1),
    "halves change places": GRID.reshape(-1, 2).flip(1),
    "height and width change places": GRID.T,
    "mirrored": GRID.flip(1),
    "a mirrored border": torch.cat([GRID[:, 1:2], GRID[:, :-1]], 1),
    "one wrong": torch.cat([GRID[:, :1], GRID[:, :-1]], 1).flatten().index_fill(0, torch.tensor([13]), 2),
    "by chance": torch.tensor([17, 3, 29, 8, 0, 11, 22, 5, 14, 26] * 3),
}


@pytest.mark.parametrize("table", OTHERS.values(), ids=OTHERS)
def test_other_tables_are_no_shift(table: Tensor) -> None:
    after = rows(table)
    assert found(after, 2, HIGH * WIDE, 8) == []
    assert found(after, 2 * HIGH * WIDE, 8) == []


def test_rows_that_change_their_image_or_channel_are_no_shift() -> None:
    images = numbers(2, HIGH * WIDE, 8).flip(0)
    channels = numbers(2, HIGH * WIDE, 8).roll(1, 2)
    for after in (images, channels):
        assert found(after, 2, HIGH * WIDE, 8) == []
        assert found(after, 2 * HIGH * WIDE, 8) == []


def test_what_is_not_flat_has_sizes_of_its_own() -> None:
    planes = numbers(2, 8, HIGH, WIDE)
    sheared = torch.stack([planes[:, :, row].roll(row % 2, 2) for row in range(HIGH)], 2)
    in_windows = numbers(2, 4, 6, 8).reshape(2, 4, 2, 3, 8)[:, :, :, [0, 0, 1]]
    assert found(sheared, 2, 8, HIGH, WIDE) == []
    assert found(in_windows, 2, 4, 6, 8) == []


def test_a_sequence_in_rows_of_all_images() -> None:
    after = numbers(2, 7, 8)[:, [0, 0, 1, 2, 3, 4, 5]]
    assert found(after, 14, 8) == [(-1, 7, 8)]
