"""Which other sizes a finding is checked at."""

from __future__ import annotations

import math

from s2mlp_deploy.recognition.graph import FreeSize
from s2mlp_deploy.recognition.sizes import SizeProof, other_sizes

BATCH, HEIGHT, WIDTH = FreeSize("N", 2), FreeSize("H", 40), FreeSize("W", 40)


def test_fixed_sizes_need_no_others() -> None:
    assert other_sizes([]) == []


def test_sizes_differ_from_the_example_and_from_each_other() -> None:
    choices = other_sizes([BATCH, HEIGHT])
    assert {"N": 2, "H": 40} not in choices
    assert len({tuple(sorted(choice.items())) for choice in choices}) == len(choices)


def test_small_odd_and_multiple_sizes_are_among_them() -> None:
    (batch,) = zip(*(choice.values() for choice in other_sizes([BATCH])), strict=True)
    assert 1 in batch
    assert 4 in batch
    assert any(size % 2 and size > 2 for size in batch)


def test_elements_are_at_most_doubled() -> None:
    example = math.prod(size.example for size in (BATCH, HEIGHT, WIDTH))
    most = max(math.prod(choice.values()) for choice in other_sizes([BATCH, HEIGHT, WIDTH]))
    assert most <= 2 * example


def test_limits_are_kept() -> None:
    size = FreeSize("H", example=20, min=17, max=24)
    assert {17, 24} <= {choice["H"] for choice in other_sizes([size])} <= set(range(17, 25))


def test_sizes_beyond_a_divisor_are_tried() -> None:
    values = {choice["H"] for choice in other_sizes([FreeSize("H", example=8, divisors=(4, 32))])}
    assert any(value >= 64 and value % 32 == 0 for value in values)
    assert any(value >= 64 and value % 32 for value in values)


def test_a_proof_needs_another_telling_value_of_every_free_size() -> None:
    proof = SizeProof([BATCH, HEIGHT])
    proof.confirm({"N": 1, "H": 1})  # One row moves nowhere.
    assert proof.unproven == ("N", "H")
    proof.confirm({"N": 2, "H": 9})
    assert proof.unproven == ("N",)
    proof.confirm({"N": 3, "H": 9})
    assert proof.unproven == ()
    assert proof.count == 4


def test_a_size_of_at_most_two_is_told_by_what_it_may_be() -> None:
    proof = SizeProof([FreeSize("N", example=2, min=1, max=2)])
    proof.confirm({"N": 1})
    assert proof.unproven == ("N",)
