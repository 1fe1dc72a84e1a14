"""Shifts by index tables and one-hot kernels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from gallery_case import Collection, four, moved, nchw, nhwc, spec
from torch import Tensor, nn

gallery = Collection("tables")

IMAGE = (2, 6, 5, 8)
PLANES = (2, 8, 6, 5)
LARGE_PLANES = ((1, 192, 28, 28),)


@gallery.add(nhwc([(8, (1, 0))], "edge"), shape=IMAGE)
def rows_by_a_list(x: Tensor) -> Tensor:
    return (x + 1)[:, [0, 0, 1, 2, 3, 4]]


@gallery.add(nhwc([(4, (2, 0)), (4, (0, -2))], "edge"), shape=IMAGE, export=True)
def rows_by_a_clamped_range(x: Tensor) -> Tensor:
    x = x + 1
    rows = (torch.arange(x.shape[1]) - 2).clamp(0)
    columns = (torch.arange(x.shape[2]) + 2).clamp(max=x.shape[2] - 1)
    return torch.cat([x[..., :4][:, rows], x[..., 4:][:, :, columns]], -1)


@gallery.add(nchw([(4, (1, 0)), (4, (0, -1))], "circular"), shape=PLANES)
def rows_by_a_wrapped_range(x: Tensor) -> Tensor:
    x = x + 1
    h, w = x.shape[2:]
    return torch.cat([x[:, :4].index_select(2, (torch.arange(h) - 1) % h), x[:, 4:, :, (torch.arange(w) + 1) % w]], 1)


def _flat_truth(module: nn.Module, x: Any) -> list[Any]:
    return [moved(x + 1, four(2), (2, 3), 1, "edge")]


@gallery.add(nchw(four(2), "edge"), shape=PLANES, truth=_flat_truth)
class BufferedTables(nn.Module):
    """Index buffers made once, in the constructor."""

    def __init__(self, height: int = 6, width: int = 5) -> None:
        super().__init__()
        self.register_buffer("down", (torch.arange(height) - 1).clamp(0, height - 1))
        self.register_buffer("up", (torch.arange(height) + 1).clamp(0, height - 1))
        self.register_buffer("right", (torch.arange(width) - 1).clamp(0, width - 1))
        self.register_buffer("left", (torch.arange(width) + 1).clamp(0, width - 1))

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d = (x + 1).chunk(4, 1)
        return torch.cat(
            [
                a.index_select(2, self.down),
                b.index_select(2, self.up),
                c.index_select(3, self.right),
                d.index_select(3, self.left),
            ],
            1,
        )


def _flat_table(channels: int, height: int, width: int) -> Tensor:
    """For every channel and cell, which cell of the flattened image it shows."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    table = []
    for channel in range(channels):
        dy, dx = ((1, 0), (-1, 0), (0, 1), (0, -1))[channel * 4 // channels]
        table.append((rows - dy).clamp(0, height - 1) * width + (columns - dx).clamp(0, width - 1))
    return torch.stack(table).flatten(1)


@gallery.add(nchw(four(2), "edge"), shape=PLANES, truth=_flat_truth)
class GatherOverTheFlatImage(nn.Module):
    """One gather for all groups, from a table of H·W cells per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", _flat_table(8, 6, 5), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        flat = (x + 1).flatten(2)
        return torch.gather(flat, 2, self.table.unsqueeze(0).expand(b, -1, -1)).view(b, c, h, w)


@gallery.add(nchw([(8, (0, 1))], "edge"), shape=PLANES)
def take_along_the_width(x: Tensor) -> Tensor:
    index = (torch.arange(x.shape[3]) - 1).clamp(0).view(1, 1, 1, -1).expand_as(x)
    return torch.gather(x + 1, 3, index)


@gallery.add(nhwc([(4, (1, 0)), (4, (0, 0))]), shape=IMAGE)
def rows_assigned_by_index(x: Tensor) -> Tensor:
    # Advanced indexing reads the right-hand side whole first, so eager is right too.
    x = x + 1
    y = x.clone()
    rows = torch.arange(1, x.shape[1])
    y[:, rows, :, :4] = x[:, rows - 1, :, :4]
    return y


def _kernels(channels: int, size: int, taps: list[tuple[int, int]]) -> Tensor:
    """One-hot depthwise kernels; a tap is the row and column from the middle that a channel reads."""
    kernels = torch.zeros(channels, 1, size, size)
    for channel in range(channels):
        dy, dx = taps[channel * len(taps) // channels]
        kernels[channel, 0, size // 2 + dy, size // 2 + dx] = 1
    return kernels


READS = [(-1, 0), (1, 0), (0, -1), (0, 1)]
"""Content that moves down is read from the row above."""


def _conv_truth(border: str) -> Any:
    return lambda module, x: [moved(x + 1, four(2), (2, 3), 1, border)]


@gallery.add(nchw(four(2), "edge"), shape=PLANES, truth=_conv_truth("edge"), sizes=((1, 8, 7, 9),))
class OneHotReplicate(nn.Module):
    """A frozen depthwise convolution over a replicate pad."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False, padding_mode="replicate")
        self.conv.weight = nn.Parameter(_kernels(8, 3, READS), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x + 1)


@gallery.add(nchw(four(2), "zero"), shape=PLANES, truth=_conv_truth("zero"), export=True)
class OneHotZero(nn.Module):
    """The same with the convolution's own zero pad: another operation."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", _kernels(8, 3, READS))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x + 1, self.weight, padding=1, groups=x.shape[1])


NINE = [(1, (-dy, -dx)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]


@gallery.add(
    nchw(NINE, "zero"),
    shape=(2, 9, 6, 5),
    truth=lambda module, x: [moved(x + 1, NINE, (2, 3), 1, "zero")],
)
class OneHotNine(nn.Module):
    """Shift (Wu et al., 2018): every position of a 3×3 kernel once, with a bias of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(9, 9, 3, padding=1, groups=9)
        taps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        self.conv.weight = nn.Parameter(_kernels(9, 3, taps))
        self.conv.bias = nn.Parameter(torch.zeros(9))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x + 1)


