"""Blocks of the families of networks that shift, in own words after papers, at any size.

Written from what the papers say, as public code writes such things, without knowledge of how shifts are found or
written. `benchmarks/stock.py` exports them at deployed sizes, the tests at small ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from gallery_case import numbers, seeded
from torch import Tensor, nn

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Family:
    """A kind of network.

    Attributes:
        name: Unique.
        module: Makes a block of so many channels.
        small: An example's shape that a test can afford.
        deployed: The shape at which it is timed.
        shifts: How many shifts it is.
        channel_axis: Which axis of the shape the module counts its channels on.
    """

    name: str
    module: Callable[[int], nn.Module]
    small: Shape
    deployed: Shape
    shifts: int
    channel_axis: int = 1

    def make(self, shape: Shape) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """The seeded module in evaluation mode, and an example of that shape."""
        return scaled(self.module(shape[self.channel_axis])), numbers(shape)


def scaled(module: nn.Module) -> nn.Module:
    """Random weights that keep the magnitude of what goes through."""
    seeded(module)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1 and parameter.requires_grad:
                parameter /= 0.3 * parameter[0].numel() ** 0.5
    return module


class Mixing(nn.Module):
    """Norm, widen, GELU, narrow, and the input again: what follows a shift in all of them."""

    def __init__(self, channels: int, expansion: int = 4) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.widen = nn.Conv2d(channels, channels * expansion, 1)
        self.narrow = nn.Conv2d(channels * expansion, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.narrow(F.gelu(self.widen(self.norm(x))))


def cycle_of_pads(x: Tensor, axis: int, period: int = 7) -> Tensor:
    """Channel ``c`` moves by ``c % period - period // 2`` elements; zeros come in."""
    reach, size = period // 2, x.shape[axis]
    padded = F.pad(x, (reach, reach, 0, 0) if axis == 3 else (0, 0, reach, reach))
    parts = [
        torch.roll(padded, c % period - reach, axis)[:, c : c + 1].narrow(axis, reach, size) for c in range(x.shape[1])
    ]
    return torch.cat(parts, 1)


