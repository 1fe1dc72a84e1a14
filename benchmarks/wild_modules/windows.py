"""Attention in windows: partition and reverse, rolled windows, neighbourhoods."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wild_modules.registry import wild


def partition(x: Tensor, size: int) -> Tensor:
    """Windows of a channels-last image: [N·windows, size·size, C]."""
    b, h, w, c = x.shape
    x = x.view(b, h // size, size, w // size, size, c)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, size * size, c)


def reverse(windows: Tensor, size: int, h: int, w: int) -> Tensor:
    """The image again, its batch counted from the windows."""
    b = int(windows.shape[0] / (h * w / size / size))
    x = windows.view(b, h // size, w // size, size, size, -1)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(b, h, w, -1)


def shifted_mask(h: int, w: int, size: int, step: int) -> Tensor:
    """0 between tokens of one region of the rolled image, -100 between those of two."""
    regions = torch.zeros(1, h, w, 1)
    count = 0
    for rows in (slice(0, -size), slice(-size, -step), slice(-step, None)):
        for columns in (slice(0, -size), slice(-size, -step), slice(-step, None)):
            regions[:, rows, columns, :] = count
            count += 1
    flat = partition(regions, size).squeeze(-1)
    mask = flat.unsqueeze(1) - flat.unsqueeze(2)
    return mask.masked_fill(mask != 0, -100.0).masked_fill(mask == 0, 0.0)


class WindowAttention(nn.Module):
    """Attention with a bias by relative position, of [N·windows, tokens, C]."""

    def __init__(self, dim: int, size: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.table = nn.Parameter(torch.randn((2 * size - 1) ** 2, heads) * 0.1)
        grid = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")).flatten(1)
        relative = (grid[:, :, None] - grid[:, None, :]).permute(1, 2, 0) + size - 1
        self.register_buffer("index", relative[..., 0] * (2 * size - 1) + relative[..., 1])
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q * self.scale) @ k.transpose(-2, -1)
        scores = scores + self.table[self.index.view(-1)].view(n, n, -1).permute(2, 0, 1).contiguous().unsqueeze(0)
        if mask is not None:
            windows = mask.shape[0]
            scores = scores.view(b // windows, windows, self.heads, n, n) + mask.unsqueeze(1).unsqueeze(0)
            scores = scores.view(-1, self.heads, n, n)
        return self.out((scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(b, n, c))


@wild("Swin", (2, 16, 16, 16), shifts=2)
class SwinBlock(nn.Module):
    """Rolled windows with a mask kept as a buffer; tokens are (N, H, W, C)."""

    def __init__(self, dim: int = 16, side: int = 16, size: int = 4) -> None:
        super().__init__()
        self.size, self.step = size, size // 2
        self.attention, self.norm = WindowAttention(dim, size, 2), nn.LayerNorm(dim)
        self.register_buffer("mask", shifted_mask(side, side, size, self.step))

    def forward(self, x: Tensor) -> Tensor:
        _, h, w, _ = x.shape
        y = torch.roll(self.norm(x), shifts=(-self.step, -self.step), dims=(1, 2))
        y = reverse(self.attention(partition(y, self.size), self.mask), self.size, h, w)
        return x + torch.roll(y, shifts=(self.step, self.step), dims=(1, 2))


@wild("Swin for detection", (1, 16, 19, 26), shifts=2, free=[(2, 16, 32, 24), (1, 16, 21, 17)])
class SwinAnySize(nn.Module):
    """Pads to whole windows and makes the mask in forward, as detectors do; tokens are (N, C, H, W)."""

    def __init__(self, dim: int = 16, size: int = 4) -> None:
        super().__init__()
        self.size, self.step = size, size // 2
        self.attention, self.norm = WindowAttention(dim, size, 2), nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x.permute(0, 2, 3, 1))
        _, h, w, _ = y.shape
        right, bottom = (self.size - w % self.size) % self.size, (self.size - h % self.size) % self.size
        y = F.pad(y, (0, 0, 0, right, 0, bottom))
        hp, wp = y.shape[1:3]
        mask = shifted_mask(hp, wp, self.size, self.step).to(y)
        y = torch.roll(y, (-self.step, -self.step), (1, 2))
        y = reverse(self.attention(partition(y, self.size), mask), self.size, hp, wp)
        y = torch.roll(y, (self.step, self.step), (1, 2))[:, :h, :w].contiguous()
        return x + y.permute(0, 3, 1, 2)


@wild("Swin V2", (1, 16, 24, 24), shifts=2)
class CosineWindows(nn.Module):
    """Cosine attention with a clamped temperature in windows rolled through a partition by unfold."""

    def __init__(self, dim: int = 16, size: int = 8) -> None:
        super().__init__()
        self.size = size
        self.qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.temperature = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        s = self.size
        y = torch.roll(self.qkv(x), (-s // 2, -s // 2), dims=(2, 3))
        cells = F.unfold(y, s, stride=s).view(b, 3, c, s * s, -1).permute(1, 0, 4, 3, 2)
        q, k, v = F.normalize(cells[0], dim=-1), F.normalize(cells[1], dim=-1), cells[2]
        scores = q @ k.transpose(-2, -1) * self.temperature.clamp(max=4.6).exp()
        y = (scores.softmax(-1) @ v).permute(0, 3, 2, 1).reshape(b, c * s * s, -1)
        return x + torch.roll(F.fold(y, (h, w), s, stride=s), (s // 2, s // 2), (2, 3))


@wild("Video Swin", (1, 4, 8, 8, 12), shifts=2)
class ClipWindows(nn.Module):
    """Windows over time, height and width: a roll of three axes at rank 5, views of rank 8."""

    def __init__(self, dim: int = 12, window: tuple[int, int, int] = (2, 4, 4)) -> None:
        super().__init__()
        self.window, self.step = window, tuple(side // 2 for side in window)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, d, h, w, c = x.shape
        t, r, s = self.window
        y = torch.roll(x, shifts=tuple(-step for step in self.step), dims=(1, 2, 3))
        y = y.view(b, d // t, t, h // r, r, w // s, s, c).permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, t * r * s, c)
        q, k, v = self.qkv(y).chunk(3, -1)
        y = self.out(F.scaled_dot_product_attention(q, k, v))
        y = y.view(b, d // t, h // r, w // s, t, r, s, c).permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(b, d, h, w, c)
        return x + torch.roll(y, shifts=self.step, dims=(1, 2, 3))


@wild("Neighbourhood attention", (1, 16, 20, 20), shifts=0, free=[(2, 16, 16, 28)])
class Neighbourhood(nn.Module):
    """Each pixel attends to its 3 × 3 neighbours, read by unfold."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.q, self.kv = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, 2 * dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q = self.q(x).view(b, c, 1, h * w)
        k, v = (F.unfold(part, 3, padding=1).view(b, c, 9, h * w) for part in self.kv(x).chunk(2, 1))
        weight = ((q * k).sum(1, keepdim=True) * c**-0.5).softmax(2)
        return x + (weight * v).sum(2).view(b, c, h, w)