@gallery.add(
    nchw([(4, (2, 0)), (4, (0, -2))], "zero"),
    shape=PLANES,
    truth=lambda module, x: [moved(x + 1, [(4, (2, 0)), (4, (0, -2))], (2, 3), 1, "zero")],
)
class OneHotDilated(nn.Module):
    """Two cells by a dilation of two."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", _kernels(8, 3, [(-1, 0), (0, 1)]))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x + 1, self.weight, padding=2, dilation=2, groups=8)


@gallery.add(
    spec([(3, (1,)), (3, (0,))], (2,), 1, "zero"),
    shape=(2, 6, 7),
    truth=lambda module, x: [moved(x + 1, [(3, (1,)), (3, (0,))], (2,), 1, "zero")],
)
class OneHotCausal(nn.Module):
    """Half of the channels see the step before: a 1-D convolution over a left pad."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.zeros(6, 1, 2)
        weight[:3, 0, 0] = 1
        weight[3:, 0, 1] = 1
        self.register_buffer("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(F.pad(x + 1, (1, 0)), self.weight, groups=6)


@gallery.add(nchw([(4, (1, 0)), (4, (0, 1))], "edge"), shape=PLANES)
def flat_index_computed_on_the_way(x: Tensor) -> Tensor:
    # Arithmetic on constants is a constant: the cell's number is row * width + column.
    b, c, h, w = x.shape
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    down = (rows - 1).clamp(min=0) * w + columns
    right = rows * w + (columns - 1).clamp(min=0)
    index = torch.cat([down.flatten().expand(c // 2, -1), right.flatten().expand(c // 2, -1)])
    return torch.gather((x + 1).flatten(2), 2, index.expand(b, -1, -1)).view(b, c, h, w)


@gallery.add(nchw([(4, (1, 0)), (4, (0, -1))], "zero"), shape=PLANES)
def kernels_made_on_the_way(x: Tensor) -> Tensor:
    kernels = torch.zeros(8, 1, 3, 3)
    kernels[:4, 0, 0, 1] = 1
    kernels[4:, 0, 1, 2] = 1
    return F.conv2d(x + 1, kernels, padding=1, groups=8)
