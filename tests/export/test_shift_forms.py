"""Every form computes the shift, bit for bit, in ONNX Runtime."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from one_shift import assert_same_bits, one_shift, runner
from shift_reference import LAYOUTS, SIZES, STEPS, case, cases, numbered, question_and_answer, shift_reference

from s2mlp_deploy.errors import ExportError
from s2mlp_deploy.export.forms import FORMS, ShiftForm
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.shift.spec import BORDERS, Border, ShiftGroup, ShiftSpec

ALL_FORMS = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
COPYING = [form for form in FORMS.values() if form.name != "grouped-conv"]
"""Forms that move values and never compute with them."""


def dynamic(shape: tuple[int, ...], spec: ShiftSpec) -> list[int | str]:
    """The shape with a name for the batch and every shifted axis."""
    return [f"axis{axis}" if axis in (0, *spec.axes) else size for axis, size in enumerate(shape)]


def assert_shifts(run: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...], spec: ShiftSpec) -> None:
    x, expected = question_and_answer(shape, spec)
    assert_same_bits(run(x), expected)


def resized(shape: tuple[int, ...], spec: ShiftSpec, sizes: tuple[int, ...], batch: int) -> tuple[int, ...]:
    new = list(shape)
    new[0] = batch
    for axis, size in zip(spec.axes, sizes, strict=True):
        new[axis] = size
    return tuple(new)


@ALL_FORMS
@pytest.mark.parametrize(("rank", "layout", "steps", "border"), cases())
def test_static_graph_equals_the_reference(form: ShiftForm, rank: int, layout: str, steps: str, border: Border) -> None:
    shape, spec = case(rank, layout, steps, border)
    model, _ = lower_shifts(one_shift(shape, spec), form)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert_shifts(runner(model), shape, spec)


SIZES_OF_RANK = {
    3: ((5,), (1,), (2,), (4,)),
    4: ((5, 4), (1, 1), (1, 2), (2, 1), (3, 7)),
    5: ((5, 4, 3), (1, 1, 1), (2, 1, 2)),
}


@ALL_FORMS
@pytest.mark.parametrize(("rank", "layout", "steps", "border"), [args for args in cases() if args[0] < 5])
def test_dynamic_graph_equals_the_reference_at_every_size(
    form: ShiftForm, rank: int, layout: str, steps: str, border: Border
) -> None:
    shape, spec = case(rank, layout, steps, border)
    model, _ = lower_shifts(one_shift(dynamic(shape, spec), spec), form)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    run = runner(model)
    for batch, sizes in zip(itertools.cycle((2, 1, 3)), SIZES_OF_RANK[rank], strict=False):
        assert_shifts(run, resized(shape, spec, sizes, batch), spec)


@ALL_FORMS
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("steps", ["one", "two", "diagonal", "beyond-axis"])
def test_dynamic_volumes_equal_the_reference(form: ShiftForm, steps: str, layout: str, border: Border) -> None:
    shape, spec = case(5, layout, steps, border)
    model, _ = lower_shifts(one_shift(dynamic(shape, spec), spec), form)
    run = runner(model)
    for sizes in SIZES_OF_RANK[5]:
        assert_shifts(run, resized(shape, spec, sizes, 1), spec)


@ALL_FORMS
@pytest.mark.parametrize("sizes", ["static", "dynamic"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("steps", STEPS)
def test_circular_before_opset_19_where_pad_cannot_wrap(form: ShiftForm, steps: str, layout: str, sizes: str) -> None:
    shape, spec = case(4, layout, steps, "circular")
    model, _ = lower_shifts(one_shift(shape if sizes == "static" else dynamic(shape, spec), spec, opset=18), form)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    run = runner(model)
    for new in [SIZES[:2]] if sizes == "static" else SIZES_OF_RANK[4]:
        assert_shifts(run, resized(shape, spec, new, 2), spec)


@ALL_FORMS
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("opset", [18, 25])
def test_first_and_last_opset(form: ShiftForm, opset: int, border: Border) -> None:
    shape, spec = case(4, "channels-last", "long-diagonal", border)
    model, _ = lower_shifts(one_shift(dynamic(shape, spec), spec, opset=opset), form)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    assert [(item.domain, item.version) for item in proto.opset_import] == [("", opset)]
    assert_shifts(runner(model), shape, spec)


@ALL_FORMS
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize(
    ("shape", "axes", "channel_axis"),
    [((5, 4, 4), (0, 1), 2), ((4, 5, 4), (1, 2), 0), ((4, 5, 2, 3), (1, 3), 0), ((5, 2, 4, 3), (3, 0), 2)],
    ids=["HWC", "CHW", "CHxW", "HxCW"],
)
def test_axes_in_unusual_places(
    form: ShiftForm, shape: tuple[int, ...], axes: tuple[int, ...], channel_axis: int, border: Border
) -> None:
    spec = ShiftSpec.equal_groups(4, [(1, -1), (0, 2)], axes=axes, channel_axis=channel_axis, border=border)
    model, _ = lower_shifts(one_shift(shape, spec), form)
    assert_shifts(runner(model), shape, spec)


@ALL_FORMS
@pytest.mark.parametrize("border", BORDERS)
def test_natural_numbers_of_all_magnitudes(form: ShiftForm, border: Border) -> None:
    shape, spec = case(4, "channels-first", "one", border)
    generator = np.random.default_rng(0)
    x = (generator.standard_normal(shape) * 10.0 ** generator.integers(-30, 30, shape)).astype(np.float32)
    assert_same_bits(runner(lower_shifts(one_shift(shape, spec), form)[0])(x), shift_reference(x, spec))


@pytest.mark.parametrize("form", COPYING, ids=lambda form: form.name)
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("sizes", ["static", "dynamic"])
def test_copying_forms_carry_nan_infinity_and_denormals(form: ShiftForm, sizes: str, border: Border) -> None:
    shape, spec = case(4, "channels-last", "diagonal", border)
    x = np.resize(np.array([np.nan, np.inf, -np.inf, 1e-45, -2.5], np.float32), shape)
    model, _ = lower_shifts(one_shift(shape if sizes == "static" else dynamic(shape, spec), spec), form)
    assert_same_bits(runner(model)(x), shift_reference(x, spec))


@ALL_FORMS
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("steps", ["one", "diagonal"])
def test_negative_zero_stays_a_zero_and_keeps_its_sign_where_cells_are_only_cut_and_joined(
    form: ShiftForm, steps: str, border: Border
) -> None:
    shape, spec = case(4, "channels-last", steps, border)
    x = np.resize(np.array([-0.0, 1.0, -0.0, -2.0, 0.0], np.float32), shape)
    result = runner(lower_shifts(one_shift(shape, spec), form)[0])(x)
    np.testing.assert_array_equal(result, shift_reference(x, spec))
    if form.name in ("slice-concat", "pad-slice"):
        assert_same_bits(result, shift_reference(x, spec))


def test_a_convolution_spreads_infinity_to_its_neighbours() -> None:
    """Why ``grouped-conv`` is not among the copying forms: 0 times infinity is NaN."""
    spec = ShiftSpec((ShiftGroup(1, (1, 0)),), (2, 3), 1, "edge")
    x = np.zeros((1, 1, 5, 5), np.float32)
    x[0, 0, 2, 2] = np.inf
    result = runner(lower_shifts(one_shift(x.shape, spec), FORMS["grouped-conv"])[0])(x)
    assert np.isnan(result).any()


@pytest.mark.parametrize("form", COPYING, ids=lambda form: form.name)
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.float16, np.float64], ids=lambda dtype: dtype.__name__)
def test_copying_forms_take_other_dtypes(form: ShiftForm, dtype: type, border: Border) -> None:
    shape, spec = case(4, "channels-first", "two", border)
    x = numbered(shape, dtype)
    kind = ir.DataType.from_numpy(x.dtype)
    for sizes in (shape, dynamic(shape, spec)):
        model, _ = lower_shifts(one_shift(sizes, spec, dtype=kind), form)
        assert model.graph.outputs[0].dtype == kind
        assert_same_bits(runner(model)(x), shift_reference(x, spec))


@pytest.mark.parametrize("dtype", [ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL, ir.DataType.INT8])
def test_a_convolution_of_integers_is_refused_with_another_form(dtype: ir.DataType) -> None:
    shape, spec = case(4, "channels-first", "one", "edge")
    with pytest.raises(ExportError, match="cannot be a convolution") as raised:
        lower_shifts(one_shift(shape, spec, dtype=dtype), FORMS["grouped-conv"])
    assert raised.value.fix is not None
    assert any(form.name in raised.value.fix for form in COPYING)


def test_a_convolution_over_four_axes_is_refused_with_another_form() -> None:
    spec = ShiftSpec.equal_groups(2, [(1,), (-1,)], axes=(2,), channel_axis=1)
    shape = (1, 2, 3, 3, 3, 3)
    with pytest.raises(ExportError, match="4 axes to convolve over") as raised:
        lower_shifts(one_shift(shape, spec), FORMS["grouped-conv"])
    assert raised.value.fix is not None
    for form in COPYING:
        x = numbered(shape)
        assert_same_bits(runner(lower_shifts(one_shift(shape, spec), form)[0])(x), shift_reference(x, spec))
