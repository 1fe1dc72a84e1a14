"""Networks that the fuzzer makes from seeds: torch modules as text, with sizes to run them at."""

from __future__ import annotations

import linecache
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from fuzz_arithmetic import ARITHMETIC
from fuzz_blocks import Block, Draw
from fuzz_movement import MOVEMENT
from fuzz_pairs import PAIRS
from torch import Tensor, nn

_MOST_ELEMENTS = 40_000
_DRAWS = 60
_RESULTS = ("x, x.mean(-1)", "x.flatten(1)", "{'a': x, 'b': x * 2}", "x, x", "x, x_in", "x_in + 1, x.argmax(-1)")
_NAMES: dict[str, Any] = {"torch": torch, "nn": nn, "F": F, "math": math, "Tensor": Tensor}


@dataclass(frozen=True)
class Network:
    """A module as text.

    Attributes:
        seed: That it was drawn from; of its weights too.
        shape: Of the example.
        dynamic: The axes that are to be free.
        blocks: Of its forward.
        results: What it returns.
    """

    seed: int
    shape: tuple[int, ...]
    dynamic: tuple[str, ...]
    blocks: tuple[Block, ...]
    results: str = "x"

    @property
    def moves(self) -> bool:
        """Whether its numbers are those of its input, bit for bit."""
        return self.results == "x" and all(block.moves for block in self.blocks)

    @property
    def races(self) -> bool:
        """Whether a write may overlap what it reads, so that eager PyTorch does not define what it computes."""
        return any(block.meaning is not None for block in self.blocks)

    def text(self, *, meaning: bool = False, noisy: bool = False) -> str:
        """The module's source.

        Args:
            meaning: Whether racing right-hand sides are cloned.
            noisy: Whether ``x`` goes through a function ``rounded`` first and behind each block that computes.
        """
        weights = [line for block in self.blocks for line in block.weights.splitlines()]
        lines = ["class Network(nn.Module):", "    def __init__(self):", "        super().__init__()"]
        lines += [f"        {line}" for line in weights]
        lines += ["", "    def forward(self, x):", *["        x = rounded(x)"] * noisy]
        if "x_in" in self.results or any("x_in" in block.code for block in self.blocks):
            lines += ["        x_in = x"]
        for block in self.blocks:
            code = block.meaning if meaning and block.meaning is not None else block.code
            lines += [f"        {line}" for line in code.splitlines()]
            lines += ["        x = rounded(x)"] * (noisy and not block.moves)
        return "\n".join([*lines, f"        return {self.results}", ""])

    def program(self) -> str:
        """A file that the command line exports (``FILE.py:make``)."""
        heads = ["import math", "", "import torch", "import torch.nn.functional as F", "from torch import nn"]
        made = ["def make():", f"    torch.manual_seed({self.seed})"]
        made += [f"    return Network().eval(), (torch.randn{self.shape},)"]
        return "\n".join([*heads, "", "", self.text(), "", *made, ""])

    def module(self, *, meaning: bool = False, rounding: float = 0.0) -> nn.Module:
        """The module in evaluation mode, with its seed's weights.

        Args:
            meaning: Whether racing right-hand sides are cloned.
            rounding: How much each number is changed at random behind each block that computes.
        """
        text = self.text(meaning=meaning, noisy=bool(rounding))
        file = f"<network {self.seed}{' as meant' if meaning else ''}>"
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        names = {**_NAMES, "rounded": lambda x: _rounded(x, rounding)}
        exec(compile(text, file, "exec"), names)
        torch.manual_seed(self.seed)
        with torch.no_grad():
            module: nn.Module = names["Network"]()
        return module.eval()

    def input(self, shape: Sequence[int], kind: str = "noise") -> Tensor:
        """Numbers to run it on: ``noise``, ``zeros``, ``ones`` or ``numbered`` (all different)."""
        if kind == "numbered":
            return torch.arange(1.0, math.prod(shape) + 1).view(*shape)
        if kind != "noise":
            return torch.zeros(*shape) if kind == "zeros" else torch.ones(*shape)
        return torch.randn(*shape, generator=torch.Generator().manual_seed(self.seed))

    def with_blocks(self, blocks: Sequence[Block]) -> Network:
        """The network with another forward."""
        return replace(self, blocks=tuple(blocks))


def _rounded(x: Tensor, rounding: float) -> Tensor:
    """Changed by a share of each number, and by a tenth of that of the largest: what is 0 may be nearly so."""
    peak = float(x.abs().nan_to_num(posinf=0.0).max()) if x.numel() else 0.0
    return x * (1 + rounding * torch.randn(x.shape)) + 0.1 * rounding * peak * torch.randn(x.shape)


AXES = {"batch": 0, "height": 2, "width": 3}


