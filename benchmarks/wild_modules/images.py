"""Image networks whose spatial mixing is a shift, and their MLP relatives."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wild_modules.registry import wild


def channel_mlp(dim: int, out: int | None = None, ratio: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(dim, ratio * dim, 1), nn.GELU(), nn.Conv2d(ratio * dim, out or dim, 1))


@wild("AS-MLP", (1, 3, 32, 32), shifts=2, free=[(2, 3, 40, 24), (1, 3, 33, 57)])
class AxialShift(nn.Module):
    """Axial shift: chunks of channels rolled within a zero border, along each axis."""

    def __init__(self, dim: int = 20, size: int = 5) -> None:
        super().__init__()
        self.size, self.pad = size, size // 2
        self.stem = nn.Conv2d(3, dim, 1)
        self.inner, self.after = nn.GroupNorm(1, dim), nn.GroupNorm(1, dim)
        self.lr, self.td, self.last = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 1)

    def along(self, x: Tensor, dim: int) -> Tensor:
        height, width = x.shape[2:]
        padded = F.pad(x, (self.pad,) * 4, "constant", 0)
        pieces = torch.chunk(padded, self.size, 1)
        moved = [torch.roll(piece, by, dim) for piece, by in zip(pieces, range(-self.pad, self.pad + 1), strict=True)]
        return torch.cat(moved, 1).narrow(2, self.pad, height).narrow(3, self.pad, width)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.inner(self.stem(x)))
        across = F.gelu(self.lr(self.along(x, 3)))
        down = F.gelu(self.td(self.along(x, 2)))
        return self.last(self.after(across + down))


@wild("ShiftViT", (2, 3, 32, 32), shifts=2, free=[(3, 3, 48, 20)])
class ShiftViTStage(nn.Module):
    """Two blocks whose attention is replaced by a shift of a part of the channels, zeros coming in."""

    def __init__(self, dim: int = 24, div: int = 12, step: int = 1) -> None:
        super().__init__()
        self.group, self.step = dim // div, step
        self.stem = nn.Conv2d(3, dim, 4, 4)
        self.norms = nn.ModuleList(nn.GroupNorm(1, dim) for _ in range(2))
        self.mlps = nn.ModuleList(channel_mlp(dim) for _ in range(2))

    def moved(self, x: Tensor) -> Tensor:
        g, n = self.group, self.step
        out = torch.zeros_like(x)
        out[:, 0 * g : 1 * g, :, :-n] = x[:, 0 * g : 1 * g, :, n:]
        out[:, 1 * g : 2 * g, :, n:] = x[:, 1 * g : 2 * g, :, :-n]
        out[:, 2 * g : 3 * g, :-n, :] = x[:, 2 * g : 3 * g, n:, :]
        out[:, 3 * g : 4 * g, n:, :] = x[:, 3 * g : 4 * g, :-n, :]
        out[:, 4 * g :, :, :] = x[:, 4 * g :, :, :]
        return out

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, mlp in zip(self.norms, self.mlps, strict=True):
            x = self.moved(x)
            x = x + mlp(norm(x))
        return x


@wild("S2-MLP", (1, 3, 56, 56), shifts=1, racing=True, free=[(2, 3, 64, 40)])
class SpatialShiftInPlace(nn.Module):
    """S2-MLP's block as public code has it: slices written onto themselves."""

    def __init__(self, dim: int = 32, functional: bool = False) -> None:
        super().__init__()
        self.functional = functional
        self.stem = nn.Conv2d(3, dim, 7, 7)
        self.one, self.two, self.norm = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.LayerNorm(dim)

    def shifted(self, x: Tensor) -> Tensor:
        q = x.shape[-1] // 4
        if self.functional:
            down, up, right, left = x.split(q, -1)
            down = torch.cat((down[:, :1], down[:, :-1]), 1)
            up = torch.cat((up[:, 1:], up[:, -1:]), 1)
            right = torch.cat((right[:, :, :1], right[:, :, :-1]), 2)
            left = torch.cat((left[:, :, 1:], left[:, :, -1:]), 2)
            return torch.cat((down, up, right, left), -1)
        x[:, 1:, :, :q] = x[:, :-1, :, :q]
        x[:, :-1, :, q : 2 * q] = x[:, 1:, :, q : 2 * q]
        x[:, :, 1:, 2 * q : 3 * q] = x[:, :, :-1, 2 * q : 3 * q]
        x[:, :, :-1, 3 * q :] = x[:, :, 1:, 3 * q :]
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        return x + self.norm(self.two(self.shifted(F.gelu(self.one(x)))))


