"""Views behind a replaced shift, which were captured for the strides of what it replaces."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from one_shift import runner
from torch import Tensor, nn

from s2mlp_deploy.export.analysis import analyze
from s2mlp_deploy.export.canonical import to_canonical
from s2mlp_deploy.export.forms import FORMS
from s2mlp_deploy.export.lower import lower_shifts


def rolled(x: Tensor) -> Tensor:
    """[n, 6, 5, 4], three of the channels moved, on memory whose channels come second."""
    y = x.view(-1, 5, 6, 4).transpose(1, 2).clone()
    y[:, 3:] = y[:, 3:].roll(2, dims=2)
    return y.transpose(1, 2)


BEHIND: dict[str, Callable[[Tensor], Tensor]] = {
    "view": lambda y: y.reshape(-1, 3, 10, 4) * 2,
    "flatten": lambda y: y.flatten(1, 2) + 1,
    "unflatten": lambda y: y.flatten(1).unflatten(1, (4, 30)),
    "view_as": lambda y: y.contiguous().view_as(torch.zeros(y.shape[0], 10, 12)),
    "chunks": lambda y: torch.cat([c.reshape(c.shape[0], -1) for c in y.chunk(2, 2)], 1),
    "two views": lambda y: y.reshape(-1, 30, 4).transpose(1, 2).reshape(-1, 4, 5, 6),
}


class Behind(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(rolled(x))


@pytest.mark.parametrize("name", BEHIND)
def test_views_become_reshapes(name: str) -> None:
    module, x = Behind(BEHIND[name]).eval(), torch.randn(2, 30, 4)
    known = analyze(module, (x,))
    assert len(known.shifts) == 1
    model, _ = lower_shifts(to_canonical(known.captured), FORMS["slice-concat"])
    other = torch.randn(3, 30, 4)
    np.testing.assert_array_equal(runner(model)(other.numpy()), module(other).numpy())
    # Parity runs the rewritten program where a module races.
    torch.testing.assert_close(known.functional()(other), module(other), rtol=0, atol=0)
