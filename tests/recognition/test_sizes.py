"""Which other sizes a finding is checked at."""

from __future__ import annotations

import math

from s2mlp_deploy.recognition.graph import FreeSize, SizeDependence
from s2mlp_deploy.recognition.sizes import Choice, SizeProof, other_sizes

BATCH, HEIGHT, WIDTH = FreeSize("N", 2), FreeSize("H", 40), FreeSize("W", 40)


def test_fixed_sizes_need_no_others() -> None:
    assert other_sizes([]) == []


def test_sizes_differ_from_the_example_and_from_each_other() -> None:
    choices = [choice.sizes for choice in other_sizes([BATCH, HEIGHT])]
    assert {"N": 2, "H": 40} not in choices
    assert len({tuple(sorted(choice.items())) for choice in choices}) == len(choices)


def test_small_odd_and_multiple_sizes_are_among_them() -> None:
    (batch,) = zip(*(choice.sizes.values() for choice in other_sizes([BATCH])), strict=True)
    assert 1 in batch
    assert 4 in batch
    assert any(size % 2 and size > 2 for size in batch)


def test_the_first_are_small_and_prove_every_size() -> None:
    free = [BATCH, FreeSize("H", 640), FreeSize("W", 640)]
    proof = SizeProof(free)
    for choice in other_sizes(free)[:3]:
        assert math.prod(choice.sizes.values()) == 3 * 5 * 8
        proof.confirm(choice)
    assert not proof.unproven


def test_elements_are_at_most_doubled() -> None:
    example = math.prod(size.example for size in (BATCH, HEIGHT, WIDTH))
    most = max(math.prod(choice.sizes.values()) for choice in other_sizes([BATCH, HEIGHT, WIDTH]))
    assert most <= 2 * example


def test_small_sizes_are_those_with_some_elements_on_every_axis() -> None:
    heights = [c.sizes["H"] for c in other_sizes([HEIGHT], elements=lambda _, value: (value - 1) // 4)[:3]]
    assert heights == [13, 21, 33]


def test_a_turn_is_compared_with_all_else_small_and_must_be_confirmed() -> None:
    turn = ("H", (64, 65, 63))
    choices = [c for c in other_sizes([BATCH, HEIGHT], SizeDependence((turn,))) if c.turn == turn]
    assert [choice.sizes for choice in choices] == [{"N": 3, "H": height} for height in turn[1]]
    proof = SizeProof([BATCH, HEIGHT], (turn,))
    proof.confirm(Choice({"N": 3, "H": 63}))
    assert proof.unproven == ("H = 63, 64, 65",)
    proof.confirm(choices[1])
    assert not proof.unproven


def test_limits_are_kept() -> None:
    size = FreeSize("H", example=20, min=17, max=24)
    assert {17, 24} <= {choice.sizes["H"] for choice in other_sizes([size])} <= set(range(17, 25))


def test_a_proof_needs_another_telling_value_of_every_free_size() -> None:
    proof = SizeProof([BATCH, HEIGHT])
    proof.confirm(Choice({"N": 1, "H": 1}))  # One row moves nowhere.
    assert proof.unproven == ("N", "H")
    proof.confirm(Choice({"N": 2, "H": 9}))
    assert proof.unproven == ("N",)
    proof.confirm(Choice({"N": 3, "H": 9}))
    assert proof.unproven == ()
    assert proof.count == 4


def test_sizes_whose_axes_hold_too_little_prove_nothing_of_them() -> None:
    proof = SizeProof([BATCH, HEIGHT])
    proof.confirm(Choice({"N": 5, "H": 9}), dull={"H"})
    assert proof.unproven == ("H",)


def test_a_size_of_at_most_two_is_told_by_what_it_may_be() -> None:
    proof = SizeProof([FreeSize("N", example=2, min=1, max=2)])
    proof.confirm(Choice({"N": 1}))
    assert proof.unproven == ("N",)
