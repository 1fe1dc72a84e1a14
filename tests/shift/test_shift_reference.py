"""The reference itself, against results written out by hand: everything else is measured with it."""

from __future__ import annotations

import numpy as np
import pytest
from shift_reference import shift_reference

from s2mlp_deploy.shift.spec import ShiftGroup, ShiftSpec

LINE = [[10, 20, 30, 40]]


@pytest.mark.parametrize(
    ("border", "step", "expected"),
    [
        ("keep", 1, [10, 10, 20, 30]),
        ("keep", -1, [20, 30, 40, 40]),
        ("keep", 2, [10, 20, 10, 20]),
        ("keep", -2, [30, 40, 30, 40]),
        ("keep", 9, [10, 20, 30, 40]),
        ("edge", 1, [10, 10, 20, 30]),
        ("edge", 2, [10, 10, 10, 20]),
        ("edge", -2, [30, 40, 40, 40]),
        ("edge", 9, [10, 10, 10, 10]),
        ("zero", 2, [0, 0, 10, 20]),
        ("zero", -9, [0, 0, 0, 0]),
        ("circular", 1, [40, 10, 20, 30]),
        ("circular", -5, [20, 30, 40, 10]),
    ],
)
def test_one_axis(border: str, step: int, expected: list[int]) -> None:
    spec = ShiftSpec((ShiftGroup(1, (step,)),), (1,), 0, border)  # type: ignore[arg-type]
    assert shift_reference(np.array(LINE), spec).tolist() == [expected]


@pytest.mark.parametrize(
    ("border", "expected"),
    [
        ("keep", [[1, 2, 3], [4, 1, 2], [7, 4, 5]]),
        ("edge", [[1, 1, 2], [1, 1, 2], [4, 4, 5]]),
        ("zero", [[0, 0, 0], [0, 1, 2], [0, 4, 5]]),
        ("circular", [[9, 7, 8], [3, 1, 2], [6, 4, 5]]),
    ],
)
def test_diagonal_keeps_a_rim_in_the_shape_of_an_l(border: str, expected: list[list[int]]) -> None:
    grid = np.arange(1, 10).reshape(1, 3, 3)
    spec = ShiftSpec((ShiftGroup(1, (1, 1)),), (1, 2), 0, border)  # type: ignore[arg-type]
    assert shift_reference(grid, spec).tolist() == [expected]
