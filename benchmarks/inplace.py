"""The zoo's networks with the shift written as public code writes it: overlapping slice assignment in place."""

from __future__ import annotations

from contextlib import contextmanager

import torch

from s2mlp_deploy.models.layers import SpatialShift


@contextmanager
def inplace_shifts():
    """Inside, every zoo network shifts by ``x[:, 1:] = x[:, :-1]``, whose eager result is undefined."""

    def forward(self: SpatialShift, x: torch.Tensor) -> torch.Tensor:
        if self.spec is None:
            return x
        start = 0
        for group in self.spec.groups:
            target, source = [slice(None)] * x.dim(), [slice(None)] * x.dim()
            target[self.spec.channel_axis] = source[self.spec.channel_axis] = slice(start, start + group.channels)
            for axis, step in zip(self.spec.axes, group.offsets, strict=True):
                if step > 0:
                    target[axis], source[axis] = slice(step, None), slice(None, -step)
                elif step < 0:
                    target[axis], source[axis] = slice(None, step), slice(-step, None)
            x[tuple(target)] = x[tuple(source)]
            start += group.channels
        return x

    original = SpatialShift.forward
    SpatialShift.forward = forward
    try:
        yield
    finally:
        SpatialShift.forward = original
