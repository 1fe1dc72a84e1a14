"""Attention in cyclically shifted windows, in the manner of Swin (arXiv 2103.14030) as a detector's backbone has it.

    s2mlp-deploy export examples/shifted_windows.py:make --output build/windows

Every second block rolls the image, cuts it into windows, attends within each, puts them together and rolls back; a mask
keeps apart what the roll brought together. The mask is made in forward from the height and width, which are padded to
whole windows. The rolls are shifts with a circular border; cutting and joining are movements that are none.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def window_partition(x: Tensor, size: int) -> Tensor:
    """[N, H, W, C] to [N x windows, size, size, C]."""
    b, h, w, c = x.shape
    x = x.view(b, h // size, size, w // size, size, c)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, size, size, c)


def window_reverse(windows: Tensor, size: int, h: int, w: int) -> Tensor:
    """[N x windows, size, size, C] to [N, H, W, C], the batch counted from the windows."""
    b = int(windows.shape[0] / (h * w / size / size))
    x = windows.view(b, h // size, w // size, size, size, -1)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(b, h, w, -1)


def attention_mask(h: int, w: int, size: int, step: int, like: Tensor) -> Tensor:
    """0 between positions of a window that lay together, -100 between others; [windows, size², size²]."""
    regions = torch.zeros((1, h, w, 1), device=like.device)
    count = 0
    for rows in (slice(0, -size), slice(-size, -step), slice(-step, None)):
        for columns in (slice(0, -size), slice(-size, -step), slice(-step, None)):
            regions[:, rows, columns, :] = count
            count += 1
    flat = window_partition(regions, size).view(-1, size * size)
    mask = flat.unsqueeze(1) - flat.unsqueeze(2)
    return mask.masked_fill(mask != 0, -100.0).masked_fill(mask == 0, 0.0)


class WindowAttention(nn.Module):
    """Attention within windows, with a learned bias for every relative position."""

    def __init__(self, dim: int, size: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * size - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        grid = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")).flatten(1)
        relative = (grid[:, :, None] - grid[:, None, :]).permute(1, 2, 0) + size - 1
        self.register_buffer("relative_position_index", relative[..., 0] * (2 * size - 1) + relative[..., 1])
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[N x windows, size², C] in and out."""
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        attn = (q * self.scale) @ k.transpose(-2, -1)
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)].view(n, n, -1)
        attn = attn + bias.permute(2, 0, 1).contiguous().unsqueeze(0)
        if mask is not None:
            windows = mask.shape[0]
            attn = attn.view(b // windows, windows, self.heads, n, n) + mask.unsqueeze(1).unsqueeze(0)
            attn = attn.view(-1, self.heads, n, n)
        return self.proj((attn.softmax(-1) @ v).transpose(1, 2).reshape(b, n, c))


class SwinBlock(nn.Module):
    """Attention in windows and an MLP, each behind a norm and with a way around (NHWC)."""

    def __init__(self, dim: int, size: int, step: int, heads: int) -> None:
        super().__init__()
        self.size, self.step = size, step
        self.norm1, self.attn = nn.LayerNorm(dim), WindowAttention(dim, size, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """NHWC in and out."""
        _, h, w, c = x.shape
        shortcut, x = x, self.norm1(x)
        x = F.pad(x, (0, 0, 0, -w % self.size, 0, -h % self.size))
        _, high, wide, _ = x.shape
        if self.step > 0:
            x = torch.roll(x, shifts=(-self.step, -self.step), dims=(1, 2))
        windows = window_partition(x, self.size).view(-1, self.size * self.size, c)
        windows = self.attn(windows, mask if self.step > 0 else None).view(-1, self.size, self.size, c)
        x = window_reverse(windows, self.size, high, wide)
        if self.step > 0:
            x = torch.roll(x, shifts=(self.step, self.step), dims=(1, 2))
        x = shortcut + x[:, :h, :w, :].contiguous()
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """Four neighbours become one position (NHWC)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, H, W, C] to [N, H / 2, W / 2, 2 C]."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        parts = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        return self.reduction(self.norm(torch.cat(parts, -1)))


class Windows(nn.Module):
    """Patches, stages of blocks in pairs, one map for each stage."""

    def __init__(self, dim: int, depths: tuple[int, ...], size: int) -> None:
        super().__init__()
        self.size, self.step = size, size // 2
        self.patch_embed = nn.Conv2d(3, dim, 4, 4)
        widths = [dim * 2**i for i in range(len(depths))]
        self.layers = nn.ModuleList(
            nn.ModuleList(SwinBlock(wide, size, self.step * (i % 2), wide // 16) for i in range(depth))
            for wide, depth in zip(widths, depths, strict=True)
        )
        self.downsamples = nn.ModuleList(PatchMerging(wide) for wide in widths[:-1])
        self.norms = nn.ModuleList(nn.LayerNorm(wide) for wide in widths)

    def forward(self, image: Tensor) -> list[Tensor]:
        """[N, 3, H, W] to a map for each stage, NCHW."""
        x = self.patch_embed(image).permute(0, 2, 3, 1)
        outputs = []
        for i, (blocks, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            if i:
                x = self.downsamples[i - 1](x)
            _, h, w, _ = x.shape
            high, wide = h + -h % self.size, w + -w % self.size
            mask = attention_mask(high, wide, self.size, self.step, x)
            for block in blocks:
                x = block(x, mask)
            outputs.append(norm(x).permute(0, 3, 1, 2))
        return outputs


def make(
    *, dim: int = 48, depths: tuple[int, ...] = (2, 2), window: int = 7, size: int = 224
) -> tuple[nn.Module, Tensor]:
    """The factory."""
    return Windows(dim, tuple(depths), window).eval(), torch.randn(1, 3, size, size)
