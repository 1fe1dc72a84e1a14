"""S2-MLPv2 (arXiv 2108.01072).

A block is ``x + FC2(SplitAttention(shift1(a), shift2(b), c))`` with ``a, b, c`` the thirds of ``FC1(LN(x))``, and then
``x + MLP(LN(x))`` (sections 3.2 and 3.3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2mlp_deploy.models.config import Layout, S2MLPv2Config
from s2mlp_deploy.models.layers import (
    ChannelMLP,
    SpatialShift,
    Stage,
    channel_norm,
    pointwise,
    spatial_axes,
)


class SplitAttention(nn.Module):
    """Weighs the branches per channel: ``softmax over k of (GELU(a W1) W2)_k``, ``a`` their sum over positions.

    The sum (not the mean) over positions is the paper's equation; it is the one place of the network that overflows
    fp16 first.
    """

    def __init__(self, dim: int, branches: int, ratio: int, layout: Layout) -> None:
        super().__init__()
        self.branches = branches
        self.layout = layout
        self.reduce = nn.Linear(dim, dim // ratio, bias=False)
        self.expand = nn.Linear(dim // ratio, branches * dim, bias=False)

    def forward(self, pooled: Tensor) -> tuple[Tensor, ...]:
        """Turns the pooled features [N, dim] into one weight per branch, shaped to multiply a feature map.

        The weights sum to 1 over the branches: [N, 1, 1, dim] each, or [N, dim, 1, 1] in channels-first.
        """
        logits = self.expand(F.gelu(self.reduce(pooled)))
        place = (1, 1, -1) if self.layout == "channels-last" else (-1, 1, 1)
        weights = torch.softmax(logits.unflatten(1, (self.branches, *place)), dim=1)
        # select exports as one Gather per branch, unbind as a Slice and a Squeeze.
        return tuple(weights.select(1, index) for index in range(self.branches))


class ShiftMixer(nn.Module):
    """Expand, shift the branches, fuse them, project."""

    def __init__(self, config: S2MLPv2Config, dim: int) -> None:
        super().__init__()
        self.layout = config.layout
        self.expand = pointwise(dim, len(config.branches) * dim, config.layout)
        self.shifts = nn.ModuleList(SpatialShift(config.shift_spec(branch, dim)) for branch in config.branches)
        self.attention = (
            SplitAttention(dim, len(config.branches), config.attention_ratio, config.layout)
            if config.fusion == "split-attention"
            else None
        )
        self.project = pointwise(dim, dim, config.layout)

    def forward(self, x: Tensor) -> Tensor:
        channel_axis = 3 if self.layout == "channels-last" else 1
        parts = self.expand(x).chunk(len(self.shifts), dim=channel_axis)
        branches = [move(part) for move, part in zip(self.shifts, parts, strict=True)]
        out: Tensor = self.project(self._fuse(branches))
        return out

    def _fuse(self, branches: list[Tensor]) -> Tensor:
        total = branches[0]
        for branch in branches[1:]:
            total = total + branch
        if self.attention is None:
            return total
        weights: tuple[Tensor, ...] = self.attention(total.sum(spatial_axes(self.layout)))
        fused: Tensor = branches[0] * weights[0]
        for branch, weight in zip(branches[1:], weights[1:], strict=True):
            fused = fused + branch * weight
        return fused


class Block(nn.Module):
    """The spatially mixing branch, then the channel mixing one, each behind a LayerNorm."""

    def __init__(self, config: S2MLPv2Config, dim: int) -> None:
        super().__init__()
        self.norm1 = channel_norm("layernorm", dim, config.layout)
        self.mixer = ShiftMixer(config, dim)
        self.norm2 = channel_norm("layernorm", dim, config.layout)
        self.mlp = ChannelMLP(dim, config.expansion * dim, config.layout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class S2MLPv2(nn.Module):
    """The network. Input: float NCHW, height and width multiples of the patches. Output: logits [N, classes]."""

    def __init__(self, config: S2MLPv2Config) -> None:
        super().__init__()
        self.config = config
        self.stages = nn.Sequential(*(Stage(config, i, Block) for i in range(len(config.dims))))
        self.norm = channel_norm("layernorm", config.dims[-1], config.layout) if config.head_norm else nn.Identity()
        self.head = nn.Linear(config.dims[-1], config.classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.norm(self.stages(x))
        out: Tensor = self.head(features.mean(spatial_axes(self.config.layout)))
        return out
