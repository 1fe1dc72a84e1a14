"""Deformable convolutions: those whose offsets are constant whole cells are a shift and a convolution."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from gallery_case import Collection, moved, nchw, seeded
from torch import Tensor, nn

gallery = Collection("deform")
near_misses = Collection("near miss")

PLANES = (2, 8, 6, 5)


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
    kh, kw = weight.shape[2:]
    height, width = _deform_size(x, weight, (sh, sw), (ph, pw), (dh, dw))
    n, c, h, w = x.shape
    offset = offset.reshape(n, offset_groups, kh * kw, 2, height, width)
    mask = mask.reshape(n, offset_groups, kh * kw, height, width) if use_mask else None
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
            sampled.append(total if mask is None else total * mask[:, group, tap].unsqueeze(1))
        columns_of_groups = torch.cat(sampled, 1).unflatten(1, (groups, -1))
        taps = weight[:, :, i, j].unflatten(0, (groups, -1))
        out += torch.einsum("goc,ngchw->ngohw", taps, columns_of_groups).flatten(1, 2)
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


class Deform(nn.Module):
    """A deformable convolution of 8 channels to 4 whose offsets are a buffer, one pair per offset group.

    Attributes:
        steps: Row and column that each offset group reads ahead by.
    """

    steps: tuple[tuple[float, float], ...] = ((-1, 0), (0, 2))
    kernel, stride, pad, groups, masked = 1, 1, 0, 1, False

    def __init__(self) -> None:
        super().__init__()
        register_deform_conv2d()
        self.weight = nn.Parameter(torch.empty(4, 8 // self.groups, self.kernel, self.kernel))
        self.bias = nn.Parameter(torch.empty(4))
        seeded(self)
        self.register_buffer("offset", self.offsets())

    def offsets(self) -> Tensor:
        taps = self.kernel**2
        return torch.tensor(self.steps).float().repeat_interleave(taps, 0).reshape(1, -1, 1, 1)

    def mask(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        return x.new_ones(shape)

    def forward(self, x: Tensor) -> Tensor:
        stride, pad, kernel = self.stride, self.pad, self.kernel
        height, width = ((size + 2 * pad - kernel) // stride + 1 for size in x.shape[2:])
        offset = self.offset.expand(x.shape[0], -1, height, width)
        mask = self.mask(x, (x.shape[0], len(self.steps) * kernel**2, height, width))
        numbers = (stride, stride, pad, pad, 1, 1, self.groups, len(self.steps), self.masked)
        return torch.ops.torchvision.deform_conv2d(x, self.weight, offset, mask, self.bias, *numbers)


READ = [(4, (1, 0)), (4, (0, -2))]


def _deform_truth(module: Any, x: Any) -> list[Any]:
    shifted = torch.from_numpy(moved(x, READ, (2, 3), 1, "zero"))
    with torch.no_grad():
        return [F.conv2d(shifted, module.weight, module.bias, module.stride, 0, 1, module.groups).numpy()]


DEFORM: dict[str, Any] = {"shape": PLANES, "truth": _deform_truth, "exact": False}


@gallery.add(nchw(READ, "zero"), **DEFORM)
class DeformGroups(Deform):
    """Two offset groups that are the two groups of the weight too."""

    groups = 2


@gallery.add(nchw(READ, "zero"), **DEFORM)
class DeformStride(Deform):
    """Every second cell of the sampled tensor."""

    stride = 2


@gallery.add(nchw(READ, "zero"), **DEFORM)
class DeformKernel(Deform):
    """All nine cells of the kernel sample by the same step; nothing is padded. The mask is 1 everywhere."""

    kernel, masked = 3, True


@gallery.add(nchw(READ, "zero"), **DEFORM, sizes=((1, 8, 7, 9),))
class DeformOnes(Deform):
    """Offsets computed on the way."""

    masked = True

    def offsets(self) -> Tensor:
        return torch.tensor([1.0, 0.0, 0.0, 2.0]).view(1, 4, 1, 1) * torch.tensor([-1.0, 1.0, 1.0, 1.0]).view(
            1, 4, 1, 1
        )


@near_misses.add(shape=PLANES, exact=False, export=True)
class DeformRows(Deform):
    """Every second row of a group samples elsewhere."""

    def offsets(self) -> Tensor:
        offset = super().offsets().repeat(1, 1, 6, 5)
        offset[:, 0, ::2] += 1
        return offset


@near_misses.add(shape=PLANES, exact=False)
class DeformHalf(Deform):
    """Half a cell: the mean of two neighbours."""

    steps = ((-0.5, 0), (0, 2))


@near_misses.add(shape=PLANES, exact=False)
class DeformPadded(Deform):
    """Along a padded axis the sampling reads what a shift has dropped."""

    kernel, pad = 3, 1


@near_misses.add(shape=PLANES, exact=False)
class DeformMasked(Deform):
    """Samples that count half."""

    masked = True

    def mask(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        return x.new_full(shape, 0.5)


@near_misses.add(shape=PLANES, exact=False)
class DeformLearned(Deform):
    """As deformable convolutions are meant: offsets from the input."""

    def __init__(self) -> None:
        super().__init__()
        self.predict = seeded(nn.Conv2d(8, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        mask = x.new_ones(x.shape[0], 1)
        return torch.ops.torchvision.deform_conv2d(
            x, self.weight, self.predict(x), mask, self.bias, 1, 1, 0, 0, 1, 1, 1, 2, False
        )


@near_misses.add(shape=PLANES, exact=False)
class DeformNowhere(Deform):
    """Offsets of 0 and padding: an ordinary convolution, and no shift."""

    steps, kernel, pad = ((0, 0), (0, 0)), 3, 1
