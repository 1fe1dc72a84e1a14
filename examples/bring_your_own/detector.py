"""A small anchor-free detector with an S2Attention pasted into its neck, shifts written in place as usual.

s2mlp-deploy inspect detector.py:make
s2mlp-deploy export detector.py:make --output build/detector
"""

from __future__ import annotations

import torch
from s2attention import S2Attention
from torch import Tensor, nn


def convolution(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.SiLU(inplace=True)
    )


def shuffle(x: Tensor) -> Tensor:
    """Puts the channels of two halves in turns: data movement that is no shift, and stays as written."""
    return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


class Detector(nn.Module):
    """Two scales; at each, per position: class scores, a box as distances to its sides, and how sure it is."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.stem = convolution(3, width, 4)
        self.down = convolution(width, 2 * width, 2)
        self.attention = S2Attention(2 * width)
        self.reduce = nn.Conv2d(2 * width, width, 1)
        self.merge = nn.Conv2d(2 * width, width, 3, padding=1)
        self.drop = nn.Dropout2d(0.1)
        self.fine = nn.Conv2d(width, classes + 5, 1)
        self.coarse = nn.Conv2d(2 * width, classes + 5, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """[N, 3, H, W] to maps of [N, classes + 5, H / 4, W / 4] and [N, classes + 5, H / 8, W / 8]."""
        high = self.stem(image)
        low = self.down(high)
        low = low + self.attention(low)
        up = nn.functional.interpolate(self.reduce(low), size=high.shape[2:])
        high = self.merge(shuffle(torch.cat([high, up], 1)))
        return {"fine": self.fine(self.drop(high)), "coarse": self.coarse(self.drop(low))}


def make(*, width: int = 16, classes: int = 3, size: int = 64) -> tuple[nn.Module, Tensor]:
    """The factory: a module and its example input. ``--set width=32`` reaches the keyword argument."""
    return Detector(width, classes), torch.rand(1, 3, size, size)
