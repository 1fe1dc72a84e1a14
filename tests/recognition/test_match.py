"""Index maps against the shifts that they are, and those that are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from shift_reference import shift_reference
from torch import Tensor

from s2mlp_deploy.recognition.graph import UNWRITTEN
from s2mlp_deploy.recognition.match import match_shifts, why_no_shift
from s2mlp_deploy.shift.spec import BORDERS, Border, ShiftGroup, ShiftSpec

STEPS = {
    "one axis": [(1, 0), (-1, 0)],
    "four ways": [(1, 0), (-1, 0), (0, 1), (0, -1)],
    "two steps": [(2, 0), (0, -2)],
    "diagonal": [(1, 1), (-1, 2), (0, 0)],
    "one group": [(-2, 1)],
}
LAYOUTS = {"channels first": ((2, 3), 1), "channels last": ((1, 2), 3), "clips": ((3, 4), 2), "no batch": ((1, 2), 0)}


def elements(*shape: int, start: int = 1) -> Tensor:
    """Every element once."""
    return torch.arange(start, start + int(np.prod(shape)), dtype=torch.int32).reshape(shape)


def case(steps: str, layout: str, border: Border) -> tuple[ShiftSpec, Tensor]:
    axes, channel_axis = LAYOUTS[layout]
    groups = tuple(ShiftGroup(2, step) for step in STEPS[steps])
    spec = ShiftSpec(groups, axes, channel_axis, border)
    rank = {"clips": 5, "no batch": 3}.get(layout, 4)
    sizes = dict(zip(axes, (7, 6), strict=True))
    return spec, elements(*(spec.channels if a == channel_axis else sizes.get(a, 2) for a in range(rank)), start=5)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("steps", STEPS)
def test_every_shift_is_told_from_its_index_map(steps: str, layout: str, border: Border) -> None:
    spec, base = case(steps, layout, border)
    moved = torch.from_numpy(shift_reference(base.numpy(), spec))
    found = match_shifts(moved, base)
    assert found
    # Several specifications may say it (a step of one keeps or repeats the edge); each must mean just this map.
    for told in found:
        np.testing.assert_array_equal(shift_reference(base.numpy(), told), moved.numpy())
    if border in ("zero", "circular"):
        assert [told.border for told in found] == [border]
    else:
        assert found[0].border == ("keep" if steps in ("one axis", "four ways") else border)


@pytest.mark.parametrize("layout", ["channels first", "channels last"])
@pytest.mark.parametrize("border", BORDERS)
def test_one_wrong_element_is_enough(layout: str, border: Border) -> None:
    spec, base = case("four ways", layout, border)
    right = torch.from_numpy(shift_reference(base.numpy(), spec))
    for position in ((0, 0, 0, 0), (1, 3, 4, 2), (1, -1, -1, -1)):
        moved = right.clone()
        moved[position] = base.flatten()[17] if moved[position] != base.flatten()[17] else base.flatten()[18]
        assert not match_shifts(moved, base)


BASE = elements(2, 4, 6, 5)
NO_SHIFTS = {
    "permuted channels": (BASE[:, [2, 0, 3, 1]], "whole slices along axis 1 move"),
    "flipped rows": (BASE.flip(2), "whole slices along axis 2 move"),
    "flipped twice": (BASE.flip(2, 3), "of the elements move along axis"),
    "masked": (BASE * (torch.arange(5) > 0), "replaced by zeros but none moves"),
    "all zeros": (torch.zeros_like(BASE), "nothing but zeros"),
    "from elsewhere": (torch.where(torch.arange(5) > 2, BASE, BASE + 1000), "more than one tensor"),
    "never written": (torch.where(torch.arange(5) > 2, BASE, UNWRITTEN), "never written"),
    "some rows": (torch.cat([BASE[:, :, :1], BASE[:, :, :2], BASE[:, :, 3:]], 2), "whole slices along axis 2 move"),
    "reflected border": (torch.cat([BASE[:, :, 1:3].flip(2), BASE[:, :, :4]], 2), "whole slices along axis 2 move"),
    "everything moves": (BASE.flatten().roll(1).reshape(BASE.shape), "no axis is left that could hold channels"),
}


@pytest.mark.parametrize("name", NO_SHIFTS)
def test_what_is_no_shift_says_why(name: str) -> None:
    moved, reason = NO_SHIFTS[name]
    moved = moved.to(torch.int32)
    assert match_shifts(moved, BASE) == ()
    assert reason in why_no_shift(moved, BASE)


def test_a_source_that_holds_zeros_is_no_base() -> None:
    base = BASE.clone()
    base[0, 0, 0, 0] = 0
    assert match_shifts(base.roll(1, 2), base) == ()
    assert "constant zeros" in why_no_shift(base.roll(1, 2), base)


def test_steps_that_leave_the_tensor_are_read_where_elements_remain() -> None:
    # Of three rows, two are vacated and keep their own elements: most of a channel does not move.
    spec = ShiftSpec((ShiftGroup(2, (2,)), ShiftGroup(2, (-2,))), (2,), 1, "keep")
    base = elements(2, 4, 3, 5)
    moved = torch.from_numpy(shift_reference(base.numpy(), spec))
    assert spec in match_shifts(moved, base)


@pytest.mark.parametrize("dims", [(2,), (2, 3)])
def test_halves_that_change_places_are_told_as_that(dims: tuple[int, ...]) -> None:
    base = torch.arange(1, 1 + 2 * 3 * 6 * 8, dtype=torch.int32).reshape(2, 3, 6, 8)
    moved = base.roll([base.shape[axis] // 2 for axis in dims], dims)
    assert match_shifts(moved, base) == ()
    assert "halves change places" in why_no_shift(moved, base)
