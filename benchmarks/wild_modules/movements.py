"""The idioms of a shift, one a module: convolutions, index tables, padding, rolls, writes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wild_modules.registry import wild


class Shifting(nn.Module):
    """A pointwise layer, a shift, a pointwise layer: 3 channels to 8."""

    dim = 16

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Conv2d(3, self.dim, 1), nn.Conv2d(self.dim, 8, 1)

    def shift(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.shift(F.relu(self.enter(x))))


@wild("ShiftNet", (1, 3, 32, 32), shifts=1, free=[(2, 3, 24, 44)])
class OneHotKernels(Shifting):
    """Depthwise convolution with one-hot 3 × 3 kernels, one direction a group."""

    def __init__(self) -> None:
        super().__init__()
        kernel = torch.zeros(self.dim, 1, 3, 3)
        for channel in range(self.dim):
            k = channel * 9 // self.dim
            kernel[channel, 0, k // 3, k % 3] = 1
        self.register_buffer("kernel", kernel)

    def shift(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, padding=1, groups=x.shape[1])


@wild("ShiftNet, dilated", (1, 3, 32, 32), shifts=1, free=[(2, 3, 30, 41)])
class DilatedKernels(Shifting):
    """The same two pixels far, by dilation."""

    def __init__(self) -> None:
        super().__init__()
        self.move = nn.Conv2d(self.dim, self.dim, 3, padding=2, dilation=2, groups=self.dim, bias=False)
        self.move.requires_grad_(False)
        self.move.weight.zero_()
        for channel in range(self.dim):
            self.move.weight[channel, 0, (0, 1, 1, 2)[channel % 4], (1, 0, 2, 1)[channel % 4]] = 1

    def shift(self, x: Tensor) -> Tensor:
        return self.move(x)


@wild("transposed one-hot kernels", (1, 3, 24, 24), shifts=1)
class TransposedKernels(Shifting):
    """A transposed depthwise convolution with one-hot kernels."""

    def shift(self, x: Tensor) -> Tensor:
        kernel = torch.zeros(self.dim, 1, 3, 3)
        kernel[: self.dim // 2, 0, 0, 1] = 1
        kernel[self.dim // 2 :, 0, 1, 2] = 1
        return F.conv_transpose2d(x, kernel, padding=1, groups=self.dim)


@wild("index_select", (1, 3, 32, 32), shifts=1, free=[(1, 3, 21, 36)])
class Selected(Shifting):
    """Rows and columns picked by a clamped range, computed from the size at hand."""

    def shift(self, x: Tensor) -> Tensor:
        parts = []
        for part, (dim, by) in zip(x.chunk(4, 1), ((2, 2), (2, -2), (3, 1), (3, -1)), strict=True):
            size = part.size(dim)
            parts.append(part.index_select(dim, (torch.arange(size) + by).clamp(0, size - 1)))
        return torch.cat(parts, 1)


@wild("gather", (1, 3, 24, 24), shifts=1)
class Gathered(Shifting):
    """torch.gather with a table expanded over the tensor, the step of each channel wrapped around."""

    def shift(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        step = torch.arange(c) % 5 - 2
        index = (torch.arange(w)[None, :] - step[:, None]) % w
        return torch.gather(x, 3, index[None, :, None, :].expand(b, c, h, w))


@wild("crop and pad", (1, 3, 32, 32), shifts=1, free=[(2, 3, 19, 33)])
class PadCrop(Shifting):
    """Negative padding on one side and positive on the other."""

    def shift(self, x: Tensor) -> Tensor:
        a, b, c, d = torch.split(x, self.dim // 4, dim=1)
        return torch.cat([F.pad(a, (3, -3)), F.pad(b, (-3, 3)), F.pad(c, (0, 0, 1, -1)), F.pad(d, (0, 0, -1, 1))], 1)


@wild("advanced indexing", (1, 3, 32, 32), shifts=1, free=[(1, 3, 27, 40)])
class Indexed(Shifting):
    """One read with three broadcast index tensors, edges repeated, diagonal steps."""

    def shift(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        channel = torch.arange(self.dim)
        rows = (torch.arange(h)[None, :] + (channel % 3 - 1)[:, None]).clamp(0, h - 1)
        columns = (torch.arange(w)[None, :] + (channel // 8 * 2 - 1)[:, None]).clamp(0, w - 1)
        return x[:, channel[:, None, None], rows[:, :, None], columns[:, None, :]]


@wild("roll of two axes", (1, 3, 32, 32), shifts=1, free=[(2, 3, 25, 38)])
class DoubleRoll(Shifting):
    """Three quarters of the channels rolled diagonally, written into a copy."""

    def shift(self, x: Tensor) -> Tensor:
        out = x.clone()
        out[:, 4:] = torch.roll(x[:, 4:], shifts=(1, -2), dims=(2, 3))
        return out


@wild("flips", (1, 3, 32, 32), shifts=1, free=[(1, 3, 16, 21)])
class Flipped(Shifting):
    """Turned round, moved, turned back."""

    def shift(self, x: Tensor) -> Tensor:
        turned = torch.flip(x[:, :8], dims=(2,))
        turned = torch.cat((turned[:, :, 1:], torch.zeros_like(turned[:, :, :1])), 2)
        return torch.cat((turned.flip(2), torch.fliplr(torch.fliplr(x[:, 8:]))), 1)


@wild("pixel shuffle", (1, 3, 32, 32), shifts=1, free=[(1, 3, 40, 64)])
class Unshuffled(nn.Module):
    """Folded to half the size, shifted there, unfolded again."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Conv2d(12, 16, 1), nn.Conv2d(16, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.enter(F.pixel_unshuffle(x, 2)))
        up, down = y.tensor_split(2, dim=1)
        up = torch.cat((up[..., 1:, :], up[..., -1:, :]), -2)
        down = torch.cat((down[..., :1, :], down[..., :-1, :]), -2)
        return F.pixel_shuffle(self.leave(torch.cat((up, down), 1)), 2)


