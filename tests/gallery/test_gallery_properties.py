"""Any shift, written in any way, at any size: found, and computed by ONNX Runtime bit for bit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from gallery_case import flat, same_shift
from gallery_spellers import SPELLERS, Spelled, Speller, assigned_slices, flat_gather, joined_slices, one_hot_kernels
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from one_shift import one_shift, runner
from shift_reference import numbered, shift_reference

from s2mlp_deploy.capture.program import capture
from s2mlp_deploy.export.forms import FORMS
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.export.rewrite import is_shift, rewrite_shifts
from s2mlp_deploy.shift.spec import Border, ShiftGroup, ShiftSpec

LARGEST_STEP = 3


@dataclass(frozen=True)
class Written:
    """A shift, how it is written, and for which tensor."""

    spec: ShiftSpec
    speller: Speller
    shape: tuple[int, ...]


@st.composite
def written(draw: st.DrawFn) -> Written:
    count = draw(st.integers(1, 3), label="spatial axes")
    speller = draw(st.sampled_from(list(SPELLERS)), label="speller")
    border = draw(st.sampled_from(SPELLERS[speller]), label="border")
    # Around an axis, the smaller way is the step; elsewhere two cells that keep their neighbour show it.
    smallest = 2 * LARGEST_STEP + 1 if border == "circular" else LARGEST_STEP + 2
    sizes = [draw(st.integers(smallest, 2 * LARGEST_STEP + 3)) for _ in range(count)]
    offsets = st.tuples(*[st.integers(-LARGEST_STEP, LARGEST_STEP)] * count)
    groups = draw(
        st.lists(st.builds(ShiftGroup, st.integers(1, 3), offsets), min_size=1, max_size=5).filter(
            lambda groups: any(any(group.offsets) for group in groups)
        )
    )
    channels = sum(group.channels for group in groups)
    if draw(st.booleans(), label="channels first"):
        shape, axes, channel_axis = (2, channels, *sizes), tuple(range(2, count + 2)), 1
    else:
        shape, axes, channel_axis = (2, *sizes, channels), tuple(range(1, count + 1)), count + 1
    return Written(ShiftSpec(tuple(groups), axes, channel_axis, border), speller, shape)


def in_other_layout(spec: ShiftSpec) -> ShiftSpec:
    """The same movement seen behind, or before, a permutation of the channels."""
    count = len(spec.axes)
    if spec.channel_axis == 1:
        return ShiftSpec(spec.groups, tuple(range(1, count + 1)), count + 1, spec.border)
    return ShiftSpec(spec.groups, tuple(range(2, count + 2)), 1, spec.border)


def circularly_same(found: ShiftSpec, wanted: ShiftSpec, shape: tuple[int, ...]) -> bool:
    """Around an axis of 7 cells, -4 is +3."""
    sizes = {axis: shape[axis] for axis in wanted.axes}
    other = in_other_layout(wanted)
    if same_shift(found, wanted, shape):
        return True
    turned = [0] * len(shape)
    turned[other.channel_axis] = wanted.channels
    for axis, seen in zip(wanted.axes, other.axes, strict=True):
        turned[seen] = sizes[axis]
    return same_shift(found, other, turned)


def check(example: Written, form: str) -> None:
    x = numbered(example.shape)
    captured = capture(Spelled(example.speller, example.spec), (torch.from_numpy(x.copy()),))
    rewritten = rewrite_shifts(captured.program)
    found = [shift.spec for shift in rewritten.shifts]
    assert len(found) == 1
    assert circularly_same(found[0], example.spec, example.shape)
    wanted = shift_reference(x + np.float32(0.5), example.spec)
    with torch.no_grad():
        (functional,) = flat(captured.program.module()(torch.from_numpy(x.copy())))
    assert functional.tobytes() == wanted.tobytes()
    (target,) = (node for node in captured.program.graph.nodes if is_shift(node))
    source = torch.from_numpy(x + np.float32(0.5))
    told_otherwise = found[0].channel_axis != example.spec.channel_axis and len(found[0].groups) > 1
    axes = (example.spec.channel_axis, in_other_layout(example.spec).channel_axis)
    seen = torch.movedim(source, *axes).contiguous().numpy() if told_otherwise else source.numpy()
    assert target.meta["val"].shape[1:] == seen.shape[1:]
    model, _ = lower_shifts(one_shift(("batch", *seen.shape[1:]), found[0]), FORMS[form])
    result = runner(model)(seen)
    if told_otherwise:
        result = np.moveaxis(result, axes[1], axes[0])
    # A convolution may lose the sign of a zero, which no cell of these numbers but a vacated one has.
    assert result.dtype == wanted.dtype
    np.testing.assert_array_equal(result, wanted)
    if form != "grouped-conv":
        assert np.ascontiguousarray(result).tobytes() == wanted.tobytes()


CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large]
# Each example is a capture: shrinking a failure would take many minutes.
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=CHECKS, phases=PHASES)
@given(written(), st.sampled_from(list(FORMS)))
def test_any_spelling_of_any_shift_is_found_and_computed_exactly(example: Written, form: str) -> None:
    note(f"{example.speller.__name__} of {example.spec} for {example.shape}, as {form}")
    check(example, form)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=200, deadline=None, suppress_health_check=CHECKS, phases=PHASES)
@given(written(), st.sampled_from(list(FORMS)))
def test_two_hundred_more_spellings_are_found_and_computed_exactly(example: Written, form: str) -> None:
    note(f"{example.speller.__name__} of {example.spec} for {example.shape}, as {form}")
    check(example, form)


@pytest.mark.parametrize("border", ["keep", "edge", "zero"])
def test_step_over_half_of_an_axis_is_found(border: Border) -> None:
    # Nothing else is meant by it: 3 of 5 cells are vacated, 2 move.
    speller = joined_slices if border == "edge" else assigned_slices
    check(Written(ShiftSpec((ShiftGroup(2, (3,)),), (2,), 1, border), speller, (2, 2, 5)), "slice-concat")


def test_gather_with_an_index_computed_from_zeros_is_found_and_computed_exactly() -> None:
    spec = ShiftSpec((ShiftGroup(2, (1,)), ShiftGroup(1, (-1,))), (2,), 1, "edge")
    check(Written(spec, flat_gather, (2, 3, 6)), "slice-concat")


def test_kernels_filled_by_two_assignments_are_found_and_computed_exactly() -> None:
    spec = ShiftSpec((ShiftGroup(2, (1,)), ShiftGroup(1, (-1,))), (2,), 1, "zero")
    check(Written(spec, one_hot_kernels, (2, 3, 6)), "slice-concat")


@pytest.mark.parametrize("speller", SPELLERS, ids=lambda speller: speller.__name__)
def test_speller_writes_what_the_specification_says(speller: Speller) -> None:
    groups = (ShiftGroup(1, (1, 0)), ShiftGroup(2, (-2, 1)), ShiftGroup(1, (0, 0)), ShiftGroup(1, (0, -3)))
    for border in SPELLERS[speller]:
        for shape, axes, channel_axis in (((2, 5, 6, 4), (2, 3), 1), ((2, 6, 4, 5), (1, 2), 3)):
            spec = ShiftSpec(groups, axes, channel_axis, border)
            x = numbered(shape)
            if speller.__name__ == "overlapping_slices":
                continue  # Its eager result is undefined.
            assert speller(torch.from_numpy(x), spec).numpy().tobytes() == shift_reference(x, spec).tobytes()
