"""Which other sizes a finding is checked at where sizes of the inputs are free.

Small sizes tell as much as large ones and cost little, so they come first. Where the rule of a movement may change with
a size (:class:`~s2mlp_deploy.recognition.graph.SizeDependence`), sizes around those places must be compared too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from s2mlp_deploy.recognition.graph import FreeSize, SizeDependence

Turn = tuple[str, tuple[int, ...]]
"""A free size and values of it around which the rule of a movement may change."""
_TELLING = (3, 5, 8)
"""So many elements tell in which direction and how far they move, at even and odd counts."""


@dataclass(frozen=True)
class Choice:
    """Values of all free sizes.

    Attributes:
        sizes: By name.
        turn: Around which it was chosen, where there is one.
    """

    sizes: Mapping[str, int]
    turn: Turn | None = None


def smallest_telling(size: FreeSize, count: int, elements: Callable[[int], int]) -> int:
    """The smallest value of a free size at which the axes that depend on it hold that many elements.

    Args:
        size: A free size.
        count: How many elements are wanted.
        elements: How many the shortest of the axes holds at a value; grows with it.
    """
    low, high = _clip(size, count), _clip(size, size.max)
    if elements(low) >= count or elements(high) < count:
        return low
    while low + 1 < high:
        middle = min((low + high) // 2, 2 * low)
        low, high = (low, middle) if elements(middle) >= count else (middle, high)
    return high


def other_sizes(
    free: Sequence[FreeSize],
    dependence: SizeDependence | None = None,
    elements: Callable[[str, int], int] = lambda _, value: value,
) -> list[Choice]:
    """Choices of every free size besides the example's; empty where none is free.

    First small ones, each size taking each of the telling counts. Then, with all others small, the values around which
    the rule may change. At last sizes near the example, for code that small sizes do not suit (windows of 7 x 7), and
    twice the example for one size at a time, for code that views a batch as clips x frames.

    Args:
        free: The free sizes.
        dependence: Where the rule of the movement may change.
        elements: How many elements the shortest axis that depends on a free size holds at a value of it.
    """
    if not free:
        return []
    example = {size.name: size.example for size in free}
    small = {
        size.name: [smallest_telling(size, count, lambda v, name=size.name: elements(name, v)) for count in _TELLING]  # type: ignore[misc]
        for size in free
    }
    counts = len(_TELLING)
    choices = [
        Choice({size.name: small[size.name][(index + turn) % counts] for index, size in enumerate(free)})
        for turn in range(counts)
    ]
    for name, values in dependence.turns if dependence else ():
        least = {size.name: small[size.name][0] for size in free}
        choices += [Choice({**least, name: value}, (name, values)) for value in values]
    choices += [
        Choice({size.name: _clip(size, size.min) for size in free}),
        Choice({size.name: _clip(size, max(size.min, size.example // 2) + 2) for size in free}),
        Choice({size.name: _clip(size, size.example + 1 + size.example % 2) for size in free}),
        *(Choice({**example, size.name: _clip(size, 2 * size.example)}) for size in free),
    ]
    # A choice around which the rule may change is kept even where it repeats another: it has to be told that it holds.
    return [
        choice
        for index, choice in enumerate(choices)
        if choice.turn is not None
        or (choice.sizes != example and choice.sizes not in [c.sizes for c in choices[:index] if c.turn is None])
    ]


class SizeProof:
    """At which sizes a finding was confirmed; what holds at the example alone is not proven where sizes are free.

    Args:
        free: The free sizes.
        turns: Around which it must be confirmed.
    """

    def __init__(self, free: Sequence[FreeSize], turns: Sequence[Turn] = ()) -> None:
        self.count = 1
        """How many choices of sizes confirm it, the example's among them."""
        self._unproven = list(free)
        self._turns = list(turns)

    def confirm(self, choice: Choice, dull: Collection[str] = ()) -> None:
        """Notes that it holds at these sizes.

        Args:
            choice: The sizes.
            dull: Free sizes by name of which this choice says nothing: their axes hold too few elements.
        """
        self.count += 1
        sizes = choice.sizes
        self._unproven = [s for s in self._unproven if s.name in dull or not _is_telling(s, sizes[s.name])]
        self._turns = [turn for turn in self._turns if turn != choice.turn]

    @property
    def unproven(self) -> tuple[str, ...]:
        """The free sizes of which no other value has confirmed it, or not all values that must."""
        turns = (f"{name} = {', '.join(map(str, sorted(values)))}" for name, values in self._turns)
        return (*(size.name for size in self._unproven), *turns)


def _is_telling(size: FreeSize, value: int) -> bool:
    """Whether equality at this value says something about a size: one or two elements hardly move."""
    return value != size.example and value >= min(3, size.max)


def _clip(size: FreeSize, value: int) -> int:
    return min(max(value, size.min), size.max)
