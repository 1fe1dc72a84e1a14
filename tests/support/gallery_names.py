"""Shifts in torch's other names for the same: concat and the stacks, unfold, masks, transposed convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from gallery_case import Collection, four, nchw, spec
from torch import Tensor

gallery = Collection("names")

PLANES = (2, 8, 6, 5)


@gallery.add(nchw([(4, (2, 0)), (4, (0, -1))], "zero"), shape=PLANES, sizes=((1, 8, 9, 4),))
def concat_and_concatenate(x: Tensor) -> Tensor:
    x = x + 1
    n, _, h, w = x.shape
    down = torch.concat((x.new_zeros(n, 4, 2, w), x[:, :4, : h - 2]), dim=-2)
    left = torch.concatenate((x[:, 4:, :, 1:], x.new_zeros(n, 4, h, 1)), dim=-1)
    return torch.hstack((down, left))


@gallery.add(nchw(four(2), "zero"), shape=PLANES)
def taps_of_unfold(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    taps = F.unfold(x + 1, (3, 3), padding=1).view(n, c, 9, h, w)
    return torch.cat([taps[:, 2 * group : 2 * group + 2, tap] for group, tap in enumerate((1, 7, 3, 5))], 1)


@gallery.add(nchw([(4, (1, 0)), (4, (0, -2))], "zero"), shape=PLANES)
def rolls_masked(x: Tensor) -> Tensor:
    x = x + 1
    down = x[:, :4].roll(1, 2).masked_fill(torch.arange(x.shape[2])[:, None] < 1, 0)
    left = x[:, 4:].roll(-2, 3).masked_fill(torch.arange(x.shape[3]) >= x.shape[3] - 2, 0)
    return torch.cat((down, left), 1)


@gallery.add(nchw([(4, (1, 0)), (4, (0, -1))], "zero"), shape=PLANES, export=True)
def transposed_convolution(x: Tensor) -> Tensor:
    kernels = torch.zeros(8, 1, 3, 3)
    kernels[:4, 0, 2, 1] = 1
    kernels[4:, 0, 1, 0] = 1
    return F.conv_transpose2d(x + 1, kernels, padding=1, groups=8)


@gallery.add(nchw([(3, (1, 0)), (5, (0, 0))]), shape=PLANES)
def turned_and_back(x: Tensor) -> Tensor:
    x = x + 1
    turned = torch.rot90(x[:, :3], 2, (2, 3))
    up = torch.cat((turned[:, :, 1:], turned[:, :, -1:]), 2)
    return torch.hstack((torch.rot90(up, 2, (2, 3)), x[:, 3:]))


@gallery.add(
    spec([(2, (1, 0, 0)), (2, (0, -1, 0)), (2, (0, 0, 2))], (3, 4, 5), 2, "circular"), shape=(2, 2, 6, 4, 3, 5)
)
def views_of_clips(x: Tensor) -> Tensor:
    # Batch, views, channels, frames, height, width.
    frames, rows, columns = (x + 1).tensor_split(3, 2)
    return torch.cat((frames.roll(1, 3), rows.roll(-1, 4), columns.roll(2, 5)), 2)
