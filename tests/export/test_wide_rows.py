"""``row-gather`` where channels come last and groups are wide: one table for all axes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from one_shift import assert_same_bits, one_shift, runner
from shift_reference import shift_reference

from s2mlp_deploy.export.forms import FORMS
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.shift.spec import BORDERS, Border, ShiftGroup, ShiftSpec

STEPS = {
    "one": [(1, 0), (-1, 0), (0, 1), (0, -1)],
    "diagonal and beyond": [(2, -1), (-7, 3), (0, 0), (1, 1)],
}


def spec_of(steps: str, border: Border, widths: tuple[int, ...] = (16, 32, 16, 16)) -> ShiftSpec:
    groups = tuple(ShiftGroup(width, offsets) for width, offsets in zip(widths, STEPS[steps], strict=True))
    return ShiftSpec(groups, (1, 2), 3, border)


def ops(shape: tuple[int | str, ...], spec: ShiftSpec) -> Counter[str]:
    return Counter(node.op_type for node in lower_shifts(one_shift(shape, spec), FORMS["row-gather"])[0].graph)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("batch", ["batch", 2])
def test_numbers(border: Border, steps: str, batch: int | str) -> None:
    spec = spec_of(steps, border)
    model, _ = lower_shifts(one_shift((batch, 3, 4, 80), spec), FORMS["row-gather"])
    x = np.arange(2 * 3 * 4 * 80, dtype=np.float32).reshape(2, 3, 4, 80)
    assert_same_bits(runner(model)(x), shift_reference(x, spec))


@pytest.mark.parametrize("border", ["keep", "edge", "circular"])
def test_one_gather(border: Border) -> None:
    assert ops(("batch", 3, 4, 80), spec_of("one", border)) == {"Reshape": 2, "Gather": 1}


def test_one_table_for_equal_shifts() -> None:
    model, _ = lower_shifts(one_shift((1, 3, 4, 80), spec_of("one", "keep")), FORMS["row-gather"])
    table = next(value for name, value in model.graph.initializers.items() if "row" in name)
    assert table.const_value is not None
    assert table.const_value.shape.numpy() == (3 * 4 * 80 // 16,)


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((1, 3, 4, 80), spec_of("one", "zero")),
        ((1, 3, "width", 80), spec_of("one", "keep")),
        ((1, 3, 4, 32), spec_of("one", "keep", (8, 8, 8, 8))),
        ((1, 300, 300, 64), spec_of("one", "keep", (16, 16, 16, 16))),
    ],
    ids=["zeros", "free size", "narrow groups", "a table that would be too long"],
)
def test_otherwise_an_axis_at_a_time(shape: tuple[int | str, ...], spec: ShiftSpec) -> None:
    assert ops(shape, spec)["Gather"] == 2