@wild("S2-MLPv2", (2, 3, 28, 28), shifts=2, racing=True, free=[(1, 3, 49, 70)])
class SplitAttentionBlock(nn.Module):
    """Three branches, two of them shifted in place, weighed by split attention."""

    def __init__(self, dim: int = 16, functional: bool = False) -> None:
        super().__init__()
        self.functional = functional
        self.stem, self.norm = nn.Conv2d(3, dim, 7, 7), nn.LayerNorm(dim)
        self.expand, self.project = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.squeeze, self.excite = nn.Linear(dim, dim, bias=False), nn.Linear(dim, 3 * dim, bias=False)

    def first(self, x: Tensor, order: tuple[int, int]) -> Tensor:
        q = x.shape[-1] // 4
        source = x.clone() if self.functional else x
        one, two = order
        length, other = x.shape[one], x.shape[two]
        x.narrow(one, 1, length - 1)[..., :q] = source.narrow(one, 0, length - 1)[..., :q]
        x.narrow(one, 0, length - 1)[..., q : 2 * q] = source.narrow(one, 1, length - 1)[..., q : 2 * q]
        x.narrow(two, 1, other - 1)[..., 2 * q : 3 * q] = source.narrow(two, 0, other - 1)[..., 2 * q : 3 * q]
        x.narrow(two, 0, other - 1)[..., 3 * q :] = source.narrow(two, 1, other - 1)[..., 3 * q :]
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        y = self.expand(self.norm(x))
        parts = torch.stack((self.first(y[..., :c], (1, 2)), self.first(y[..., c : 2 * c], (2, 1)), y[..., 2 * c :]), 1)
        parts = parts.reshape(b, 3, h * w, c)
        weight = self.excite(F.gelu(self.squeeze(parts.sum(1).sum(1)))).reshape(b, 3, c).softmax(1)
        return x + self.project((weight.unsqueeze(-2) * parts).sum(1).reshape(b, h, w, c))


