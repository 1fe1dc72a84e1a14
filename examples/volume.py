"""A network for volumes (computed tomography, say) that shifts along depth, height and width.

    s2mlp-deploy export examples/volume.py:make --output build/volume --dynamic batch,depth,height,width

Six groups of channels move by one voxel, one for each direction; what is vacated keeps its own value. A volume is cut
into patches, mixed, and every patch is unfolded into classes for its voxels. No weights come with it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def shift_volume(x: Tensor) -> Tensor:
    """A sixth of the channels of [N, D, H, W, C] to each side, what is left to the last."""
    group = x.shape[-1] // 6
    out = x.clone()
    out[:, 1:, :, :, :group] = x[:, :-1, :, :, :group]
    out[:, :-1, :, :, group : 2 * group] = x[:, 1:, :, :, group : 2 * group]
    out[:, :, 1:, :, 2 * group : 3 * group] = x[:, :, :-1, :, 2 * group : 3 * group]
    out[:, :, :-1, :, 3 * group : 4 * group] = x[:, :, 1:, :, 3 * group : 4 * group]
    out[:, :, :, 1:, 4 * group : 5 * group] = x[:, :, :, :-1, 4 * group : 5 * group]
    out[:, :, :, :-1, 5 * group :] = x[:, :, :, 1:, 5 * group :]
    return out


class Block(nn.Module):
    """Shift and mix the neighbours, then the channels, both behind a norm and with a way around."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.fc1, self.fc2 = nn.LayerNorm(dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 3 * dim), nn.GELU(), nn.Linear(3 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """[N, D, H, W, C] in and out."""
        x = x + self.fc2(shift_volume(nn.functional.gelu(self.fc1(self.norm1(x)))))
        return x + self.mlp(self.norm2(x))


class VolumeNet(nn.Module):
    """Patches, blocks, classes for every voxel."""

    def __init__(self, dim: int, depth: int, patch: int, classes: int, in_channels: int) -> None:
        super().__init__()
        self.patch_embed = nn.Conv3d(in_channels, dim, patch, patch)
        self.blocks = nn.Sequential(*(Block(dim) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.unfold = nn.ConvTranspose3d(dim, classes, patch, patch)

    def forward(self, volume: Tensor) -> Tensor:
        """[N, channels, D, H, W] to logits [N, classes, D, H, W]."""
        x = self.patch_embed(volume).permute(0, 2, 3, 4, 1)
        x = self.norm(self.blocks(x))
        return self.unfold(x.permute(0, 4, 1, 2, 3))


def make(
    *,
    dim: int = 96,
    depth: int = 4,
    patch: int = 4,
    classes: int = 3,
    in_channels: int = 1,
    size: tuple[int, ...] = (32, 64, 64),
) -> tuple[nn.Module, Tensor]:
    """The factory. ``size`` is depth, height and width of the example."""
    return VolumeNet(dim, depth, patch, classes, in_channels).eval(), torch.randn(1, in_channels, *size)
