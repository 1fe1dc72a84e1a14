"""Every module of the gallery: its shifts are found as its author means them, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from gallery_case import Array, Case, explains, flat, numbers
from gallery_flow import (
    NEAR_MISSES,
    OWN,
    SHIFTS,
    flow,
    lowered,
    node_counts,
    rewritten,
    run_onnx,
)

from s2mlp_deploy.capture import hazards
from s2mlp_deploy.export.forms import FORMS

MOVERS = frozenset(
    [
        "slice_scatter",
        "select_scatter",
        "copy",
        "copy_",
        "index_put",
        "index_put_",
        "fill",
        "fill_",
        "roll",
        "index",
        "index_select",
        "gather",
        "pad",
        "constant_pad_nd",
        "replication_pad1d",
        "replication_pad2d",
        "replication_pad3d",
        "flip",
        "where",
        "unbind",
        "narrow",
        "deform_conv2d",
    ]
)
"""Operators with which the gallery writes shifts. Slices, cats and splits stand around shifts too."""
LAYERS = frozenset({"conv1d", "conv2d", "conv3d", "convolution", "stack", "select"})
"""Part of a shift where nothing is computed, and a layer elsewhere."""
SPATIAL = ("batch", "height", "width")


def named(cases: Sequence[Case], *, slow: bool = False) -> list[Any]:
    """Cases as parameters of a test; with ``slow``, only a third in the default run."""
    return [
        pytest.param(case, id=case.name, marks=[pytest.mark.slow] if slow and not case.export else []) for case in cases
    ]


def assert_same(actual: Sequence[Array], wanted: Sequence[Array], *, exact: bool) -> None:
    assert len(actual) == len(wanted)
    for got, true in zip(actual, wanted, strict=True):
        assert got.shape == true.shape
        assert got.dtype == true.dtype
        if exact:
            np.testing.assert_array_equal(got, true)
        else:
            np.testing.assert_allclose(got, true, rtol=1e-5, atol=1e-6 * max(1.0, float(np.abs(true).max(initial=0))))


def eager(case: Case) -> list[Array]:
    with torch.no_grad():
        return flat(case.module().eval()(*case.inputs()))


def test_gallery_is_large_and_no_name_is_taken_twice() -> None:
    names = [case.name for case in (*SHIFTS, *NEAR_MISSES)]
    assert len(set(names)) == len(names)
    assert len(SHIFTS) >= 30
    assert len(NEAR_MISSES) >= 14
    assert all(case.expected for case in SHIFTS)
    assert not any(case.expected for case in NEAR_MISSES)


@pytest.mark.parametrize("case", named(SHIFTS))
def test_shifts_found_are_those_the_author_means(case: Case) -> None:
    found = flow(case.name).specs
    assert any(explains(found, answer) for answer in (case.expected, *case.also)), found


@pytest.mark.parametrize("case", named(SHIFTS))
def test_nothing_that_belonged_to_a_shift_is_left(case: Case) -> None:
    result = flow(case.name)
    unwanted = (MOVERS | LAYERS if case.exact else MOVERS) - case.rest
    assert result.operators[OWN] == len(result.shifts)
    assert not {name: count for name, count in result.operators.items() if name in unwanted}


@pytest.mark.parametrize("case", named(SHIFTS))
def test_functional_program_computes_what_the_author_means(case: Case) -> None:
    result = flow(case.name)
    wanted = case.truth(result.module, *result.inputs) if case.truth else eager(case)
    assert_same(result.functional, wanted, exact=case.exact)


@pytest.mark.parametrize("case", named((*SHIFTS, *NEAR_MISSES)))
def test_recognition_changes_no_output(case: Case) -> None:
    result = flow(case.name)
    assert_same(rewritten(case.name), result.functional, exact=case.exact)


@pytest.mark.parametrize("case", named([case for case in (*SHIFTS, *NEAR_MISSES) if not case.race]))
def test_eager_agrees_where_nothing_overlaps(case: Case) -> None:
    assert_same(flow(case.name).functional, eager(case), exact=case.exact)


@pytest.mark.parametrize("case", named((*SHIFTS, *NEAR_MISSES)))
def test_overlapping_writes_are_told_as_races(case: Case) -> None:
    found = hazards.watch(case.module().eval(), case.inputs())
    assert any(hazard.kind == "race" for hazard in found) == case.race


@pytest.mark.parametrize("case", named(NEAR_MISSES))
def test_near_miss_is_left_as_it_was(case: Case) -> None:
    result = flow(case.name)
    assert not result.shifts, result.specs
    assert OWN not in result.operators


@pytest.mark.parametrize("case", named(SHIFTS, slow=True))
def test_onnx_runtime_computes_the_functional_meaning_without_scatters(case: Case) -> None:
    result = flow(case.name)
    model, shifts = lowered(case.name)
    outputs = run_onnx(model, result.inputs)
    assert_same(outputs, result.functional, exact=case.exact)
    if case.truth:
        assert_same(outputs, case.truth(result.module, *result.inputs), exact=case.exact)
    if not case.rest:
        assert node_counts(model)["ScatterND"] == 0
    # The exporter merges equal shifts of one tensor.
    assert {shift.spec for shift in shifts} == set(result.specs)


@pytest.mark.parametrize("case", named(NEAR_MISSES, slow=True))
def test_onnx_runtime_computes_a_near_miss_as_it_was(case: Case) -> None:
    result = flow(case.name)
    model, _ = lowered(case.name)
    assert_same(run_onnx(model, result.inputs), result.functional, exact=case.exact)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", named([case for case in SHIFTS if case.forms]))
def test_every_form_computes_the_functional_meaning(case: Case, form: str) -> None:
    result = flow(case.name)
    model, shifts = lowered(case.name, form)
    assert {shift.form for shift in shifts} == {form}
    assert_same(run_onnx(model, result.inputs), result.functional, exact=case.exact)


@pytest.mark.parametrize("case", named([case for case in SHIFTS if case.sizes]))
def test_shifts_of_dynamic_sizes_are_found(case: Case) -> None:
    found = flow(case.name, SPATIAL)
    assert explains(found.specs, case.expected), found.specs
    for shift in found.shifts:
        assert shift.origin.sizes > 3


@pytest.mark.parametrize(
    ("case", "shape"),
    [
        pytest.param(case, shape, id=f"{case.name}-{'x'.join(map(str, shape))}")
        for case in SHIFTS
        for shape in case.sizes
    ],
)
def test_one_file_serves_other_sizes(case: Case, shape: tuple[int, ...]) -> None:
    (x,) = numbers(shape, seed=1)
    model, _ = lowered(case.name, dynamic=SPATIAL)
    assert case.truth is not None
    outputs = run_onnx(model, [x.numpy()])
    assert_same(outputs, case.truth(case.module(), x.numpy()), exact=case.exact)


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_items_beyond_a_fixed_count_stay_where_they_are(batch: int) -> None:
    # The whole batch is shifted at the example's size of two; the file must be right at every size it takes.
    case = next(case for case in SHIFTS if case.name == "only-the-first-items")
    (x,) = numbers((batch, *case.inputs()[0].shape[1:]), seed=2)
    model, _ = lowered(case.name)
    assert_same(run_onnx(model, [x.numpy()]), case.truth(case.module(), x.numpy()), exact=True)
