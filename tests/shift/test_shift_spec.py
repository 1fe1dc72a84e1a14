"""ShiftSpec: what it refuses, and that it comes back from its other forms unchanged."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2mlp_deploy.errors import ShiftError
from s2mlp_deploy.shift.spec import BORDERS, ShiftGroup, ShiftSpec, in_bounds

PLUS = ShiftGroup(2, (1, 0))


@st.composite
def specs(draw: st.DrawFn, max_axes: int = 3, max_step: int = 6) -> ShiftSpec:
    order = draw(st.permutations(range(max_axes + 2)))
    count = draw(st.integers(0, max_axes))
    offsets = st.tuples(*[st.integers(-max_step, max_step)] * count)
    groups = draw(st.lists(st.builds(ShiftGroup, st.integers(1, 3), offsets), min_size=1, max_size=4))
    return ShiftSpec(tuple(groups), tuple(order[1 : 1 + count]), order[0], draw(st.sampled_from(BORDERS)))


class TestValidation:
    @pytest.mark.parametrize(
        ("fields", "problem", "fix"),
        [
            ({"border": "reflect"}, "unknown border 'reflect'", "keep, edge, zero, circular"),
            ({"groups": ()}, "at least one channel group", "group"),
            ({"channel_axis": -1}, "counted from the front", "rank"),
            ({"axes": (-3, -2)}, "counted from the front", "rank"),
            ({"axes": (2, 2)}, "must all differ", "axis"),
            ({"channel_axis": 2}, "must all differ", "axis"),
            ({"groups": (PLUS, ShiftGroup(0, (0, 1)))}, "group 1 has 0 channels", "at least 1"),
            ({"groups": (PLUS, ShiftGroup(2, (1,)))}, "group 1 has 1 offsets for 2 axes", "one offset per axis"),
        ],
    )
    def test_contradictions_are_refused_with_a_fix(self, fields: dict[str, Any], problem: str, fix: str) -> None:
        valid: dict[str, Any] = {"groups": (PLUS,), "axes": (2, 3), "channel_axis": 1, "border": "keep"}
        ShiftSpec(**valid)
        with pytest.raises(ShiftError) as raised:
            ShiftSpec(**valid | fields)
        assert problem in raised.value.problem
        assert raised.value.fix is not None
        assert fix in raised.value.fix
        assert raised.value.fix in str(raised.value)

    @pytest.mark.parametrize(("channels", "offsets"), [(10, [(1,), (-1,), (2,)]), (4, [])])
    def test_equal_groups_need_divisible_channels(self, channels: int, offsets: list[tuple[int, ...]]) -> None:
        with pytest.raises(ShiftError, match=f"do not divide {channels} channels") as raised:
            ShiftSpec.equal_groups(channels, offsets, axes=(2,), channel_axis=1)
        assert raised.value.fix

    def test_equal_groups_share_the_channels_in_order(self) -> None:
        spec = ShiftSpec.equal_groups(6, [(1, 0), (0, -1)], axes=(1, 2), channel_axis=3, border="edge")
        assert spec.groups == (ShiftGroup(3, (1, 0)), ShiftGroup(3, (0, -1)))
        assert (spec.channels, spec.border) == (6, "edge")

    @pytest.mark.parametrize("shape", [(1, 2, 4), (1, 3, 4, 4), ()])
    def test_a_shape_that_does_not_fit_is_refused_with_a_fix(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ShiftError) as raised:
            ShiftSpec((PLUS,), (2, 3), 1).check_shape(shape)
        assert str(shape) in str(raised.value)
        assert raised.value.fix

    @pytest.mark.parametrize("shape", [("batch", 2, "height", "width"), (1, 2, 0, 1), (1, 2, 3, 4, 5)])
    def test_any_size_along_the_other_axes_fits(self, shape: tuple[Any, ...]) -> None:
        ShiftSpec((PLUS,), (2, 3), 1).check_shape(shape)

    @pytest.mark.parametrize(
        ("offsets", "still"), [([(0, 0)], True), ([(0, 0), (0, 0)], True), ([(0, 0), (0, 1)], False)]
    )
    def test_identity_is_when_no_group_moves(self, offsets: list[tuple[int, ...]], still: bool) -> None:
        assert ShiftSpec.equal_groups(4, offsets, axes=(2, 3), channel_axis=1).is_identity is still

    def test_specs_can_be_keys(self) -> None:
        assert {ShiftSpec((PLUS,), (2, 3), 1): 1}[ShiftSpec((ShiftGroup(2, (1, 0)),), (2, 3), 1)] == 1


class TestRoundTrips:
    @given(specs())
    def test_op_args(self, spec: ShiftSpec) -> None:
        assert ShiftSpec.from_op_args(*spec.op_args()) == spec

    @given(specs())
    def test_json_of_manifests(self, spec: ShiftSpec) -> None:
        assert msgspec.json.decode(msgspec.json.encode(spec), type=ShiftSpec) == spec

    def test_json_has_the_fields_that_the_manifest_documents(self) -> None:
        text = msgspec.json.encode(ShiftSpec((PLUS,), (2, 3), 1))
        assert json.loads(text) == {
            "groups": [{"channels": PLUS.channels, "offsets": list(PLUS.offsets)}],
            "axes": [2, 3],
            "channel_axis": 1,
            "border": "keep",
        }

    def test_op_args_with_missing_offsets_are_refused(self) -> None:
        with pytest.raises(ShiftError, match="3 offsets for 2 groups over 2 axes") as raised:
            ShiftSpec.from_op_args([1, 1], [1, 0, 1], [2, 3], 1, "keep")
        assert raised.value.fix


@settings(max_examples=200)
@given(st.integers(0, 9), st.integers(-12, 12))
def test_bounds_pair_each_cell_with_its_source(size: int, offset: int) -> None:
    target, source = in_bounds(size, offset)
    pairs = list(zip(range(size)[target], range(size)[source], strict=True))
    assert pairs == [(cell, cell - offset) for cell in range(size) if 0 <= cell - offset < size]
