"""What is known of each module, and the list of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

SEED = 11


@dataclass(frozen=True)
class WildCase:
    """A module and what is true of it.

    Attributes:
        name: Of its row.
        family: Whose idiom it is.
        make: Makes the module.
        shapes: Of the example's inputs, batch first.
        shifts: How many grouped shifts its code has; None where movement may be read in more than one way.
        free: Other heights and widths that the code takes, as shapes of the first input; () where it takes none.
        meaning: Makes a module of the same weights that computes what racing code means; None where nothing races.
    """

    name: str
    family: str
    make: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    shifts: int | None
    free: tuple[tuple[int, ...], ...] = ()
    meaning: Callable[[], nn.Module] | None = None

    def module(self) -> nn.Module:
        """The module with its seeded weights."""
        torch.manual_seed(SEED)
        return self.make().eval()

    def reference(self) -> nn.Module:
        """The module whose eager results are right."""
        torch.manual_seed(SEED)
        return (self.meaning or self.make)().eval()

    def example(self) -> tuple[Tensor, ...]:
        """Seeded noise of the example's shapes."""
        return noise(self.shapes)


def noise(shapes: Sequence[tuple[int, ...]]) -> tuple[Tensor, ...]:
    """Seeded normal noise, float32, a tensor for each shape."""
    generator = torch.Generator().manual_seed(SEED)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


CASES: dict[str, WildCase] = {}


def wild(
    family: str,
    *shapes: tuple[int, ...],
    shifts: int | None = 0,
    free: Sequence[tuple[int, ...]] = (),
    racing: bool = False,
) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Registers a module class under its name.

    Args:
        family: Whose idiom it is.
        shapes: Of the example's inputs.
        shifts: See :class:`WildCase`.
        free: See :class:`WildCase`.
        racing: Whether the code writes a tensor onto itself; the class then takes ``functional=True`` for its meaning.
    """

    def register(module: type[nn.Module]) -> type[nn.Module]:
        meaning = (lambda: module(functional=True)) if racing else None  # type: ignore[call-arg]
        CASES[module.__name__] = WildCase(module.__name__, family, module, shapes, shifts, tuple(free), meaning)
        return module

    return register