@wild("S2-MLP variants", (1, 3, 32, 32), shifts=1, free=[(1, 3, 20, 36)])
class EightNeighbours(nn.Module):
    """The ablation with all eight neighbours: slices of an edge-padded tensor, put side by side."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.stem, self.mix = nn.Conv2d(3, dim, 1), channel_mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        h, w = x.shape[-2:]
        p = F.pad(x, (1, 1, 1, 1), mode="replicate")
        steps = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
        parts = [p[:, 2 * k : 2 * k + 2, i : i + h, j : j + w] for k, (i, j) in enumerate(steps)]
        return self.mix(torch.cat(parts, dim=1))


@wild("Hire-MLP", (1, 16, 32, 32), shifts=4)
class CrossRegion(nn.Module):
    """Cross-region rolls around an inner-region rearrangement, along height and along width."""

    def __init__(self, dim: int = 16, region: int = 4, step: int = 2) -> None:
        super().__init__()
        self.region, self.step = region, step
        mid = dim // 2
        self.h = nn.Sequential(nn.Conv2d(dim * region, mid, 1), nn.ReLU(), nn.Conv2d(mid, dim * region, 1))
        self.w = nn.Sequential(nn.Conv2d(dim * region, mid, 1), nn.ReLU(), nn.Conv2d(mid, dim * region, 1))
        self.c, self.out = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        p = self.region
        high = torch.roll(x, self.step, 2)
        high = high.reshape(b, c, h // p, p, w).permute(0, 1, 3, 2, 4).reshape(b, c * p, h // p, w)
        high = self.h(high).reshape(b, c, p, h // p, w).permute(0, 1, 3, 2, 4).reshape(b, c, h, w)
        high = torch.roll(high, -self.step, 2)
        wide = torch.roll(x, self.step, 3)
        wide = wide.reshape(b, c, h, w // p, p).permute(0, 1, 4, 2, 3).reshape(b, c * p, h, w // p)
        wide = self.w(wide).reshape(b, c, p, h, w // p).permute(0, 1, 3, 4, 2).reshape(b, c, h, w)
        wide = torch.roll(wide, -self.step, 3)
        return x + self.out(high + wide + self.c(x))


@wild("CycleMLP", (1, 3, 32, 32), shifts=2, free=[(2, 3, 24, 45)])
class CycleFully(nn.Module):
    """CycleFC without deformable convolution: each channel reads one row, then one column, beside its own."""

    def __init__(self, dim: int = 32, rows: int = 3, columns: int = 7) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns
        self.stem = nn.Conv2d(3, dim, 3, padding=1)
        self.down, self.across = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 1)

    def cycle(self, x: Tensor, dim: int, span: int) -> Tensor:
        reach = span // 2
        pad = [0, 0, reach, reach] if dim == 2 else [reach, reach, 0, 0]
        padded = F.pad(x, pad)
        read = [padded[:, c : c + 1].narrow(dim, c % span, x.shape[dim]) for c in range(x.shape[1])]
        return torch.cat(read, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.down(self.cycle(x, 2, self.rows)) + self.across(self.cycle(x, 3, self.columns))


@wild("MorphMLP", (1, 18, 30, 16), shifts=0, free=[(1, 17, 44, 16), (2, 32, 32, 16)])
class MorphChunks(nn.Module):
    """A fully connected layer over chunks of a row, the row padded to whole chunks; channels last."""

    def __init__(self, dim: int = 16, length: int = 7, groups: int = 4) -> None:
        super().__init__()
        self.length, self.groups = length, groups
        self.fc = nn.Linear(length * dim // groups, length * dim // groups)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        extra = (self.length - w % self.length) % self.length
        y = F.pad(x, (0, 0, 0, extra))
        count = (w + extra) // self.length
        y = y.reshape(b, h, count, self.length, self.groups, c // self.groups)
        y = y.permute(0, 1, 2, 4, 3, 5).reshape(b, h, count, self.groups, -1)
        y = self.fc(y).reshape(b, h, count, self.groups, self.length, c // self.groups)
        y = y.permute(0, 1, 2, 4, 3, 5).reshape(b, h, w + extra, c)[:, :, :w]
        return self.project(x + y)


@wild("WaveMLP", (1, 16, 32, 32), shifts=0, free=[(2, 16, 21, 40)])
class PhaseAware(nn.Module):
    """Phase-aware token mixing: amplitude and phase, unfolded to cosine and sine, mixed along rows and columns."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.theta = nn.ModuleList(nn.Sequential(nn.Conv2d(dim, dim, 1), nn.BatchNorm2d(dim), nn.ReLU()) for _ in "hw")
        self.amplitude = nn.ModuleList(nn.Conv2d(dim, dim, 1, bias=False) for _ in "hw")
        self.along = nn.ModuleList(
            nn.Conv2d(2 * dim, dim, k, padding=(k[0] // 2, k[1] // 2), groups=dim, bias=False) for k in ((1, 7), (7, 1))
        )
        self.reweigh = channel_mlp(dim, 3 * dim, 1)
        self.c = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c = x.shape[:2]
        mixed = []
        for theta, amplitude, along in zip(self.theta, self.amplitude, self.along, strict=True):
            phase, size = theta(x), amplitude(x)
            mixed.append(along(torch.cat([size * torch.cos(phase), size * torch.sin(phase)], dim=1)))
        mixed.append(self.c(x))
        pooled = F.adaptive_avg_pool2d(sum(mixed), 1)
        a = self.reweigh(pooled).reshape(b, c, 3).permute(2, 0, 1).softmax(dim=0)[..., None, None]
        return mixed[0] * a[0] + mixed[1] * a[1] + mixed[2] * a[2]


@wild("Rolling-UNet", (1, 3, 32, 32), shifts=2, free=[(1, 3, 48, 64)])
class RollingMLP(nn.Module):
    """Every channel is rolled by its own number of rows, then of columns."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, dim, 3, padding=1)
        self.h, self.w, self.norm = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 1), nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        channels = torch.split(x, 1, dim=1)
        down = torch.cat([torch.roll(one, i % 9, 2) for i, one in enumerate(channels)], 1)
        y = F.gelu(self.h(down))
        across = torch.cat([torch.roll(one, i % 9, 3) for i, one in enumerate(torch.split(y, 1, dim=1))], 1)
        return x + self.w(across)


@wild("PixelMixer", (1, 24, 32, 32), shifts=1, free=[(2, 24, 31, 50)])
class PixelMixer(nn.Module):
    """Groups of channels rolled to the ring of neighbours of a radius, a rest that stays."""

    def __init__(self, dim: int = 24, radius: int = 2) -> None:
        super().__init__()
        self.steps = [(radius, 0), (-radius, 0), (0, radius), (0, -radius), (1, 1), (-1, -1), (1, -1), (-1, 1)]
        self.project = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        size = x.size(1) // (len(self.steps) + 4)
        parts = [x[:, i * size : (i + 1) * size].roll(shifts=step, dims=(-2, -1)) for i, step in enumerate(self.steps)]
        parts.append(x[:, len(self.steps) * size :])
        return self.project(F.silu(torch.cat(parts, dim=1)))


@wild("ConvMLP", (1, 3, 64, 64), shifts=0, free=[(2, 3, 40, 72)])
class ConvMLP(nn.Module):
    """A convolutional tokenizer, channel MLPs on tokens and a depthwise convolution between them."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, dim, 3, 2, 1, bias=False), nn.BatchNorm2d(dim), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        self.one = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.conv, self.norm = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False), nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        x = x + self.one(x)
        x = self.conv(self.norm(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1) + x
        return self.head(x.reshape(x.shape[0], -1, x.shape[-1]).mean(dim=1))


@wild("Vision Permutator", (1, 16, 16, 32), shifts=0)
class WeightedPermute(nn.Module):
    """Height, width and channels mixed by turns of segments."""

    def __init__(self, side: int = 16, dim: int = 32) -> None:
        super().__init__()
        self.segment = dim // side
        self.h, self.w, self.c = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.reweigh, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        s = self.segment
        high = x.reshape(b, h, w, h, s).permute(0, 3, 2, 1, 4).reshape(b, h, w, h * s)
        high = self.h(high).reshape(b, h, w, h, s).permute(0, 3, 2, 1, 4).reshape(b, h, w, c)
        wide = x.reshape(b, h, w, w, s).permute(0, 1, 3, 2, 4).reshape(b, h, w, w * s)
        wide = self.w(wide).reshape(b, h, w, w, s).permute(0, 1, 3, 2, 4).reshape(b, h, w, c)
        own = self.c(x)
        a = self.reweigh((high + wide + own).flatten(1, 2).mean(1)).reshape(b, c, 3).permute(2, 0, 1)
        a = a.softmax(0).unsqueeze(2).unsqueeze(2)
        return self.out(high * a[0] + wide * a[1] + own * a[2])


@wild("U-Net with roll", (1, 3, 64, 64), shifts=2, free=[(2, 3, 32, 96)])
class RollUNet(nn.Module):
    """A small U-Net whose bottleneck rolls half of its channels, and whose skip is cropped to fit."""

    def __init__(self, dim: int = 12) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(3, dim, 3, padding=1), nn.Conv2d(dim, 2 * dim, 3, 2, 1)
        self.mid, self.up = nn.Conv2d(2 * dim, 2 * dim, 1), nn.ConvTranspose2d(2 * dim, dim, 2, 2)
        self.head = nn.Conv2d(2 * dim, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.down(x))
        y = F.relu(self.deep(skip))
        a, b = y.chunk(2, dim=1)
        y = self.mid(torch.cat((torch.roll(a, 3, -1), torch.roll(b, 3, -2)), 1))
        a, b = F.relu(y).chunk(2, dim=1)
        y = self.up(torch.cat((torch.roll(a, -3, -1), torch.roll(b, -3, -2)), 1))
        top, left = (skip.shape[2] - y.shape[2]) // 2, (skip.shape[3] - y.shape[3]) // 2
        skip = skip[:, :, top : top + y.shape[2], left : left + y.shape[3]]
        return self.head(torch.cat((skip, y), 1))


@wild("AS-MLP with a mirror", (1, 16, 32, 32), shifts=0, free=[(1, 16, 24, 40)])
class MirroredShift(nn.Module):
    """A shift of two whose vacated rows hold a mirror image: no border that a grouped shift has."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.project = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = x.size(2)
        p = F.pad(x, (0, 0, 2, 2), mode="reflect")
        half = x.size(1) // 2
        return self.project(torch.cat((p[:, :half, :h], p[:, half:, 4 : 4 + h]), 1))


@wild("Sparse MLP", (1, 16, 24, 24), shifts=0)
class SparseMLP(nn.Module):
    """Mixing along rows and columns with fully connected layers of the image's size, beside itself."""

    def __init__(self, side: int = 24, dim: int = 16) -> None:
        super().__init__()
        self.h, self.w = nn.Linear(side, side), nn.Linear(side, side)
        self.scale = 1 / math.sqrt(dim)
        self.fuse = nn.Conv2d(3 * dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        high = self.h(x.permute(0, 1, 3, 2)).permute(0, 1, 3, 2)
        return self.fuse(torch.cat((x * self.scale, high, self.w(x)), 1))
