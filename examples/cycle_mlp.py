"""CycleMLP (arXiv 2107.10224): fully connected layers whose channels read along a cycle of positions.

    pip install torchvision
    s2mlp-deploy export examples/cycle_mlp.py:make --output build/cycle_mlp

The layer is a 1x1 deformable convolution whose offsets are constant and whole: channel i reads (i + 1) % 3 - 1
positions ahead. Such a convolution is a shift and an ordinary 1x1 convolution, and that is what is exported: ONNX has
DeformConv from opset 19 on only, TensorRT-RTX has none. No weights come with it.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torchvision.ops.deform_conv import deform_conv2d


class CycleFC(nn.Module):
    """A fully connected layer over channels, each read at another position of the cycle."""

    def __init__(self, channels: int, outputs: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.empty(outputs, channels, 1, 1))
        self.bias = nn.Parameter(torch.empty(outputs))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        nn.init.uniform_(self.bias, -1 / math.sqrt(channels), 1 / math.sqrt(channels))
        self.register_buffer("offset", self.offsets(channels))

    def offsets(self, channels: int) -> Tensor:
        """Rows and columns that each channel reads ahead by, in turns, [1, 2 x channels, 1, 1]."""
        offset = torch.empty(1, 2 * channels, 1, 1)
        start = self.kernel[0] * self.kernel[1] // 2
        high, wide = self.kernel
        for i in range(channels):
            offset[0, 2 * i, 0, 0] = 0 if high == 1 else (i + start) % high - high // 2
            offset[0, 2 * i + 1, 0, 0] = 0 if wide == 1 else (i + start) % wide - wide // 2
        return offset

    def forward(self, x: Tensor) -> Tensor:
        """NCHW in and out."""
        b, _, h, w = x.shape
        return deform_conv2d(x, self.offset.expand(b, -1, h, w), self.weight, self.bias)


class CycleMixer(nn.Module):
    """Along the width, along the height, at the place; weighed by what all three hold (NHWC)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp_c = nn.Linear(dim, dim, bias=False)
        self.sfc_h, self.sfc_w = CycleFC(dim, dim, (1, 3)), CycleFC(dim, dim, (3, 1))
        self.reweight = nn.Sequential(nn.Linear(dim, dim // 4), nn.GELU(), nn.Linear(dim // 4, 3 * dim))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """NHWC in and out."""
        b, _, _, dim = x.shape
        h = self.sfc_h(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        w = self.sfc_w(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        c = self.mlp_c(x)
        a = (h + w + c).permute(0, 3, 1, 2).flatten(2).mean(2)
        a = self.reweight(a).reshape(b, dim, 3).permute(2, 0, 1).softmax(0).unsqueeze(2).unsqueeze(2)
        return self.proj(h * a[0] + w * a[1] + c * a[2])


class Block(nn.Module):
    """A mixer and an MLP, each behind a norm and with a way around (NHWC)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim), CycleMixer(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """NHWC in and out."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class CycleMLP(nn.Module):
    """An overlapping patch embedding, stages of blocks with convolutions between them, a head."""

    def __init__(self, dims: tuple[int, ...], depths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dims[0], 7, 4, 2)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(dim) for _ in range(depth))) for dim, depth in zip(dims, depths, strict=True)
        )
        self.downsamples = nn.ModuleList(nn.Conv2d(i, o, 3, 2, 1) for i, o in itertools.pairwise(dims))
        self.norm, self.head = nn.LayerNorm(dims[-1]), nn.Linear(dims[-1], classes)

    def forward(self, image: Tensor) -> Tensor:
        """[N, 3, H, W] to logits [N, classes]."""
        x = self.patch_embed(image).permute(0, 2, 3, 1)
        for index, stage in enumerate(self.stages):
            if index:
                x = self.downsamples[index - 1](x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            x = stage(x)
        return self.head(self.norm(x).flatten(1, 2).mean(1))


def make(
    *, dims: tuple[int, ...] = (64, 128), depths: tuple[int, ...] = (2, 2), classes: int = 1000, size: int = 128
) -> tuple[nn.Module, Tensor]:
    """The factory. The paper's networks have four stages, the smallest with widths 64 to 512 and ten blocks."""
    return CycleMLP(tuple(dims), tuple(depths), classes).eval(), torch.randn(1, 3, size, size)
