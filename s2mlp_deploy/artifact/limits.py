"""What a free size may be where that is not every size, and the refusal of others.

A graph does not refuse them itself: behind a branch that ``torch.export`` dropped it computes something else.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from s2mlp_deploy.artifact.names import METADATA_KEY
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.files import from_json

_MOST = 2**31 - 1
"""What sizes, and the steps between them, may be."""

_TRIED = 100_000
"""Sizes that are tried to find one that suits several inputs."""


@dataclass(frozen=True)
class SizeLimit:
    """The sizes that a free axis of an input may have.

    Attributes:
        input: Name of the input.
        axis: Number of the axis.
        name: What the axis is called: ``batch``, ``depth``, ``height``, ``width``.
        min: The smallest.
        max: The largest; None where there is none.
        multiple: Sizes are this times a whole number, plus:
        remainder: Less than ``multiple``.

    Raises:
        ValueError: They are limits of no sizes: manifests and files of others may say anything.
    """

    input: str
    axis: int
    name: str
    min: int = 1
    max: int | None = None
    multiple: int = 1
    remainder: int = 0

    def __post_init__(self) -> None:
        sound = self.axis >= 0 and 0 <= self.min <= _MOST and 0 <= self.remainder < self.multiple <= _MOST
        if not sound or not self.allows(self.at_least(self.min)):
            raise ValueError(f"no size of axis {self.axis} of {self.input!r} can be as its limits say")

    @property
    def limits(self) -> bool:
        """Whether there are sizes that it does not allow."""
        return self.max is not None or self.multiple > 1 or self.min > 1

    def allows(self, size: int) -> bool:
        """Whether the axis may have this size."""
        within = self.min <= size and (self.max is None or size <= self.max)
        return within and size % self.multiple == self.remainder

    def at_least(self, size: int) -> int:
        """The smallest allowed size from this one on; the largest of all where there is none."""
        least = max(size, self.min)
        least += (self.remainder - least) % self.multiple
        return least if self.max is None else min(least, self.max - (self.max - self.remainder) % self.multiple)

    def __str__(self) -> str:
        """Say it in words: ``the height of x is a multiple of 4 and at least 8``."""
        words = []
        if self.multiple > 1:
            words.append(f"a multiple of {self.multiple}{f' plus {self.remainder}' if self.remainder else ''}")
        if self.min > max(1, self.remainder or self.multiple):
            words.append(f"at least {self.min}")
        if self.max is not None:
            words.append(f"at most {self.max}")
        return f"the {self.name} of {self.input} is {' and '.join(words) or 'free'}"


def fitting_batch(limits: Iterable[SizeLimit], batch: int) -> tuple[int, bool]:
    """The smallest batch from this one on that every input takes, and whether only whole ones of that size are safe."""
    rules = [limit for limit in limits if limit.axis == 0]
    step = math.lcm(*(rule.multiple for rule in rules))
    # Only sizes that suit the rule with the fewest.
    widest = max(rules, key=lambda rule: rule.multiple, default=SizeLimit("", 0, "batch"))
    first = batch + (widest.remainder - batch) % widest.multiple
    for size in itertools.islice(range(first, batch + step, widest.multiple), _TRIED):
        if all(rule.allows(size) for rule in rules):
            return size, bool(rules)
    # Below a smallest batch, or no batch suits all: then the first run says which does not.
    return max((rule.at_least(batch) for rule in rules), default=batch), bool(rules)


def read_limits(metadata: Mapping[str, str]) -> tuple[SizeLimit, ...]:
    """The limits that an ONNX file's metadata states; none where it holds no description of ours.

    Raises:
        InputError: They are not what this package writes.
    """
    try:
        described = from_json(metadata.get(METADATA_KEY, "{}"))
    except ValueError:
        return ()  # Told where the description is read for what it is needed for.
    return limits_of(described) if isinstance(described, dict) else ()


def limits_of(description: Mapping[str, Any]) -> tuple[SizeLimit, ...]:
    """The limits in a file's own description.

    Raises:
        InputError: They are not what this package writes.
    """
    try:
        return msgspec.convert(description.get("limits", ()), tuple[SizeLimit, ...])
    except msgspec.ValidationError as error:
        raise InputError(f"the limits of the file's sizes are damaged: {error}", fix="export it again") from error


def check_sizes(limits: Iterable[SizeLimit], shapes: Mapping[str, Sequence[int]]) -> None:
    """Refuses inputs of sizes that the graph was not made for.

    Args:
        limits: Of the graph.
        shapes: By input name.

    Raises:
        InputError: Says what the size may be and which is next.
    """
    for limit in limits:
        shape = shapes.get(limit.input, ())
        if limit.axis >= len(shape) or limit.allows(shape[limit.axis]):
            continue
        size = shape[limit.axis]
        raise InputError(
            f"{limit}, and it was given {size}",
            where=f"axis {limit.axis} of {limit.input}, {list(shape)}",
            fix=f"give {limit.at_least(size)}, or export with an example of the size that you need",
        )