def draw(seed: int) -> Network:
    """The network of a seed."""
    generator = np.random.default_rng(seed)

    def integer(low: int, high: int) -> int:
        return int(generator.integers(low, high + 1))

    kind = ("images", "images", "images", "images", "channels last", "tokens", "clips", "frames", "windows")[
        integer(0, 8)
    ]
    small = (1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 10, 12)
    batch = (1, 1, 2, 3)[integer(0, 3)]
    c, h, w = (4, 4, 6, 8, 12)[integer(0, 4)], small[integer(0, 11)], small[integer(0, 11)]
    both: list[tuple[str, ...]] = [("batch", "height", "width"), ("height", "width")]
    images = [("batch",), ("batch",), ("batch", "height"), ("batch", "width"), *both]
    shape, choices = {
        "images": ((batch, c, h, w), images),
        "channels last": ((batch, h, w, c), [("batch",), ("batch", "height"), ("height",)]),
        "tokens": ((batch, h + 1, c), [("batch",)]),
        "clips": ((4 * batch, c, h, w), [("batch",), ("batch", "height", "width")]),
        "frames": ((batch, c, integer(1, 4), h, w), [("batch",), ()]),
        "windows": ((batch, integer(1, 3), 2, c, h, 2), [("batch",)]),
    }[kind]
    dynamic = choices[integer(0, len(choices) - 1)]
    network = Network(seed, shape, dynamic, ())
    share = (0.0, 0.3, 0.3, 0.5, 0.7)[integer(0, 4)]
    for _ in range(integer(2, 7)):
        network = _longer(network, generator, share)
    if generator.random() < 0.15:
        network = replace(network, results=_RESULTS[integer(0, len(_RESULTS) - 1)])
    return network


def _longer(network: Network, generator: np.random.Generator, arithmetic: float) -> Network:
    """The network with another block that it runs with."""
    here, elsewhere = _results(network)
    for _ in range(_DRAWS):
        makers = (
            ARITHMETIC if generator.random() < arithmetic else (MOVEMENT, MOVEMENT, PAIRS)[int(generator.integers(3))]
        )
        make = makers[int(generator.integers(len(makers)))]
        free = [
            any(t is not None and (t.dim() != here.dim() or t.shape[a] != n) for t in elsewhere)
            for a, n in enumerate(here.shape)
        ]
        try:
            block = make(Draw(generator, here.shape, free, f"w{len(network.blocks)}"))
        except (IndexError, ValueError):
            continue  # No such axis.
        longer = network.with_blocks([*network.blocks, block])
        try:
            result, others = _results(longer)
            if block.meaning is not None:
                longer.module()(torch.zeros(longer.shape))
        except Exception:  # Whatever torch says of a block that does not fit.
            continue
        lost = any(new is None and old is not None for new, old in zip(others, elsewhere, strict=True))
        if (
            result.dim() < 3
            or result.dim() > 6
            or not 0 < result.numel() < _MOST_ELEMENTS
            or (lost and generator.random() < 0.7)
        ):
            continue
        return longer
    return network


def _results(network: Network) -> tuple[Tensor, list[Tensor | None]]:
    """What it gives at the example's sizes and at two others; None where it does not run.

    Raises:
        Exception: It does not run on the example.
    """
    module = network.module(meaning=True)
    with torch.no_grad():
        here = module(torch.zeros(network.shape))
        found: list[Tensor | None] = []
        for factor in (2, 3):
            shape = list(network.shape)
            for name in network.dynamic:
                shape[AXES[name]] *= factor
            try:
                found.append(module(torch.zeros(shape)))
            except Exception:
                found.append(None)
    return here, found


def other_shapes(network: Network, count: int = 12) -> list[tuple[int, ...]]:
    """Shapes that differ from the example's in free axes: one by one, tiny and large, odd and even."""
    generator = np.random.default_rng(network.seed + 1)
    shapes: list[tuple[int, ...]] = []
    for name in network.dynamic:
        axis, n = AXES[name], network.shape[AXES[name]]
        values = (
            (1, n + 1, 2 * n, 3 * n, 4 * n, 5) if name == "batch" else (1, 2, n + 1, 2 * n, n - 1, 17, 36, 3 * n, 101)
        )
        fitting = [value for value in dict.fromkeys(values) if value > 0 and value != n]
        shapes += [(*network.shape[:axis], value, *network.shape[axis + 1 :]) for value in fitting]
    if len(network.dynamic) > 1:
        for factor in (2, 3):
            shape = list(network.shape)
            for name in network.dynamic:
                shape[AXES[name]] = shape[AXES[name]] * factor + int(generator.integers(0, 2)) * (name != "batch")
            shapes.append(tuple(shape))
    order = generator.permutation(len(shapes))[:count]
    return [shapes[index] for index in sorted(order)]