@wild("overlapping writes, two steps", (1, 24, 24, 16), shifts=1, racing=True, free=[(2, 20, 31, 16)])
class TwoStepsInPlace(nn.Module):
    """Slices moved by two onto themselves: vacated rows keep what they had. Channels last."""

    def __init__(self, functional: bool = False) -> None:
        super().__init__()
        self.functional, self.mix = functional, nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        y = self.mix(x)
        if self.functional:
            z = y.clone()
            z[:, 2:, :, 0:5] = y[:, :-2, :, 0:5]
            z[:, :, :-2, 5:10] = y[:, :, 2:, 5:10]
            return z * 0.5
        y[:, 2:, :, 0:5] = y[:, :-2, :, 0:5]
        y[:, :, :-2, 5:10] = y[:, :, 2:, 5:10]
        return y * 0.5


@wild("index_put", (1, 3, 24, 24), shifts=1)
class IndexPut(Shifting):
    """Channels named by a list are written through index_put."""

    def shift(self, x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        odd, even = list(range(1, self.dim, 2)), list(range(0, self.dim, 2))
        out[:, odd, 1:, :] = x[:, odd, :-1, :]
        out[:, even, :, :-1] = x[:, even, :, 1:]
        return out


@wild("channels in turn", (1, 3, 32, 32), shifts=1, free=[(1, 3, 44, 23)])
class Interleaved(Shifting):
    """Every fourth channel to each side, by strided writes."""

    def shift(self, x: Tensor) -> Tensor:
        out = x.clone()
        out[:, 0::4, 1:] = x[:, 0::4, :-1]
        out[:, 1::4, :-1] = x[:, 1::4, 1:]
        out[:, 2::4, :, 1:] = x[:, 2::4, :, :-1]
        out[:, 3::4, :, :-1] = x[:, 3::4, :, 1:]
        return out


@wild("rolls and masks", (1, 3, 24, 24), shifts=2)
class MaskedRoll(Shifting):
    """torch.where keeps the old value, or puts zeros, where a roll would bring in the other end: two borders."""

    def shift(self, x: Tensor) -> Tensor:
        rows = torch.arange(x.shape[2]).view(-1, 1)
        a, b = x[:, :6], x[:, 6:]
        a = torch.where(rows >= 1, a.roll(1, 2), a)
        b = torch.where(rows < x.shape[2] - 3, b.roll(-3, 2), torch.zeros(()))
        return torch.cat((a, b), 1)


@wild("unfold", (1, 3, 24, 24), shifts=1)
class UnfoldedTap(Shifting):
    """F.unfold reads all nine neighbours, one of them a channel is kept."""

    def shift(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        taps = F.unfold(x, 3, padding=1).view(b, c, 9, h, w)
        return torch.stack([taps[:, k, (k * 2) % 9] for k in range(c)], 1)


@wild("narrow and new_zeros", (1, 3, 32, 32), shifts=1, free=[(3, 3, 21, 22)])
class Narrowed(Shifting):
    """Narrow, zeros made of the size at hand, and torch.hstack's kin."""

    def shift(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        one = torch.concat((x.new_zeros((n, c // 2, 2, w)), x.narrow(1, 0, c // 2).narrow(2, 0, h - 2)), dim=-2)
        two = torch.concat((x.narrow(1, c // 2, c // 2).narrow(3, 2, w - 2), x.new_zeros((n, c // 2, h, 2))), dim=-1)
        return torch.concat((one, two), dim=1)


@wild("copy_", (1, 3, 24, 24), shifts=1)
class Copied(Shifting):
    """Views of an empty tensor filled by copy_, borders by fill_."""

    def shift(self, x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        left, right = out[:, :8], out[:, 8:]
        left[..., 1:].copy_(x[:, :8, :, :-1])
        left[..., :1].fill_(0.0)
        right[..., :-1].copy_(x[:, 8:, :, 1:])
        right[..., -1].zero_()
        return out


@wild("matrix of a shift", (1, 3, 20, 20), shifts=0)
class ShiftMatrix(Shifting):
    """A shift as a product with a matrix of ones beside the diagonal: arithmetic, left as it is."""

    def shift(self, x: Tensor) -> Tensor:
        return torch.eye(20).roll(1, 0) @ x


@wild("edge by interpolation", (1, 3, 24, 24), shifts=0)
class Resampled(Shifting):
    """grid_sample on a grid moved by one pixel: arithmetic on positions."""

    def shift(self, x: Tensor) -> Tensor:
        theta = torch.tensor([[[1.0, 0.0, 2 / 23], [0.0, 1.0, 0.0]]]).expand(x.shape[0], -1, -1)
        grid = F.affine_grid(theta, list(x.shape), align_corners=True)
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


@wild("slices of views", (1, 3, 24, 24), shifts=1)
class RowMajor(Shifting):
    """A shift of a row by 24 elements of the flattened image."""

    def shift(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        w = x.shape[-1]
        down = torch.cat((torch.zeros_like(flat[:, :8, :w]), flat[:, :8, :-w]), 2)
        up = torch.cat((flat[:, 8:, w:], torch.zeros_like(flat[:, 8:, :w])), 2)
        return torch.cat((down, up), 1).view_as(x)
