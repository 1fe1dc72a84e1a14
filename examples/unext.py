"""A medical U-Net with tokenised shifted MLPs, in the manner of UNeXt (arXiv 2203.04967).

    s2mlp-deploy export examples/unext.py:make --output build/unext

Tokens become an image, which is padded, cut into five chunks of channels, each of which is rolled by another step,
joined, narrowed to what it was and made tokens again: along the height in front of the first layer, along the width in
front of the second. A depthwise convolution lies between. No weights come with it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEPS = 5
"""Chunks of channels, moved by -2 to +2."""


def shift(tokens: Tensor, height: int, width: int, axis: int) -> Tensor:
    """Chunks of the channels of [N, tokens, C] by -2 to 2 along an axis of the image; zeros come in at its border."""
    b, _, c = tokens.shape
    pad = STEPS // 2
    image = tokens.transpose(1, 2).view(b, c, height, width).contiguous()
    image = F.pad(image, (pad, pad, pad, pad), "constant", 0)
    chunks = torch.chunk(image, STEPS, 1)
    image = torch.cat([torch.roll(x, step, axis) for x, step in zip(chunks, range(-pad, pad + 1), strict=True)], 1)
    image = torch.narrow(image, 2, pad, height)
    image = torch.narrow(image, 3, pad, width)
    return image.reshape(b, c, height * width).contiguous().transpose(1, 2)


class TokenConv(nn.Module):
    """A depthwise 3x3 convolution of tokens."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, 1, 1, groups=dim)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """[N, tokens, C] in and out."""
        b, _, c = x.shape
        return self.dwconv(x.transpose(1, 2).view(b, c, height, width)).flatten(2).transpose(1, 2)


class ShiftedMLP(nn.Module):
    """Shift along the height, layer, convolution, shift along the width, layer."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.conv, self.fc2 = nn.Linear(dim, dim), TokenConv(dim), nn.Linear(dim, dim)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """[N, tokens, C] in and out."""
        x = self.fc1(shift(x, height, width, 2))
        x = self.drop(F.gelu(self.conv(x, height, width)))
        return self.drop(self.fc2(shift(x, height, width, 3)))


class ShiftedBlock(nn.Module):
    """A pre-norm residual around a shifted MLP."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(dim), ShiftedMLP(dim)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """[N, tokens, C] in and out."""
        return x + self.mlp(self.norm(x), height, width)


class TokenStage(nn.Module):
    """A convolution, its positions as tokens, a block, a norm, and the image again."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.norm1, self.block, self.norm2 = nn.LayerNorm(outputs), ShiftedBlock(outputs), nn.LayerNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] in, [N, C', H / stride, W / stride] out."""
        x = self.proj(x)
        b, _, height, width = x.shape
        x = self.norm1(x.flatten(2).transpose(1, 2))
        x = self.norm2(self.block(x, height, width))
        return x.reshape(b, height, width, -1).permute(0, 3, 1, 2).contiguous()


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs))


class UNeXt(nn.Module):
    """Three stages of convolutions, two of tokens, and the same way back, with sums across."""

    def __init__(self, dims: tuple[int, ...], classes: int, in_channels: int) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = dims
        self.encoder1, self.encoder2 = convolution(in_channels, c1), convolution(c1, c2)
        self.encoder3 = convolution(c2, c3)
        self.encoder4, self.bottleneck = TokenStage(c3, c4, 2), TokenStage(c4, c5, 2)
        self.decoder5, self.decoder4 = TokenStage(c5, c4, 1), TokenStage(c4, c3, 1)
        self.decoder3, self.decoder2 = convolution(c3, c2), convolution(c2, c1)
        self.decoder1 = convolution(c1, c1)
        self.final = nn.Conv2d(c1, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """[N, channels, H, W] to logits of the same height and width."""
        skips = []
        x = image
        for encoder in (self.encoder1, self.encoder2, self.encoder3):
            x = F.relu(F.max_pool2d(encoder(x), 2, 2))
            skips.append(x)
        skips.append(self.encoder4(x))
        x = self.bottleneck(skips[-1])
        for decoder in (self.decoder5, self.decoder4, self.decoder3, self.decoder2):
            x = F.relu(F.interpolate(decoder(x), scale_factor=(2, 2), mode="bilinear"))
            x = torch.add(x, skips.pop())
        x = F.relu(F.interpolate(self.decoder1(x), scale_factor=(2, 2), mode="bilinear"))
        return self.final(x)


def make(
    *, dims: tuple[int, ...] = (8, 16, 32, 64, 128), classes: int = 1, in_channels: int = 3, size: int = 256
) -> tuple[nn.Module, Tensor]:
    """The factory. The defaults are the widths of the paper's small network."""
    return UNeXt(tuple(dims), classes, in_channels).eval(), torch.randn(1, in_channels, size, size)
