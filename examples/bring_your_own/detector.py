"""A small anchor-free detector whose neck, a feature pyramid and the way back down, has an S2Attention pasted in.

s2mlp-deploy inspect detector.py:make
s2mlp-deploy export detector.py:make --output build/detector
"""

from __future__ import annotations

import torch
from s2attention import S2Attention
from torch import Tensor, nn


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.SiLU(inplace=True)
    )


def shuffle(x: Tensor) -> Tensor:
    """Puts the channels of two halves in turns: data movement that is no shift, and stays as written."""
    return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


def enlarge(x: Tensor, like: Tensor) -> Tensor:
    return nn.functional.interpolate(x, size=like.shape[2:])


class Neck(nn.Module):
    """Down the pyramid and up again (FPN and PAN); the coarsest level, which sees most, mixes its positions first."""

    def __init__(self, inputs: list[int], channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(count, channels, 1) for count in inputs)
        self.attention = S2Attention(channels)
        self.merge_middle = convolution(2 * channels, channels)
        self.merge_fine = convolution(2 * channels, channels)
        self.down_fine = convolution(channels, channels, 2)
        self.down_middle = convolution(channels, channels, 2)

    def forward(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Three maps in and out, each half as high and wide as the one before."""
        fine, middle, coarse = (to(x) for to, x in zip(self.lateral, (fine, middle, coarse), strict=True))
        coarse = coarse + self.attention(coarse)
        middle = self.merge_middle(shuffle(torch.cat([middle, enlarge(coarse, middle)], 1)))
        fine = self.merge_fine(torch.cat([fine, enlarge(middle, fine)], 1))
        middle = middle + self.down_fine(fine)
        coarse = coarse + self.down_middle(middle)
        return fine, middle, coarse


class Detector(nn.Module):
    """Three scales; at each, per position: class scores, a box as distances to its sides, and how sure it is."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.stem = convolution(3, width, 4)
        self.middle = convolution(width, 2 * width, 2)
        self.coarse = convolution(2 * width, 4 * width, 2)
        self.neck = Neck([width, 2 * width, 4 * width], 2 * width)
        self.drop = nn.Dropout2d(0.1)
        self.heads = nn.ModuleDict(
            {name: nn.Conv2d(2 * width, classes + 5, 1) for name in ("fine", "middle", "coarse")}
        )

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """[N, 3, H, W] to maps of classes + 5 channels, at a fourth, an eighth and a sixteenth of the size."""
        fine = self.stem(image)
        middle = self.middle(fine)
        levels = self.neck(fine, middle, self.coarse(middle))
        return {name: head(self.drop(x)) for (name, head), x in zip(self.heads.items(), levels, strict=True)}


def make(*, width: int = 16, classes: int = 3, size: int = 64) -> tuple[nn.Module, Tensor]:
    """The factory: a module and its example input. ``--set width=32`` reaches the keyword argument."""
    return Detector(width, classes), torch.rand(1, 3, size, size)
