"""S2-MLP, v1 (arXiv 2106.07477).

A block is ``x + Norm(FC(shift(GELU(FC(x)))))`` and then ``x + Norm(FC(GELU(FC(x))))``: the norm is the last layer of
each residual branch (section 3.2), so the network has no norm before its head.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from s2mlp_deploy.models.config import S2MLPConfig, image_shift
from s2mlp_deploy.models.layers import (
    ChannelMLP,
    SpatialShift,
    Stage,
    channel_norm,
    pointwise,
    spatial_axes,
)


class ShiftMixer(nn.Module):
    """FC, GELU, spatial shift, FC."""

    def __init__(self, config: S2MLPConfig, dim: int) -> None:
        super().__init__()
        self.fc1 = pointwise(dim, dim, config.layout)
        self.shift = SpatialShift(image_shift(dim, config.directions, config.border, config.layout))
        self.fc2 = pointwise(dim, dim, config.layout)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.shift(F.gelu(self.fc1(x))))
        return out


class Block(nn.Module):
    """The spatially mixing branch, then the channel mixing one."""

    def __init__(self, config: S2MLPConfig, dim: int) -> None:
        super().__init__()
        self.mixer = ShiftMixer(config, dim)
        self.norm1 = channel_norm(config.norm, dim, config.layout)
        self.mlp = ChannelMLP(dim, config.expansion * dim, config.layout)
        self.norm2 = channel_norm(config.norm, dim, config.layout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.norm1(self.mixer(x))
        out: Tensor = x + self.norm2(self.mlp(x))
        return out


class S2MLP(nn.Module):
    """The network. Input: float NCHW, height and width multiples of the patches. Output: logits [N, classes]."""

    def __init__(self, config: S2MLPConfig) -> None:
        super().__init__()
        self.config = config
        self.stages = nn.Sequential(*(Stage(config, i, Block, config.norm) for i in range(len(config.dims))))
        self.head = nn.Linear(config.dims[-1], config.classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.stages(x)
        out: Tensor = self.head(features.mean(spatial_axes(self.config.layout)))
        return out
