"""Sizes that a graph was not made for are refused."""

from __future__ import annotations

import time

import msgspec
import pytest

from s2mlp_deploy.artifact import METADATA_KEY, SizeLimit, check_sizes, fitting_batch, read_limits
from s2mlp_deploy.errors import InputError

CLIPS = SizeLimit("x", 0, "batch", min=8, multiple=8)
ODD = SizeLimit("x", 2, "height", min=3, max=20, multiple=2, remainder=1)


def test_in_words() -> None:
    assert str(CLIPS) == "the batch of x is a multiple of 8"
    assert str(ODD) == "the height of x is a multiple of 2 plus 1 and at least 3 and at most 20"
    assert str(SizeLimit("x", 2, "height", min=11)) == "the height of x is at least 11"


@pytest.mark.parametrize(("size", "allowed"), [(1, False), (3, True), (4, False), (19, True), (20, False), (21, False)])
def test_allowed(size: int, allowed: bool) -> None:
    assert ODD.allows(size) is allowed


@pytest.mark.parametrize(("size", "following"), [(1, 3), (3, 3), (4, 5), (18, 19), (20, 19), (500, 19)])
def test_the_next_allowed_size(size: int, following: int) -> None:
    assert ODD.at_least(size) == following


def test_others_are_refused_with_the_next() -> None:
    check_sizes([CLIPS, ODD], {"x": (16, 3, 5, 5), "y": (3,)})
    with pytest.raises(InputError, match="a multiple of 8, and it was given 12") as raised:
        check_sizes([CLIPS], {"x": (12, 3, 5, 5)})
    assert "give 16" in raised.value.fix


def test_the_batch_that_fits() -> None:
    assert fitting_batch([CLIPS, ODD], 12) == (16, True)
    assert fitting_batch([ODD], 12) == (12, False)
    assert fitting_batch([CLIPS, SizeLimit("y", 0, "batch", min=3, multiple=3)], 1) == (24, True)


def test_read_from_metadata() -> None:
    text = msgspec.json.encode({"limits": [CLIPS, ODD]}).decode()
    assert read_limits({METADATA_KEY: text}) == (CLIPS, ODD)
    assert read_limits({}) == ()
    assert read_limits({METADATA_KEY: "[1]"}) == ()
    with pytest.raises(InputError, match="damaged"):
        read_limits({METADATA_KEY: '{"limits": [{"input": 3}]}'})


@pytest.mark.parametrize(
    "wrong",
    [
        {"multiple": 0},
        {"multiple": -2, "remainder": -1},
        {"multiple": 4, "remainder": 4},
        {"axis": -1},
        {"min": 9, "max": 8},
        {"min": 1, "max": 3, "multiple": 10, "remainder": 5},
        {"multiple": 2**40},
    ],
)
def test_limits_that_no_size_keeps_are_damage(wrong: dict[str, int]) -> None:
    described = {"input": "x", "axis": 0, "name": "batch"} | wrong
    with pytest.raises(InputError, match="damaged"):
        read_limits({METADATA_KEY: msgspec.json.encode({"limits": [described]}).decode()})


def test_the_batch_that_fits_is_found_at_once_or_given_up() -> None:
    start = time.process_time()
    large = [SizeLimit(name, 0, "batch", multiple=multiple) for name, multiple in (("x", 2**31 - 1), ("y", 2**31 - 3))]
    assert fitting_batch(large[:1], 8) == (2**31 - 1, True)
    fitting_batch(large, 8)
    assert time.process_time() - start < 2
