"""Small inputs of reports, read from the folder of data beside the checkout; none without it."""

from __future__ import annotations

import importlib.util
import inspect
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from wild_modules.registry import SEED, WildCase

SHARED = Path(os.environ.get("S2MLP_SHARED", Path(__file__).resolve().parents[3] / "shared"))

SHIFTS = {
    "one_clip": 1,
    "sixteen_frames": 1,
    "half_roll": 1,
    "strides_change": 1,
    "one_channel_a_group": 1,
    "roll_of_padded": 1,
    "half_turn": 1,
    "step_grows_with_size": None,
    "partial_write": 0,
}
"""How many grouped shifts they have; those that are not here have none."""


class Specimen(WildCase):
    """A factory of a file that returns its module and its example."""

    def module(self) -> nn.Module:
        """The module with its seeded weights."""
        torch.manual_seed(SEED)
        return self.make()[0].eval()  # type: ignore[index, no-any-return]

    def reference(self) -> nn.Module:
        """The same: none of them races."""
        return self.module()

    def example(self) -> tuple[Tensor, ...]:
        """The factory's own."""
        torch.manual_seed(SEED)
        return self.make()[1]  # type: ignore[index, no-any-return]


def specimens() -> dict[str, WildCase]:
    """By name; sizes to try are multiples of the example's and odd ones."""
    path = SHARED / "cases" / "wild.py"
    if not path.is_file():
        return {}
    spec = importlib.util.spec_from_file_location("specimens_of_reports", path)
    assert spec is not None
    assert spec.loader is not None
    home = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(home)
    found = {}
    for name, make in inspect.getmembers(home, inspect.isfunction):
        if name.startswith("_"):
            continue
        torch.manual_seed(SEED)
        shapes = tuple(tuple(tensor.shape) for tensor in make()[1])
        free: list[tuple[int, ...]] = []
        if len(shapes[0]) == 4:
            n, c, h, w = shapes[0]
            free = [(n, c, 2 * h, 2 * w), (n, c, 4 * h, 8 * w), (n, c, 31, 33), (2 * n, c, 100, w)]
        found[f"specimen {name}"] = Specimen(
            f"specimen {name}", "reports", make, shapes, SHIFTS.get(name, 0), tuple(free)
        )
    return found
