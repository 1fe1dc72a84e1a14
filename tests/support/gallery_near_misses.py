"""Movements and near movements that are no grouped shift and must stay exactly as they are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from gallery_case import Collection
from torch import Tensor, nn

gallery = Collection("near miss")

IMAGE = (2, 6, 5, 8)
PLANES = (2, 8, 6, 5)
SQUARE = (2, 8, 6, 6)


@gallery.add(shape=PLANES, export=True)
def channel_shuffle(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    return (x + 1).view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)


@gallery.add(shape=PLANES)
class ChannelPermutation(nn.Module):
    """A table of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor([3, 1, 0, 2, 7, 5, 6, 4]))

    def forward(self, x: Tensor) -> Tensor:
        return (x + 1)[:, self.order]


@gallery.add(shape=SQUARE)
def rows_become_columns(x: Tensor) -> Tensor:
    return (x + 1).transpose(2, 3)


@gallery.add(shape=SQUARE)
def quarter_turn(x: Tensor) -> Tensor:
    return torch.rot90(x + 1, 1, (2, 3))


@gallery.add(shape=PLANES)
def every_second_row(x: Tensor) -> Tensor:
    return (x + 1)[:, :, ::2, 1::2]


@gallery.add(shape=PLANES)
def cropped(x: Tensor) -> Tensor:
    return (x + 1)[:, :, 1:-1, 1:]


@gallery.add(shape=PLANES)
def strongest_row_first(x: Tensor) -> Tensor:
    # Which rows move where depends on the values.
    x = x + 1
    strongest = x.sum((0, 1, 3)).argmax()
    rows = (torch.arange(x.shape[2]) + strongest) % x.shape[2]
    return x.index_select(2, rows)


@gallery.add(shape=PLANES)
class Sheared(nn.Module):
    """Within one group each row moves by another step."""

    def __init__(self) -> None:
        super().__init__()
        rows, columns = torch.meshgrid(torch.arange(6), torch.arange(5), indexing="ij")
        self.register_buffer("index", (columns - rows % 2).clamp(0))

    def forward(self, x: Tensor) -> Tensor:
        return torch.gather(x + 1, 3, self.index.expand_as(x))


class Depthwise(nn.Module):
    """One-hot kernels that are changed a little."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.bias.zero_()
            for channel in range(8):
                self.conv.weight[channel, 0, 0 if channel < 4 else 2, 1] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x + 1)


@gallery.add(shape=PLANES, export=True, exact=False)
class AlmostOneHot(Depthwise):
    """A learned kernel near a shift."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.conv.weight[3, 0, 0, 1] = 0.999


@gallery.add(shape=PLANES, exact=False)
class AlmostZeroElsewhere(Depthwise):
    """Another tap reads a little."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.conv.weight[5, 0, 1, 1] = 1e-4


@gallery.add(shape=PLANES, exact=False)
class OneHotWithBias(Depthwise):
    """Moves, and adds."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.conv.bias[2] = 0.5


