"""Deformable convolutions by their offsets: shifts, and what is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from s2mlp_deploy.recognition.graph import DeformableConv, FreeSize, SizeDependence, UnknownValueError
from s2mlp_deploy.recognition.match import NoShift
from s2mlp_deploy.recognition.sampling import match_sampling
from s2mlp_deploy.shift.spec import ShiftGroup, ShiftSpec

BATCH = FreeSize("N", example=2)


class Constants:
    """A graph whose only constants are the offsets and the mask of one convolution."""

    def __init__(self, values: Mapping[str, Any], free: list[FreeSize] | None = None, batch: int = 2) -> None:
        self.values, self.free_sizes, self.batch = values, free or [], batch

    def at(self, sizes: Mapping[str, int]) -> Constants:
        return Constants(self.values, self.free_sizes, sizes.get("N", 2))

    def size_dependence(self, _: object) -> SizeDependence:
        return SizeDependence()

    def shape(self, node: str) -> tuple[int, ...]:
        return {"x": (self.batch, 8, 5, 6)}[node]

    def constant(self, node: str) -> Tensor:
        value = self.values[node]
        tensor: Tensor | None = value(self.batch) if callable(value) else value
        if tensor is None:
            raise UnknownValueError(f"{node} depends on the input")
        return tensor


def offsets(*steps: tuple[float, float], elements: int = 1, batch: int = 2) -> Tensor:
    """The same step for all positions of a group, as deform_conv2d takes them."""
    one = torch.tensor(steps)[:, None, :].expand(-1, elements, -1).reshape(1, -1, 1, 1)
    return one.expand(batch, -1, 5, 6).clone()


def match(values: Mapping[str, Any], groups: int, *, padding: tuple[int, int] = (0, 0), **free: Any) -> Any:
    mask = "mask" if "mask" in values else None
    parts = DeformableConv("x", "offset", mask, padding, groups)
    return match_sampling(Constants(values, **free), "node", parts)  # type: ignore[arg-type]


def test_whole_steps_are_a_shift_against_the_direction_of_reading() -> None:
    found = match({"offset": offsets((0, 1), (0, 1), (-2, 0), (0, 0))}, 4)
    groups = (ShiftGroup(4, (0, -1)), ShiftGroup(2, (2, 0)), ShiftGroup(2, (0, 0)))
    assert found.spec == ShiftSpec(groups, (2, 3), 1, "zero")
    assert (found.target, found.source, found.sizes) == ("node", "x", 1)


def test_a_kernel_of_several_elements_may_sample_by_one_step() -> None:
    found = match({"offset": offsets((1, 0), (-1, 0), elements=9)}, 2)
    assert found.spec == ShiftSpec((ShiftGroup(4, (-1, 0)), ShiftGroup(4, (1, 0))), (2, 3), 1, "zero")


def test_offsets_of_zero_are_an_ordinary_convolution() -> None:
    assert match({"offset": offsets((0, 0))}, 1).spec is None


def test_offsets_of_more_images_than_memory_holds_are_read_once() -> None:
    many = offsets((1, 0), (0, 1))[:1].expand(1 << 40, -1, -1, -1)
    found = match({"offset": many}, 2)
    assert found.spec == ShiftSpec((ShiftGroup(4, (-1, 0)), ShiftGroup(4, (0, -1))), (2, 3), 1, "zero")


def uneven() -> Tensor:
    values = offsets((1, 0), (0, 1))
    values[1, 0, 2, 3] = 2
    return values


@pytest.mark.parametrize(
    ("values", "groups", "reason"),
    [
        ({"offset": None}, 1, "depend on the input"),
        ({"offset": offsets((0.5, 0))}, 1, "no whole steps"),
        ({"offset": uneven()}, 2, "differ between elements of one group"),
        ({"offset": offsets((1, 0)), "mask": torch.full((2, 1, 5, 6), 0.5)}, 1, "mask is not 1"),
        ({"offset": offsets((1, 0)), "mask": None}, 1, "mask is not 1"),
    ],
)
def test_what_is_no_shift_says_why(values: Mapping[str, Any], groups: int, reason: str) -> None:
    found = match(values, groups)
    assert isinstance(found, NoShift)
    assert reason in found.reason


def test_steps_along_a_padded_axis_are_no_shift() -> None:
    values = {"offset": offsets((0, 1))}
    assert isinstance(match(values, 1, padding=(0, 1)), NoShift)
    assert match(values, 1, padding=(1, 0)).spec is not None


def test_offsets_are_read_at_other_sizes_too() -> None:
    steady = {"offset": lambda batch: offsets((1, 0), batch=batch)}
    assert match(steady, 1, free=[BATCH]).sizes == 6
    changing = {"offset": lambda batch: offsets((batch, 0), batch=batch)}
    assert "others" in match(changing, 1, free=[BATCH]).reason


def test_offsets_known_at_one_size_only_are_left() -> None:
    once = {"offset": lambda batch: offsets((1, 0)) if batch == 2 else None}
    assert "not known at other sizes" in match(once, 1, free=[BATCH]).reason
