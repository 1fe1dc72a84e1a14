"""Blocks that the fuzzer's networks are made of: a few lines of code on a tensor ``x`` each.

A block is text, so that a network which goes wrong can be printed, shortened and given to the command line. What a
block needs to know of the tensor (its shape, which of its axes are free) comes from running the network up to there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

T = TypeVar("T")


@dataclass(frozen=True)
class Block:
    """Lines of a forward.

    Attributes:
        code: On ``x``.
        weights: Lines of ``__init__``.
        meaning: The code with its right-hand sides read before anything is written, where ``code`` races.
        moves: Whether it moves elements and computes nothing.
    """

    code: str
    weights: str = ""
    meaning: str | None = None
    moves: bool = True


class Draw:
    """Random choices, and what is known of the tensor that the next block gets."""

    def __init__(self, generator: np.random.Generator, shape: Sequence[int], free: Sequence[bool], name: str) -> None:
        self._generator = generator
        self.shape = tuple(shape)
        self.free = tuple(free)
        self.name = name
        """Of what the block registers."""

    @property
    def rank(self) -> int:
        """How many axes there are."""
        return len(self.shape)

    def integer(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return int(self._generator.integers(low, high + 1))

    def chance(self, share: float) -> bool:
        """True in this share of draws."""
        return bool(self._generator.random() < share)

    def pick(self, items: Sequence[T]) -> T:
        """One of them."""
        return items[self.integer(0, len(items) - 1)]

    def order(self, count: int) -> list[int]:
        """The numbers below ``count`` in some order."""
        return [int(item) for item in self._generator.permutation(count)]

    def axis(self, least: int = 1) -> int:
        """An axis that holds so many elements; seldom the batch."""
        axes = [axis for axis in range(self.rank) if self.shape[axis] >= least]
        if len(axes) > 1 and axes[0] == 0 and not self.chance(0.1):
            axes = axes[1:]
        return self.pick(axes)

    def fixed(self, least: int = 1, multiple: int = 1) -> int:
        """An axis whose size does not depend on a free one."""
        return self.pick(
            [a for a, n in enumerate(self.shape) if not self.free[a] and n >= least and n % multiple == 0 and a]
        )

    def amount(self, axis: int, low: int, high: int) -> str:
        """A whole number within these bounds at the example's sizes: a literal, or computed from sizes."""
        if self.chance(0.5):
            return str(self.integer(low, high))
        other = axis if self.chance(0.8) else self.integer(0, self.rank - 1)
        size, n = f"x.shape[{other}]", self.shape[other]
        texts = [
            f"{size} // 2",
            f"{size} // 3",
            f"({size} + 3) % 4",
            f"min({size}, 3)",
            f"max(1, {size} // 4)",
            f"(2 if {size} > {self.pick([1, 4, n, n + 2, 16])} else 1)",
            f"{size} - 1",
            f"({size} + 1) // 2",
            f"{size} % 3",
            f"min(3, max(1, {size} - 4))",
            f"1 + {size} // {self.pick([8, 16, 32])}",
            f"int({size} * 0.5)",
            f"math.ceil({size} / 2)",
            f"round({size} / 4)",
            f"max({size}, x.shape[-1]) - {size}",
        ]
        known = {"x": self, "math": math}
        fitting = [text for text in texts if low <= eval(text, known) <= high]
        return self.pick(fitting) if fitting else str(self.integer(low, high))

    def at(self, axis: int, part: str) -> str:
        """The inside of an index that takes a part of one axis."""
        return ", ".join([*[":"] * axis, part])

    def groups(self, axis: int, most: int = 4) -> list[int]:
        """Sizes that an axis is split into."""
        count = self.integer(2, min(most, self.shape[axis]))
        cuts = sorted(item + 1 for item in self.order(self.shape[axis] - 1)[: count - 1])
        return [b - a for a, b in zip([0, *cuts], [*cuts, self.shape[axis]], strict=True)]

    def step(self, axis: int) -> str:
        """A number of elements to move by, in either direction."""
        amount = self.amount(axis, 0, max(1, self.shape[axis] - 1))
        return f"-({amount})" if self.chance(0.4) else amount