@wild("HaloNet", (1, 12, 16, 16), shifts=0)
class HaloAttention(nn.Module):
    """Blocks of queries, keys from the blocks with a halo, by Tensor.unfold of a padded tensor."""

    def __init__(self, dim: int = 12, block: int = 4, halo: int = 1) -> None:
        super().__init__()
        self.block, self.halo = block, halo
        self.q, self.kv = nn.Conv2d(dim, dim, 1, bias=False), nn.Conv2d(dim, 2 * dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        s, o = self.block, self.halo
        q = self.q(x).view(n, c, h // s, s, w // s, s).permute(0, 2, 4, 3, 5, 1).reshape(n, -1, s * s, c)
        kv = F.pad(self.kv(x), (o, o, o, o)).unfold(2, s + 2 * o, s).unfold(3, s + 2 * o, s)
        k, v = kv.permute(0, 2, 3, 4, 5, 1).reshape(n, (h // s) * (w // s), -1, 2 * c).chunk(2, dim=-1)
        y = ((q @ k.transpose(2, 3)) * c**-0.5).softmax(-1) @ v
        return y.view(n, h // s, w // s, s, s, c).permute(0, 5, 1, 3, 2, 4).reshape(n, c, h, w)


@wild("MaxViT grid", (2, 16, 16, 16), shifts=0)
class GridAttention(nn.Module):
    """Tokens of a dilated grid attend to each other; tokens are (N, H, W, C)."""

    def __init__(self, dim: int = 16, grid: int = 4) -> None:
        super().__init__()
        self.grid, self.attention = grid, nn.MultiheadAttention(dim, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        g = self.grid
        y = x.view(b, g, h // g, g, w // g, c).permute(0, 2, 4, 1, 3, 5).reshape(-1, g * g, c)
        y, _ = self.attention(y, y, y, need_weights=False)
        return x + y.view(b, h // g, w // g, g, g, c).permute(0, 3, 1, 4, 2, 5).reshape(b, h, w, c)


@wild("Shuffle transformer", (1, 16, 16, 16), shifts=0)
class SpatialShuffle(nn.Module):
    """Windows over far tokens, and an inverse shuffle behind; no attention, a mixing layer."""

    def __init__(self, size: int = 4) -> None:
        super().__init__()
        self.size, self.mix = size, nn.Linear(size * size, size * size)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        s = self.size
        y = x.view(b, c, s, h // s, s, w // s).permute(0, 1, 3, 5, 2, 4).flatten(4)
        y = self.mix(y).unflatten(4, (s, s)).permute(0, 1, 4, 2, 5, 3)
        return x + y.reshape(b, c, h, w)


@wild("CSWin", (1, 16, 16, 16), shifts=0)
class CrossStripes(nn.Module):
    """Half of the channels attends in rows, half in columns, with a positional depthwise convolution."""

    def __init__(self, dim: int = 16, stripe: int = 2) -> None:
        super().__init__()
        self.stripe = stripe
        self.qkv, self.lepe = nn.Conv2d(dim, 3 * dim, 1), nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def stripes(self, x: Tensor, h: int, w: int) -> Tensor:
        b, c, height, width = x.shape
        x = x.view(b, c, height // h, h, width // w, w)
        return x.permute(0, 2, 4, 3, 5, 1).reshape(-1, h * w, c)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        out = []
        for i, part in enumerate(self.qkv(x).view(b, 3, 2, c // 2, h, w).unbind(2)):
            sh, sw = (h, self.stripe) if i else (self.stripe, w)
            q, k, v = (self.stripes(one, sh, sw) for one in part.unbind(1))
            y = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
            y = y.view(b, h // sh, w // sw, sh, sw, c // 2).permute(0, 5, 1, 3, 2, 4)
            out.append(y.reshape(b, c // 2, h, w))
        return torch.cat(out, 1) + self.lepe(x)


@wild("S2-Attn (LongLoRA)", (1, 32, 24), shifts=2)
class ShiftedSparseAttention(nn.Module):
    """Half of the heads sees groups of tokens rolled by half a group, and is rolled back."""

    def __init__(self, dim: int = 24, heads: int = 4, group: int = 8) -> None:
        super().__init__()
        self.heads, self.group = heads, group
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        half = self.heads // 2
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads)
        qkv = torch.cat((qkv[:, :, :, :half], qkv[:, :, :, half:].roll(-self.group // 2, dims=1)), 3)
        q, k, v = qkv.reshape(b * n // self.group, self.group, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, self.heads, -1)
        y[:, :, half:] = y[:, :, half:].roll(self.group // 2, dims=1)
        return self.out(y.reshape(b, n, c))
