"""Which other sizes a finding is checked at where sizes of the inputs are free.

Most sizes enter a graph linearly (``h - 1``), so that a few values prove the rule. Where the graph divides with a
remainder (``h // 32``), its behaviour may change at multiples of the divisor, and sizes beyond those are tried too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from s2mlp_deploy.recognition.graph import FreeSize


def other_sizes(free: Sequence[FreeSize]) -> list[dict[str, int]]:
    """Choices of every free size besides the example's, the cheapest first; empty where none is free.

    The smallest, one below and an odd one above the example are taken for all sizes at once. Twice the example, for
    code that views a batch as clips x frames, is taken for one size at a time: doubling three at once is eight times
    the elements.
    """
    if not free:
        return []
    example = {size.name: size.example for size in free}
    choices = [
        {size.name: _clip(size, size.min) for size in free},
        {size.name: _clip(size, max(size.min, size.example // 2) + 2) for size in free},
        {size.name: _clip(size, size.example + 1 + size.example % 2) for size in free},
    ]
    for size in free:
        beyond = max(size.divisors, default=0)
        values = (2 * size.example, *((2 * beyond, 3 * beyond + 1) if beyond > 1 else ()))
        choices += [{**example, size.name: _clip(size, value)} for value in values]
    return [choice for index, choice in enumerate(choices) if choice != example and choice not in choices[:index]]


class SizeProof:
    """At which sizes a finding was confirmed; what holds at the example alone is not proven where sizes are free."""

    def __init__(self, free: Sequence[FreeSize]) -> None:
        self.count = 1
        """How many choices of sizes confirm it, the example's among them."""
        self._unproven = list(free)

    def confirm(self, choice: Mapping[str, int]) -> None:
        """Notes that it holds at these sizes."""
        self.count += 1
        self._unproven = [size for size in self._unproven if not _is_telling(size, choice[size.name])]

    @property
    def unproven(self) -> tuple[str, ...]:
        """The free sizes of which no other value has confirmed it."""
        return tuple(size.name for size in self._unproven)


def _is_telling(size: FreeSize, value: int) -> bool:
    """Whether equality at this value says something about a size: one or two elements hardly move."""
    return value != size.example and value >= min(3, size.max)


def _clip(size: FreeSize, value: int) -> int:
    return min(max(value, size.min), size.max)