class CycleBlock(nn.Module):
    """CycleMLP: every channel looks at another place along the rows, along the columns, and where it is."""

    def __init__(self, channels: int, period: int = 7) -> None:
        super().__init__()
        self.period = period
        self.norm = nn.LayerNorm(channels)
        self.rows, self.columns = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.here = nn.Linear(channels, channels, bias=False)
        self.reduce, self.expand = nn.Linear(channels, channels // 4), nn.Linear(channels // 4, channels * 3)
        self.project = nn.Linear(channels, channels)
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, channels * 4),
            nn.GELU(),
            nn.Linear(channels * 4, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        normal = self.norm(x)
        planes = normal.permute(0, 3, 1, 2)
        rows = self.rows(cycle_of_pads(planes, 2, self.period)).permute(0, 2, 3, 1)
        columns = self.columns(cycle_of_pads(planes, 3, self.period)).permute(0, 2, 3, 1)
        here = self.here(normal)
        mean = (rows + columns + here).permute(0, 3, 1, 2).flatten(2).mean(2)
        weights = self.expand(F.gelu(self.reduce(mean))).reshape(-1, mean.shape[1], 3).permute(2, 0, 1).softmax(0)
        a, b, c = weights.unsqueeze(2).unsqueeze(2).unbind(0)
        x = x + self.project(rows * a + columns * b + here * c)
        return x + self.mlp(x)


class ChannelsLastCycle(nn.Module):
    """The same cycle of steps by a table of rows, in a tensor whose channels come last."""

    def __init__(self, channels: int, period: int = 7) -> None:
        super().__init__()
        self.period = period
        self.before, self.behind = nn.Linear(channels, channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        for axis in (1, 2):
            turned = [torch.roll(x, step - self.period // 2, axis) for step in range(self.period)]
            x = torch.cat([turned[c % self.period][..., c : c + 1] for c in range(x.shape[3])], 3)
        return self.behind(x)


def rolled_by_channel(x: Tensor, axis: int, sign: int) -> Tensor:
    """Channel ``c`` is rolled by ``c`` elements."""
    return torch.cat([torch.roll(part, sign * c, axis) for c, part in enumerate(torch.chunk(x, x.shape[1], 1))], 1)


class RollingBlock(nn.Module):
    """Rolling-UNet: each channel is rolled by its number, channels are mixed, and all is rolled back.

    Along rows then columns, and once more the other way around.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.one, self.two = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.local = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.join = nn.Conv2d(channels * 2, channels, 1)

    def one_way(self, x: Tensor, mix: nn.Module, axes: tuple[int, int], sign: int) -> Tensor:
        for axis in axes:
            x = rolled_by_channel(x, axis, sign)
        x = mix(x)
        for axis in reversed(axes):
            x = rolled_by_channel(x, axis, -sign)
        return x

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        there = self.one_way(y, self.one, (2, 3), 1)
        back = self.one_way(y, self.two, (3, 2), -1)
        return x + self.join(torch.cat([F.gelu(there + back), self.local(y)], 1))


class PixelMixer(nn.Module):
    """Every fifth channel takes its neighbour to the left, to the right, above or below, or itself: a frozen kernel."""

    def __init__(self, channels: int, reach: int = 1) -> None:
        super().__init__()
        self.reach = reach
        kernels = torch.zeros(channels, 1, 2 * reach + 1, 2 * reach + 1)
        for first, (row, column) in enumerate(((1, 0), (1, 2), (0, 1), (2, 1), (1, 1))):
            kernels[first::5, 0, row * reach, column * reach] = 1
        self.register_buffer("kernels", kernels)

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (self.reach,) * 4, mode="circular")
        return F.conv2d(padded, self.kernels, groups=x.shape[1])


class PixelMixerBlock(nn.Module):
    """Two 1x1 convolutions with the mixer between, and a gate of 3x3: an image restorer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(channels, channels * 2, 1), nn.Conv2d(channels * 2, channels, 1)
        self.mixer = PixelMixer(channels * 2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(F.gelu(self.mixer(self.first(x))))


class RolledPixelMixerBlock(nn.Module):
    """The same movement written with ``torch.roll`` of every fifth channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(channels, channels * 2, 1), nn.Conv2d(channels * 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        out = y.clone()
        for first, (step, axis) in enumerate(((1, 3), (-1, 3), (1, 2), (-1, 2))):
            out[:, first::5] = torch.roll(y[:, first::5], step, axis)
        return x + self.last(F.gelu(out))


class ShiftVitBlock(nn.Module):
    """A third of the channels moves by one element, in four groups."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp = Mixing(channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        g = x.shape[1] // 12
        out = torch.zeros_like(x)
        out[:, :g, :, :-1] = x[:, :g, :, 1:]
        out[:, g : 2 * g, :, 1:] = x[:, g : 2 * g, :, :-1]
        out[:, 2 * g : 3 * g, :-1] = x[:, 2 * g : 3 * g, 1:]
        out[:, 3 * g : 4 * g, 1:] = x[:, 3 * g : 4 * g, :-1]
        out[:, 4 * g :] = x[:, 4 * g :]
        return self.mlp(out)


class TemporalShiftBlock(nn.Module):
    """TSM in a bottleneck of a ResNet: an eighth of the channels looks ahead, an eighth back."""

    def __init__(self, channels: int, frames: int = 8) -> None:
        super().__init__()
        self.frames = frames
        self.down, self.up = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)
        self.middle = nn.Conv2d(channels // 4, channels // 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        nt, c, h, w = x.shape
        clips, fold = x.view(nt // self.frames, self.frames, c, h, w), c // 8
        out = torch.zeros_like(clips)
        out[:, :-1, :fold] = clips[:, 1:, :fold]
        out[:, 1:, fold : 2 * fold] = clips[:, :-1, fold : 2 * fold]
        out[:, :, 2 * fold :] = clips[:, :, 2 * fold :]
        y = out.view(nt, c, h, w)
        return x + self.up(F.relu(self.middle(F.relu(self.down(y)))))


class AxialShiftBlock(nn.Module):
    """AS-MLP: chunks of the channels move by -2 to 2 along rows, and along columns."""

    def __init__(self, channels: int, kernel: int = 5) -> None:
        super().__init__()
        self.kernel = kernel
        self.norm1, self.norm2 = nn.GroupNorm(1, channels), nn.GroupNorm(1, channels)
        self.enter, self.leave = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.rows, self.columns = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.mlp = Mixing(channels)

    def moved(self, x: Tensor, axis: int) -> Tensor:
        reach, (h, w) = self.kernel // 2, x.shape[2:]
        padded = F.pad(x, (reach,) * 4)
        steps = range(-reach, reach + 1)
        parts = [torch.roll(part, s, axis) for s, part in zip(steps, torch.chunk(padded, self.kernel, 1), strict=True)]
        return torch.cat(parts, 1).narrow(2, reach, h).narrow(3, reach, w)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.norm1(self.enter(x)))
        y = F.gelu(self.rows(self.moved(y, 2))) + F.gelu(self.columns(self.moved(y, 3)))
        return self.mlp(x + self.leave(self.norm2(y)))


class HireBlock(nn.Module):
    """Hire-MLP: the image is rolled across regions, whose rows become channels and are mixed, and all goes back."""

    def __init__(self, channels: int, region: int = 2, step: int = 1) -> None:
        super().__init__()
        self.region, self.step = region, step
        wide, narrow = channels * region, channels // 2
        self.tall = nn.Sequential(nn.Conv2d(wide, narrow, 1), nn.ReLU(), nn.Conv2d(narrow, wide, 1))
        self.broad = nn.Sequential(nn.Conv2d(wide, narrow, 1), nn.ReLU(), nn.Conv2d(narrow, wide, 1))
        self.here = nn.Conv2d(channels, channels, 1)
        self.mlp = Mixing(channels)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        r = self.region
        tall = torch.roll(x, self.step, 2).reshape(b, c, h // r, r, w).permute(0, 1, 3, 2, 4)
        tall = self.tall(tall.reshape(b, c * r, h // r, w)).reshape(b, c, r, h // r, w).permute(0, 1, 3, 2, 4)
        broad = torch.roll(x, self.step, 3).reshape(b, c, h, w // r, r).permute(0, 1, 4, 2, 3)
        broad = self.broad(broad.reshape(b, c * r, h, w // r)).reshape(b, c, r, h, w // r).permute(0, 1, 3, 4, 2)
        tall = torch.roll(tall.reshape(b, c, h, w), -self.step, 2)
        broad = torch.roll(broad.reshape(b, c, h, w), -self.step, 3)
        return self.mlp(x + tall + broad + self.here(x))


FAMILIES: Sequence[Family] = (
    Family("cyclemlp", CycleBlock, (1, 6, 5, 8), (1, 28, 28, 96), 2, channel_axis=3),
    Family("cycle-channels-last", ChannelsLastCycle, (1, 6, 5, 8), (1, 28, 28, 96), 1, channel_axis=3),
    Family("rolling-unet", RollingBlock, (1, 7, 6, 5), (1, 96, 28, 28), 4),
    Family("pixelmixer", PixelMixerBlock, (1, 6, 6, 5), (1, 40, 96, 96), 1),
    Family("pixelmixer-rolled", RolledPixelMixerBlock, (1, 6, 6, 5), (1, 40, 96, 96), 1),
    Family("shiftvit", ShiftVitBlock, (1, 12, 6, 5), (1, 192, 28, 28), 1),
    Family("tsm", TemporalShiftBlock, (8, 16, 4, 5), (8, 256, 14, 14), 1),
    Family("as-mlp", AxialShiftBlock, (1, 10, 6, 7), (1, 95, 56, 56), 2),
    Family("hire-mlp", HireBlock, (1, 8, 6, 4), (1, 128, 28, 28), 4),
)
