"""Sequences of tokens: shifts at rank 3, and mixing without one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wild_modules.registry import wild


@wild("gMLP", (1, 36, 16), shifts=0)
class SpatialGating(nn.Module):
    """A spatial gating unit over 36 tokens."""

    def __init__(self, dim: int = 16, tokens: int = 36) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.norm, self.spatial = nn.LayerNorm(dim), nn.Conv1d(tokens, tokens, 1)

    def forward(self, x: Tensor) -> Tensor:
        u, v = F.gelu(self.enter(x)).chunk(2, dim=-1)
        return x + self.leave(u * self.spatial(self.norm(v)))


@wild("RWKV", (2, 24, 16), shifts=1)
class TimeMix(nn.Module):
    """Every token mixed with the one before it, by a padding that crops at the other end."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.shift = nn.ZeroPad2d((0, 0, 1, -1))
        self.mix = nn.Parameter(torch.rand(1, 1, dim))
        self.key, self.value = nn.Linear(dim, 2 * dim, bias=False), nn.Linear(2 * dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mixed = x * self.mix + self.shift(x) * (1 - self.mix)
        return self.value(torch.square(torch.relu(self.key(mixed))))


@wild("Vision-RWKV", (2, 64, 16), shifts=1)
class QuadShift(nn.Module):
    """Tokens folded to an image, a quarter of the channels to each side, and unfolded again."""

    def __init__(self, dim: int = 16, side: int = 8) -> None:
        super().__init__()
        self.side, self.mix = side, nn.Parameter(torch.rand(1, 1, dim))
        self.key = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, _, c = x.shape
        h = w = self.side
        y = x.transpose(1, 2).reshape(b, c, h, w)
        out = torch.zeros_like(y)
        q = c // 4
        out[:, 0:q, :, 1:w] = y[:, 0:q, :, 0 : w - 1]
        out[:, q : 2 * q, :, 0 : w - 1] = y[:, q : 2 * q, :, 1:w]
        out[:, 2 * q : 3 * q, 1:h, :] = y[:, 2 * q : 3 * q, 0 : h - 1, :]
        out[:, 3 * q :, 0 : h - 1, :] = y[:, 3 * q :, 1:h, :]
        moved = out.flatten(2).transpose(1, 2)
        return self.key(x + (moved - x) * self.mix)


@wild("Transformer-XL", (1, 2, 12, 16), shifts=0)
class RelativeShift(nn.Module):
    """Scores by relative distance, skewed by a column of zeros and a view of other rows: no grouped shift."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.project(x)
        b, heads, q, k = scores.shape
        skewed = torch.cat((scores.new_zeros(b, heads, q, 1), scores), -1).view(b, heads, k + 1, q)
        return skewed[:, :, 1:].view(b, heads, q, k).softmax(-1) @ x


@wild("Mamba scan", (1, 16, 10, 14), shifts=0, free=[(2, 16, 12, 9)])
class CrossScan(nn.Module):
    """Four orders of the tokens, forwards and backwards, rows and columns, merged again."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.mix = nn.Conv1d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        n = h * w
        orders = torch.stack([x.flatten(2), x.transpose(2, 3).flatten(2)], 1)
        orders = torch.cat([orders, orders.flip(-1)], 1)
        y = F.silu(self.mix(orders.view(4 * b, c, n))).view(b, 4, c, n)
        y = y[:, :2] + y[:, 2:].flip(-1)
        return y[:, 0].view(b, c, h, w) + y[:, 1].view(b, c, w, h).transpose(2, 3)


@wild("Causal convolution", (2, 16, 30), shifts=1)
class CausalTaps(nn.Module):
    """A causal tap of two steps before a gated pointwise layer: (N, C, T)."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.now, self.then = nn.Conv1d(dim, dim, 1), nn.Conv1d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        earlier = F.pad(x, (2, 0))[..., : x.size(-1)]
        return torch.sigmoid(self.now(x)) * self.then(earlier)


@wild("Hydra of rolls", (2, 40, 12), shifts=1)
class DilatedRolls(nn.Module):
    """Heads looking one, two, four and eight tokens back, circular, as a stack over heads."""

    def __init__(self, dim: int = 12, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.out = heads, nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        heads = x.view(b, n, self.heads, c // self.heads).unbind(2)
        return self.out(torch.stack([torch.roll(head, 2**i, 1) for i, head in enumerate(heads)], 2).view(b, n, c))


@wild("Class token", (2, 3, 32, 32), shifts=0)
class ClassTokenViT(nn.Module):
    """Patches, a class token, positions interpolated at run time, one attention, a head."""

    def __init__(self, dim: int = 24) -> None:
        super().__init__()
        self.patch, self.cls = nn.Conv2d(3, dim, 8, 8), nn.Parameter(torch.randn(1, 1, dim))
        self.position = nn.Parameter(torch.randn(1, dim, 3, 3))
        self.block = nn.TransformerEncoderLayer(dim, 3, 2 * dim, activation="gelu", batch_first=True, norm_first=True)
        self.head = nn.Linear(dim, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x)
        x = x + F.interpolate(self.position, size=x.shape[-2:], mode="bilinear", align_corners=False)
        x = torch.cat((self.cls.expand(x.shape[0], -1, -1), x.flatten(2).mT), 1)
        return self.head(self.block(x)[:, 0])
