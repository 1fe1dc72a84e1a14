"""Shifts by index tables, one-hot kernels and constant sampling offsets."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from gallery_case import Collection, four, moved, nchw, nhwc, seeded, spec
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


def register_deform_conv2d() -> None:
    """``torchvision::deform_conv2d`` for a machine without torchvision: the same signature, bilinear, zeros outside."""
    if hasattr(torch.ops.torchvision, "deform_conv2d"):
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define(
        "deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, "
        "SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, "
        "SymInt offset_groups, bool use_mask) -> Tensor"
    )
    library.impl("deform_conv2d", _deform_conv2d, "CPU")
    torch.library.register_fake("torchvision::deform_conv2d", _deform_shape, lib=library)
    _LIBRARIES.append(library)


_LIBRARIES: list[Any] = []
"""A library that is collected takes its operators with it."""


def _deform_size(x: Tensor, weight: Tensor, stride: tuple[int, int], pad: tuple[int, int], dilation: Any) -> Any:
    return [
        (x.shape[2 + axis] + 2 * pad[axis] - dilation[axis] * (weight.shape[2 + axis] - 1) - 1) // stride[axis] + 1
        for axis in (0, 1)
    ]


def _deform_shape(x, weight, offset, mask, bias, sh, sw, ph, pw, dh, dw, groups, offset_groups, use_mask):  # type: ignore[no-untyped-def]
    height, width = _deform_size(x, weight, (sh, sw), (ph, pw), (dh, dw))
    return x.new_empty((x.shape[0], weight.shape[0], height, width))


def _deform_conv2d(x, weight, offset, mask, bias, sh, sw, ph, pw, dh, dw, groups, offset_groups, use_mask):  # type: ignore[no-untyped-def]
    assert groups == 1
    assert not use_mask
    kh, kw = weight.shape[2:]
    height, width = _deform_size(x, weight, (sh, sw), (ph, pw), (dh, dw))
    n, c, h, w = x.shape
    offset = offset.view(n, offset_groups, kh * kw, 2, height, width)
    out = bias.view(1, -1, 1, 1).expand(n, -1, height, width).clone()
    for tap in range(kh * kw):
        i, j = divmod(tap, kw)
        rows = torch.arange(height).view(-1, 1) * sh - ph + i * dh
        columns = torch.arange(width).view(1, -1) * sw - pw + j * dw
        sampled = []
        for group in range(offset_groups):
            part = x[:, group * c // offset_groups : (group + 1) * c // offset_groups]
            at_y, at_x = rows + offset[:, group, tap, 0], columns + offset[:, group, tap, 1]
            low_y, low_x = at_y.floor(), at_x.floor()
            total = torch.zeros(n, part.shape[1], height, width)
            for cell_y, cell_x in ((low_y, low_x), (low_y, low_x + 1), (low_y + 1, low_x), (low_y + 1, low_x + 1)):
                share = (1 - (at_y - cell_y).abs()) * (1 - (at_x - cell_x).abs())
                share = share * ((cell_y >= 0) & (cell_y < h) & (cell_x >= 0) & (cell_x < w))
                flat = (cell_y.clamp(0, h - 1) * w + cell_x.clamp(0, w - 1)).long().flatten(1)
                index = flat.unsqueeze(1).expand(-1, part.shape[1], -1)
                total += part.flatten(2).gather(2, index).view_as(total) * share.unsqueeze(1)
            sampled.append(total)
        out += torch.einsum("oc,nchw->nohw", weight[:, :, i, j], torch.cat(sampled, 1))
    return out


CYCLE = [(1, (0, -step)) for step in ((channel + 1) % 3 - 1 for channel in range(6))]
"""CycleFC reads ahead by its offset, so content moves back by it."""


def _cycle_truth(module: Any, x: Any) -> list[Any]:
    shifted = torch.from_numpy(moved(x, CYCLE, (2, 3), 1, "zero"))
    with torch.no_grad():
        return [F.conv2d(shifted, module.weight, module.bias).numpy()]


@gallery.add(
    nchw(CYCLE, "zero"),
    shape=(2, 6, 4, 5),
    truth=_cycle_truth,
    exact=False,
    export=True,
)
class CycleFullyConnected(nn.Module):
    """CycleMLP: a 1×1 deformable convolution whose channels read 1×3 cells in turn."""

    def __init__(self, channels: int = 6, out: int = 4, kernel: tuple[int, int] = (1, 3)) -> None:
        super().__init__()
        register_deform_conv2d()
        self.weight = nn.Parameter(torch.empty(out, channels, 1, 1))
        self.bias = nn.Parameter(torch.empty(out))
        seeded(self)
        offset = torch.zeros(1, channels * 2, 1, 1)
        start = kernel[0] * kernel[1] // 2
        for channel in range(channels):
            if kernel[0] == 1:
                offset[0, 2 * channel + 1] = (channel + start) % kernel[1] - kernel[1] // 2
            else:
                offset[0, 2 * channel] = (channel + start) % kernel[0] - kernel[0] // 2
        self.register_buffer("offset", offset)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        offset = self.offset.expand(b, -1, h, w)
        mask = x.new_zeros(b, 1)
        return torch.ops.torchvision.deform_conv2d(
            x, self.weight, offset, mask, self.bias, 1, 1, 0, 0, 1, 1, 1, c, False
        )


TALL = [(1, (-step, 0)) for step in ((channel + 1) % 3 - 1 for channel in range(6))]


def _tall_truth(module: Any, x: Any) -> list[Any]:
    shifted = torch.from_numpy(moved(x, TALL, (2, 3), 1, "zero"))
    with torch.no_grad():
        return [F.conv2d(shifted, module.weight, module.bias).numpy()]


@gallery.add(
    nchw(TALL, "zero"),
    shape=(2, 6, 4, 5),
    truth=_tall_truth,
    exact=False,
)
class CycleFullyConnectedTall(CycleFullyConnected):
    """The same along H."""

    def __init__(self) -> None:
        super().__init__(kernel=(3, 1))


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
