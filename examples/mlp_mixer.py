"""MLP-Mixer (arXiv 2105.01601), the baseline that the spatial-shift papers compare with, as a source.

    s2mlp-deploy export examples/mlp_mixer.py:make --output build/mixer
    s2mlp-deploy export examples/mlp_mixer.py:make --output build/small --set depth=4 --set dim=256 --set size=64

It mixes patches with a fully connected layer over them, so there is no shift in it, its cost grows with the square of
the number of patches, and its image size is fixed. The defaults are Mixer-B/16 (59.9 M parameters at 224x224). No
weights come with it: give ``--checkpoint``, or compare latencies with seeded random ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Perceptron(nn.Module):
    """FC, GELU, FC over the last axis."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden)
        self.fc2 = nn.Linear(hidden, inputs)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape; the last axis is mixed."""
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class MixerBlock(nn.Module):
    """Mixes the patches of each channel, then the channels of each patch, both behind a LayerNorm (section 2)."""

    def __init__(self, patches: int, dim: int, tokens: int, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.mix_tokens = Perceptron(patches, tokens)
        self.norm2 = nn.LayerNorm(dim)
        self.mix_channels = Perceptron(dim, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Patches of shape [N, patches, dim], the same out."""
        x = x + self.mix_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.mix_channels(self.norm2(x))


class Mixer(nn.Module):
    """Patches, blocks, a norm, the mean over patches, a linear head."""

    def __init__(
        self, size: int, patch: int, dim: int, depth: int, tokens: int, channels: int, classes: int, in_channels: int
    ) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(in_channels, dim, patch, stride=patch)
        patches = (size // patch) ** 2
        self.blocks = nn.Sequential(*(MixerBlock(patches, dim, tokens, channels) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, image: Tensor) -> Tensor:
        """[N, channels, size, size] to logits [N, classes]."""
        patches = self.patch_embed(image).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(patches)).mean(1))


def make(
    *,
    size: int = 224,
    patch: int = 16,
    dim: int = 768,
    depth: int = 12,
    tokens: int = 384,
    channels: int = 3072,
    classes: int = 1000,
    in_channels: int = 3,
) -> tuple[nn.Module, Tensor]:
    """The factory. ``tokens`` and ``channels`` are the hidden widths of the two MLPs (D_S and D_C of the paper)."""
    if size % patch:
        raise ValueError(f"patches of {patch} do not divide an image of {size}: use a multiple of {patch}")
    module = Mixer(size, patch, dim, depth, tokens, channels, classes, in_channels)
    return module.eval(), torch.randn(2, in_channels, size, size)
