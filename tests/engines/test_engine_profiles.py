"""Shapes as users write them, and the profiles made of them."""

from __future__ import annotations

import pytest

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.engines.profiles import InputProfile, check_shapes, make_profiles, parse_shapes
from s2mlp_deploy.errors import InputError

BATCH = TensorInfo("input", "float32", ("batch", 3, 32, 32))
STATIC = TensorInfo("mask", "float32", (1, 4))
FREE = TensorInfo("image", "float32", ("batch", 3, "height", "width"))


def test_shapes_are_read_as_trtexec_and_polygraphy_write_them():
    assert parse_shapes("input:1x3x224x224") == {"input": (1, 3, 224, 224)}
    assert parse_shapes("a:1,b:2x3, c:4 ") == {"a": (1,), "b": (2, 3), "c": (4,)}
    assert parse_shapes("input:[1,3,224,224]") == {"input": (1, 3, 224, 224)}
    assert parse_shapes("a:[1],b:2x3,c:[4, 5]") == {"a": (1,), "b": (2, 3), "c": (4, 5)}


def test_a_name_may_hold_a_colon():
    assert parse_shapes("scope/input:0:8x3") == {"scope/input:0": (8, 3)}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "input",
        "input:",
        ":1x3",
        "1x3x224x224",
        "input:0x3",
        "input:-1x3",
        "input:9999999999x3",
        "input:1xNx3",
        "input:1.5x3",
        "a:1,",
        "input:[1,3",
        "input:[]",
    ],
)
def test_text_that_is_no_shape_is_refused_with_an_example(text):
    with pytest.raises(InputError, match=r"is not a shape\n.*NAME:1x3x224x224"):
        parse_shapes(text)


def test_an_input_named_twice_in_one_profile_is_refused():
    with pytest.raises(InputError, match=r"names the input a twice[\s\S]*each repetition is a profile"):
        parse_shapes("a:1,a:2")


def test_a_dynamic_batch_gets_1_8_and_32():
    assert make_profiles([BATCH, STATIC], (), (), ()) == (
        {"input": InputProfile((1, 3, 32, 32), (8, 3, 32, 32), (32, 3, 32, 32))},
    )


def test_where_nothing_may_be_assumed_a_dynamic_batch_needs_shapes_and_names_the_input():
    with pytest.raises(InputError, match=r"axis 0 \(batch\) of the input input is dynamic[\s\S]*input:Nx3x32x32"):
        make_profiles([BATCH], (), (), (), default_batches=None)


def test_static_inputs_need_no_profile():
    assert make_profiles([STATIC], (), (), ()) == ()
    assert make_profiles([STATIC], (), (), (), default_batches=None) == ()


def test_given_shapes_are_taken():
    low, mid, high = (2, 3, 32, 32), (4, 3, 32, 32), (6, 3, 32, 32)
    (profile,) = make_profiles([BATCH], [{"input": low}], [{"input": mid}], [{"input": high}])
    assert profile == {"input": InputProfile(low, mid, high)}


@pytest.mark.parametrize("where", [0, 1, 2])
def test_one_given_shape_stands_for_all_three(where):
    shape = (2, 3, 64, 64)
    given = [[], [], []]
    given[where] = [{"image": shape}]
    assert make_profiles([FREE], *given) == ({"image": InputProfile(shape, shape, shape)},)


def test_each_repetition_is_a_profile():
    small, large = {"input": (1, 3, 32, 32)}, {"input": (64, 3, 32, 32)}
    first, second = make_profiles([BATCH], [small, large], (), [{"input": (8, 3, 32, 32)}, large])
    assert first["input"] == InputProfile((1, 3, 32, 32), (8, 3, 32, 32), (8, 3, 32, 32))
    assert second["input"] == InputProfile(*3 * ((64, 3, 32, 32),))


def test_options_repeated_differently_often_are_refused():
    shape = {"input": (1, 3, 32, 32)}
    with pytest.raises(InputError, match="--min-shapes 2, --opt-shapes 1, --max-shapes 0 times"):
        make_profiles([BATCH], [shape, shape], [shape], ())


def test_the_profile_that_takes_a_shape_is_found_and_a_shape_outside_says_what_is_allowed():
    profiles = make_profiles(
        [BATCH],
        [{"input": (1, 3, 32, 32)}, {"input": (16, 3, 32, 32)}],
        (),
        [{"input": (4, 3, 32, 32)}, {"input": (32, 3, 32, 32)}],
    )
    assert check_shapes(profiles, {"input": (2, 3, 32, 32)}) == 0
    assert check_shapes(profiles, {"input": (32, 3, 32, 32)}) == 1
    assert check_shapes((), {"input": (99,)}) == 0
    for shape in ((8, 3, 32, 32), (33, 3, 32, 32), (1, 3, 31, 32), (1, 3, 32)):
        with pytest.raises(InputError, match=r"of input is outside[\s\S]*1x3x32x32 to 4x3x32x32 or 16x3x32x32 to 32x3"):
            check_shapes(profiles, {"input": shape})


def test_a_dynamic_axis_other_than_the_batch_needs_shapes_and_is_named():
    with pytest.raises(InputError) as caught:
        make_profiles([FREE], (), (), ())
    text = str(caught.value)
    assert "2 (height)" in text
    assert "3 (width)" in text
    assert "image:Nx3xNxN" in text


def test_a_name_that_is_no_input_lists_the_inputs():
    with pytest.raises(InputError, match=r"'inptu', which is no input\n.*input, mask"):
        make_profiles([BATCH, STATIC], [{"inptu": (1, 3, 32, 32)}], (), ())


@pytest.mark.parametrize("shape", [(1, 3, 32), (1, 4, 32, 32), (1, 3, 32, 64), (1, 3, 32, 32, 1)])
def test_a_shape_that_does_not_fit_says_what_is_free(shape):
    with pytest.raises(InputError, match=r"does not fit the input input\n.*batchx3x32x32"):
        make_profiles([BATCH], (), [{"input": shape}], ())


@pytest.mark.parametrize(("low", "mid", "high"), [(8, 1, 32), (1, 64, 32), (2, 2, 1)])
def test_shapes_out_of_order_are_shown(low, mid, high):
    with pytest.raises(InputError, match=rf"{low}x3x32x32 <= {mid}x3x32x32 <= {high}x3x32x32 does not hold"):
        make_profiles(
            [BATCH], [{"input": (low, 3, 32, 32)}], [{"input": (mid, 3, 32, 32)}], [{"input": (high, 3, 32, 32)}]
        )


def test_order_is_checked_along_every_axis():
    with pytest.raises(InputError, match="not in order"):
        make_profiles([FREE], [{"image": (1, 3, 64, 64)}], [{"image": (2, 3, 64, 32)}], [{"image": (4, 3, 64, 64)}])
