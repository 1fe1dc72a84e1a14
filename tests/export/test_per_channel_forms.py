"""Shifts of one channel a group: every form moves the same bits, and one form's size does not grow with the groups."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from one_shift import assert_same_bits, model_of, one_shift, runner, shift_node
from per_channel import PLACES, STEPS, per_channel
from shift_reference import question_and_answer, shift_reference

from s2mlp_deploy.export.forms import FORMS
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.shift.spec import BORDERS, Border, ShiftGroup, ShiftSpec

ALL_FORMS = pytest.mark.parametrize("form", [*FORMS, "auto"])
ROWS = FORMS["row-gather"]


@ALL_FORMS
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("place", ["NCHW", "NHWC"])
@pytest.mark.parametrize("steps", STEPS)
def test_every_form_moves_the_same_bits(steps: str, place: str, border: Border, form: str) -> None:
    shape, spec = per_channel(steps, place, border)
    model, _ = lower_shifts(one_shift(("batch", *shape[1:]), spec), FORMS.get(form))
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    x, expected = question_and_answer(shape, spec)
    assert_same_bits(runner(model)(x), expected)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("steps", STEPS)
def test_rows_are_gathered_at_sizes_that_were_not_known(steps: str, place: str, border: Border) -> None:
    shape, spec = per_channel(steps, place, border)
    free = [f"axis{axis}" if axis in (0, *spec.axes) else size for axis, size in enumerate(shape)]
    model, _ = lower_shifts(one_shift(free, spec), ROWS)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    run = runner(model)
    for size, batch in (((5, 4), 2), ((1, 1), 1), ((2, 9), 3)):
        x, expected = question_and_answer(*per_channel(steps, place, border, size=size, batch=batch))
        assert_same_bits(run(x), expected)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("free", [(), (0,), (0, 1, 3), (0, 1, 3, 4)], ids=["none", "batch", "some", "all"])
def test_rows_of_tensors_with_axes_that_stay(free: tuple[int, ...], border: Border) -> None:
    """Frames and columns stay; channels stand between what stays and what moves."""
    shape = (2, 3, 6, 4, 5)
    spec = ShiftSpec(tuple(ShiftGroup(1, (c - 3,)) for c in range(6)), (3,), 2, border)
    sizes = [f"axis{axis}" if axis in free else size for axis, size in enumerate(shape)]
    model, _ = lower_shifts(one_shift(sizes, spec), ROWS)
    x, expected = question_and_answer(shape, spec)
    assert_same_bits(runner(model)(x), expected)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("place", ["NCHW", "NHWC"])
def test_gathered_rows_keep_infinity_nan_and_denormals(place: str, border: Border) -> None:
    shape, spec = per_channel("neighbours", place, border)
    x = np.resize(np.array([np.nan, np.inf, -np.inf, 1e-45, -0.0, -2.5], np.float32), shape)
    assert_same_bits(runner(lower_shifts(one_shift(shape, spec), ROWS)[0])(x), shift_reference(x, spec))


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("border", BORDERS)
def test_the_nodes_of_gathered_rows_do_not_grow_with_the_channels(border: Border, steps: str) -> None:
    few, many = (
        lower_shifts(one_shift(*per_channel(steps, "NCHW", border, channels=channels)), ROWS)[0]
        for channels in (11, 200)
    )
    assert len(few.graph) == len(many.graph) <= 20


def test_equal_shifts_share_their_table_of_rows() -> None:
    shape, spec = per_channel("own-step", "NCHW", "circular")
    x = ir.Value(name="input", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))
    first = shift_node(x, spec, "a/Shift", "middle")
    second = shift_node(first.outputs[0], spec, "b/Shift", "output")
    model, _ = lower_shifts(model_of(x, [first, second], second.outputs[0]), ROWS)
    tables = {node.inputs[1].name for node in model.graph if node.op_type == "Gather"}
    assert len(tables) == 1
    assert model.graph.initializers[tables.pop()].shape == (11 * 4,)
