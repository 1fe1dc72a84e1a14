"""Aligning two sequences by keys: like a diff of lines, and fast where few keys stand many times.

``difflib`` alone takes hours for a hundred thousand nodes of twenty operators: every key stands in thousands of places.
So what is equal at both ends is cut off first, then keys that stand once on each side are anchors (Cohen's patience
diff), and only what lies between is left to ``difflib``, in pieces of bounded size.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from difflib import SequenceMatcher

_PRODUCT = 1_000_000
"""Of the lengths of two pieces that ``difflib`` is given: a tenth of a second at worst."""

Pairs = list[tuple[int, int]]


def align(a: Sequence[Hashable], b: Sequence[Hashable]) -> Pairs:
    """Positions of equal keys, growing on both sides.

    Args:
        a: Keys of one sequence.
        b: Keys of the other.

    Returns:
        Many pairs, not always the most there could be.
    """
    found: Pairs = []
    waiting = [(0, len(a), 0, len(b))]
    while waiting:
        a0, a1, b0, b1 = waiting.pop()
        while a0 < a1 and b0 < b1 and a[a0] == b[b0]:
            found.append((a0, b0))
            a0, b0 = a0 + 1, b0 + 1
        while a0 < a1 and b0 < b1 and a[a1 - 1] == b[b1 - 1]:
            a1, b1 = a1 - 1, b1 - 1
            found.append((a1, b1))
        if a0 == a1 or b0 == b1:
            continue
        anchors = _anchors(a, b, a0, a1, b0, b1)
        if anchors:
            found += anchors
            waiting += _between(anchors, a0, a1, b0, b1)
        elif (a1 - a0) * (b1 - b0) <= _PRODUCT:
            blocks = SequenceMatcher(None, a[a0:a1], b[b0:b1], autojunk=False).get_matching_blocks()
            found += [(a0 + i + k, b0 + j + k) for i, j, size in blocks for k in range(size)]
        else:
            # Nothing is rare here: what stands at the same share of the way is compared.
            middle_a, middle_b = (a0 + a1) // 2, (b0 + b1) // 2
            waiting += [(a0, middle_a, b0, middle_b), (middle_a, a1, middle_b, b1)]
    return sorted(found)


def gaps(pairs: Pairs, length_a: int, length_b: int) -> Iterator[tuple[int, int, int, int]]:
    """What lies between aligned positions, where there is something on both sides."""
    return ((a0, a1, b0, b1) for a0, a1, b0, b1 in _between(pairs, 0, length_a, 0, length_b) if a0 < a1 and b0 < b1)


def _between(pairs: Pairs, a0: int, a1: int, b0: int, b1: int) -> Iterator[tuple[int, int, int, int]]:
    for i, j in pairs:
        yield a0, i, b0, j
        a0, b0 = i + 1, j + 1
    yield a0, a1, b0, b1


def _anchors(a: Sequence[Hashable], b: Sequence[Hashable], a0: int, a1: int, b0: int, b1: int) -> Pairs:
    """Keys that stand once on both sides: the longest run of them that grows on both."""
    once_a, once_b = Counter(a[a0:a1]), Counter(b[b0:b1])
    place = {b[j]: j for j in range(b0, b1) if once_b[b[j]] == 1}
    pairs = [(i, place[a[i]]) for i in range(a0, a1) if once_a[a[i]] == 1 and a[i] in place]
    # Longest increasing subsequence, by piles.
    ends: list[int] = []
    tops: list[int] = []
    above: list[int] = []
    for index, (_, j) in enumerate(pairs):
        pile = bisect.bisect_left(ends, j)
        above.append(tops[pile - 1] if pile else -1)
        if pile == len(ends):
            ends.append(j)
            tops.append(index)
        else:
            ends[pile], tops[pile] = j, index
    chosen: Pairs = []
    index = tops[-1] if tops else -1
    while index >= 0:
        chosen.append(pairs[index])
        index = above[index]
    return chosen[::-1]
