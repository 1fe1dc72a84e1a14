"""Aligning sequences of keys."""

from __future__ import annotations

import itertools
import random
import time

from s2mlp_deploy.difference.align import align, gaps


def test_what_is_inserted_moves_nothing_else() -> None:
    a = list("xabcabcay")
    b = list("xabcQDabcay")
    pairs = align(a, b)
    assert [(a[i], b[j]) for i, j in pairs] == [(letter, letter) for letter in a]
    assert {j for _, j in pairs} == {0, 1, 2, 3, 6, 7, 8, 9, 10}
    assert list(gaps(pairs, len(a), len(b))) == []


def test_a_gap_has_something_on_both_sides() -> None:
    pairs = align("abc", "aXc")
    assert pairs == [(0, 0), (2, 2)]
    assert list(gaps(pairs, 3, 3)) == [(1, 2, 1, 2)]


def test_pairs_grow_on_both_sides_and_are_equal() -> None:
    draw = random.Random(0)
    for _ in range(200):
        a, b = ([draw.choice("abcdefgh") for _ in range(draw.randrange(30))] for _ in range(2))
        pairs = align(a, b)
        assert all(a[i] == b[j] for i, j in pairs)
        assert all(i < k and j < m for (i, j), (k, m) in itertools.pairwise(pairs))


def test_forty_thousand_nodes_of_three_operators_take_seconds() -> None:
    draw = random.Random(0)
    a = [draw.choice("abc") for _ in range(40_000)]
    b = [letter for letter in a if draw.random() > 1e-4]
    start = time.process_time()
    pairs = align(a, b)
    assert time.process_time() - start < 10
    assert len(pairs) > 24_000