@gallery.add(shape=PLANES, exact=False)
class TwoTaps(Depthwise):
    """The sum of two neighbours."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.conv.weight[0, 0, 2, 1] = 1.0


@gallery.add(shape=(2, 8, 6, 8), exact=False)
class OneHotWithStride(Depthwise):
    """Downsamples."""

    def __init__(self) -> None:
        super().__init__()
        self.conv.stride = (2, 2)


@gallery.add(shape=PLANES)
def reflected_border(x: Tensor) -> Tensor:
    p = F.pad(x + 1, (2, 2, 2, 2), mode="reflect")
    return torch.cat([p[:, :4, :-4, 2:-2], p[:, 4:, 2:-2, 4:]], 1)


@gallery.add(shape=PLANES)
def border_of_ones(x: Tensor) -> Tensor:
    p = F.pad(x + 1, (0, 0, 1, 0), value=1.0)
    return p[:, :, :-1]


@gallery.add(shape=PLANES)
def half_of_the_rows(x: Tensor) -> Tensor:
    x = x + 1
    y = x.clone()
    y[:, :4, 1:3] = x[:, :4, 0:2]
    return y


@gallery.add(shape=IMAGE)
def last_row_left_out(x: Tensor) -> Tensor:
    x = x + 1
    y = x.clone()
    y[:, 1:5] = x[:, 0:4]
    return y


@gallery.add(shape=(2, 6, 4, 8), export=True)
def window_partition(x: Tensor) -> Tensor:
    b, h, w, c = x.shape
    x = (x + 1).view(b, h // 2, 2, w // 2, 2, c)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, 2, 2, c)


@gallery.add(shape=(2, 3, 6, 4))
def patches(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    return (x + 1).reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


@gallery.add(shape=PLANES)
def pixel_shuffle(x: Tensor) -> Tensor:
    return F.pixel_shuffle(x + 1, 2)


@gallery.add(shape=PLANES)
def mirrored(x: Tensor) -> Tensor:
    return (x + 1).flip(3)


@gallery.add(shape=(PLANES, PLANES))
def border_from_another_tensor(x: Tensor, other: Tensor) -> Tensor:
    y = (other + 1).clone()
    y[:, :, 1:] = (x + 1)[:, :, :-1]
    return y


@gallery.add(shape=PLANES)
class Masked(nn.Module):
    """A product with zeros and ones."""

    def __init__(self) -> None:
        super().__init__()
        mask = torch.ones(1, 1, 6, 5)
        mask[:, :, 0] = 0
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return (x + 1) * self.mask


@gallery.add(shape=PLANES)
def nearest_neighbours_twice(x: Tensor) -> Tensor:
    return F.interpolate(x + 1, scale_factor=2.0, mode="nearest")


@gallery.add(shape=PLANES, exact=False)
def average_of_neighbours(x: Tensor) -> Tensor:
    return F.avg_pool2d(x + 1, 3, 1, 1)


@gallery.add(shape=PLANES)
def highest_neighbour(x: Tensor) -> Tensor:
    return F.max_pool2d(x + 1, 3, 1, 1)


@gallery.add(shape=PLANES)
class AnotherStepPerItem(nn.Module):
    """The first item of the batch moves down, the second up."""

    def __init__(self) -> None:
        super().__init__()
        rows = torch.arange(6).view(1, 1, 6, 1)
        self.register_buffer("index", torch.cat([(rows - 1).clamp(0, 5), (rows + 1).clamp(0, 5)]).expand(2, 8, 6, 5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.gather(x + 1, 2, self.index)


@gallery.add(shape=IMAGE)
def rows_one_by_one_from_the_first(x: Tensor) -> Tensor:
    # In this order each row is read after it was written: all rows become the first.
    x = x + 1
    for row in range(1, x.shape[1]):
        x[:, row] = x[:, row - 1]
    return x


@gallery.add(shape=PLANES)
def first_row_everywhere(x: Tensor) -> Tensor:
    x = x + 1
    return x[:, :, :1].expand_as(x).contiguous()


@gallery.add(shape=(2, 7))
def numbers_shifted_right(x: Tensor) -> Tensor:
    # No channels at all: labels of a language model.
    y = torch.zeros_like(x)
    y[:, 1:] = (x + 1)[:, :-1]
    return y


@gallery.add(shape=PLANES)
def rows_swapped_in_pairs(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    return (x + 1).view(b, c, h // 2, 2, w).flip(3).view(b, c, h, w)


@gallery.add(shape=PLANES, exact=False)
def difference_of_neighbours(x: Tensor) -> Tensor:
    x = x + 1
    return x[:, :, 1:] - x[:, :, :-1]


@gallery.add(shape=PLANES)
def sorted_by_value(x: Tensor) -> Tensor:
    x = x + 1
    return torch.gather(x, 2, x.argsort(dim=2).flip(2))
