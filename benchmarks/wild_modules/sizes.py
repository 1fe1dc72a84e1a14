"""Code whose numbers or branches depend on batch and size, and arithmetic that exporters get wrong."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wild_modules.registry import wild


@wild("half roll", (1, 8, 24, 32), shifts=1, free=[(1, 8, 32, 20), (2, 8, 25, 33)])
class CentreSpectrum(nn.Module):
    """fftshift of both axes: a step of half the size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return torch.roll(y, (y.shape[-2] // 2, y.shape[-1] // 2), (-2, -1))


@wild("a step by size", (1, 12, 32, 32), shifts=1, free=[(1, 12, 64, 48), (1, 12, 100, 31)])
class ScaledStep(nn.Module):
    """The step grows with the image: a sixteenth of it, at least one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(12, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        step = max(1, x.shape[2] // 16)
        y = self.conv(x)
        a, b = y.chunk(2, 1)
        h = y.shape[2]
        return torch.cat((F.pad(a, (0, 0, step, 0))[:, :, :h], F.pad(b, (0, 0, 0, step))[:, :, step:]), 1)


@wild("a branch at a size", (1, 6, 24, 24), shifts=1, free=[(1, 6, 33, 24), (1, 6, 48, 16)])
class LargeImages(nn.Module):
    """Large images are moved further."""

    def forward(self, x: Tensor) -> Tensor:
        by = 3 if x.shape[2] > 32 else 1
        return torch.cat((x[:, :3].roll(by, 2), x[:, 3:].roll(-by, 3)), 1) * 2


@wild("a branch at a batch of one", (1, 6, 16, 16), shifts=1)
class SingleImage(nn.Module):
    """One image alone is normalised otherwise than a batch."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3), keepdim=True) if x.shape[0] == 1 else x.mean(0, keepdim=True)
        y = x - mean
        return torch.cat((F.pad(y[:, :3], (1, 0))[..., :-1], y[:, 3:]), 1)


@wild("pairs in the batch", (2, 8, 16, 16), shifts=1)
class Siamese(nn.Module):
    """The first half of the batch against the second, moved: views and references."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.conv(x).chunk(2, dim=0)
        two = torch.cat((two[:, :4].roll(1, 2), two[:, 4:].roll(1, 3)), 1)
        return F.cosine_similarity(one, two, dim=1)


@wild("a roll along the batch", (4, 6, 12, 12), shifts=None)
class BatchRoll(nn.Module):
    """Mixing of neighbours in the batch, as contrastive code does it."""

    def forward(self, x: Tensor) -> Tensor:
        other = torch.roll(x, 1, 0)
        return 0.7 * x + 0.3 * other


@wild("loop over the batch", (3, 4, 12, 12), shifts=0)
class PerSample(nn.Module):
    """A Python loop over the samples, each through a layer of its own mean."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.head(x[i].mean((1, 2))) for i in range(x.shape[0])])


@wild("epsilons", (2, 8, 12, 12), shifts=0)
class Epsilons(nn.Module):
    """Sums divided by themselves plus a little: 1e-9, 1e-12 and the smallest of float32."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(x)
        one = y / (y.sum(1, keepdim=True) + 1e-9)
        two = y * torch.rsqrt(y.square().mean((2, 3), keepdim=True) + 1e-12)
        three = y / y.amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        return torch.cat((one, two, three), 1)


@wild("coordinates", (1, 3, 20, 28), shifts=0, free=[(2, 3, 31, 17), (1, 3, 64, 64)])
class Coordinates(nn.Module):
    """CoordConv: positions from -1 to 1 made of the size at hand, and a division by it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(5, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        y = torch.linspace(-1, 1, h).view(1, 1, h, 1).expand(n, 1, h, w)
        z = (torch.arange(w) / (w - 1) * 2 - 1).view(1, 1, 1, w).expand(n, 1, h, w)
        return self.conv(torch.cat((x, y, z), 1)) / math.sqrt(h * w)


@wild("causal mask", (1, 14, 16), shifts=0)
class Causal(nn.Module):
    """A mask of minus infinity made of the size at hand, and a window of three on top."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 48)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        q, k, v = self.qkv(x).split(16, -1)
        mask = torch.full((n, n), float("-inf")).triu(1) + torch.full((n, n), float("-inf")).tril(-4)
        return torch.softmax(q @ k.mT / 4 + mask, -1) @ v


@wild("pyramid", (1, 3, 48, 48), shifts=1, free=[(1, 3, 50, 62)])
class Pyramid(nn.Module):
    """Three scales, resized to the first, the middle one shifted; sizes that do not divide."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 6, 3, stride, 1) for stride in (1, 2, 4))
        self.head = nn.Conv2d(18, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        one, two, four = (F.relu(conv(x)) for conv in self.convs)
        two = torch.cat((F.pad(two[:, :3], (0, 1))[..., 1:], F.pad(two[:, 3:], (1, 0))[..., :-1]), 1)
        size = one.shape[-2:]
        two, four = (F.interpolate(part, size=size, mode="nearest") for part in (two, four))
        return self.head(torch.cat((one, two, four), 1))


@wild("Focus and wavelets", (1, 3, 32, 32), shifts=0, free=[(2, 3, 24, 52)])
class Focus(nn.Module):
    """Four phases of the pixels side by side, their Haar sums, and a channel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(12, 12, 1, groups=3)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d = x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]
        y = self.conv(torch.cat((a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d), 1) / 2)
        n, _, h, w = y.shape
        return y.view(n, 3, 4, h, w).transpose(1, 2).reshape(n, 12, h, w)


@wild("two inputs", (2, 8, 16, 16), (2, 8, 16, 16), shifts=3)
class Correlation(nn.Module):
    """A cost volume along the width: the second image, moved by each disparity, times the first."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        volume = []
        for d in range(4):
            moved = F.pad(y, (d, 0))[..., : y.shape[-1]]
            volume.append((x * moved).mean(1))
        return torch.stack(volume, 1)


@wild("float16 inside", (2, 6, 16, 16), shifts=1)
class HalfInside(nn.Module):
    """A cast to half precision around the movement, as mixed-precision code leaves behind."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).half()
        y = torch.cat((y[:, :3].roll(2, 3), y[:, 3:].roll(-2, 3)), 1)
        return y.float().square().mean((2, 3)).sqrt()


@wild("padded circularly", (1, 6, 20, 20), shifts=0, free=[(1, 6, 12, 30)])
class Wrapped(nn.Module):
    """A convolution on a circular border: padding, no shift."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1, padding_mode="circular")

    def forward(self, x: Tensor) -> Tensor:
        return F.hardswish(self.conv(x))
