"""Layers that both networks are made of, in either layout, with the same state dict in both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2mlp_deploy.models.config import Layout, Norm, StagedConfig
from s2mlp_deploy.shift.op import shift
from s2mlp_deploy.shift.spec import ShiftSpec


class SpatialShift(nn.Module):
    """A grouped shift without parameters; the identity where the spec is None."""

    def __init__(self, spec: ShiftSpec | None) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor) -> Tensor:
        return x if self.spec is None else shift(x, self.spec)

    def extra_repr(self) -> str:
        return "identity" if self.spec is None else f"{self.spec.groups}, border={self.spec.border!r}"


class PointwiseLinear(nn.Linear):
    """A fully connected layer over the last axis; also loads the weight of a 1×1 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        nn.init.trunc_normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)
        self.register_load_state_dict_pre_hook(_reshape_weight)  # type: ignore[no-untyped-call]


class PointwiseConv(nn.Conv2d):
    """The same layer over axis 1 as a 1×1 convolution; also loads the weight of a fully connected layer."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)
        nn.init.trunc_normal_(self.weight, std=0.02)
        assert self.bias is not None
        nn.init.zeros_(self.bias)
        self.register_load_state_dict_pre_hook(_reshape_weight)  # type: ignore[no-untyped-call]


def _reshape_weight(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Gives an incoming pointwise weight the rank this layout stores, so that one checkpoint serves both."""
    weight, own = state.get(prefix + "weight"), module.weight
    assert isinstance(own, Tensor)
    if isinstance(weight, Tensor) and weight.dim() != own.dim() and weight.numel() == own.numel():
        state[prefix + "weight"] = weight.reshape(own.shape)


def pointwise(inputs: int, outputs: int, layout: Layout) -> PointwiseLinear | PointwiseConv:
    """A fully connected layer over the channels in the given layout."""
    kind = PointwiseLinear if layout == "channels-last" else PointwiseConv
    return kind(inputs, outputs)


class ChannelsFirstLayerNorm(nn.Module):
    """LayerNorm over axis 1 of NCHW, written out so that the graph needs no Transpose."""

    eps = 1e-5

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        variance = (centred * centred).mean(1, keepdim=True)
        scaled = centred * torch.rsqrt(variance + self.eps)
        return scaled * self.weight[:, None, None] + self.bias[:, None, None]


class Affine(nn.Module):
    """ResMLP's Affine: a learned scale and offset per channel, no statistics (arXiv 2105.03404)."""

    def __init__(self, channels: int, layout: Layout) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.layout = layout

    def forward(self, x: Tensor) -> Tensor:
        if self.layout == "channels-last":
            return x * self.weight + self.bias
        return x * self.weight[:, None, None] + self.bias[:, None, None]


def channel_norm(kind: Norm, channels: int, layout: Layout) -> nn.Module:
    """The norm over the channels of a feature map."""
    if kind == "affine":
        return Affine(channels, layout)
    return nn.LayerNorm(channels) if layout == "channels-last" else ChannelsFirstLayerNorm(channels)


class ChannelMLP(nn.Module):
    """FC, exact GELU, FC over the channels of each position."""

    def __init__(self, channels: int, hidden: int, layout: Layout) -> None:
        super().__init__()
        self.fc1 = pointwise(channels, hidden, layout)
        self.fc2 = pointwise(hidden, channels, layout)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class PatchEmbed(nn.Module):
    """A convolution whose stride is its kernel: fewer positions with more channels, from images or a feature map.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        patch: Kernel and stride.
        layout: Of the output.
        input_layout: Of the input; the network's image is always channels-first.
        norm: A norm after the convolution, or none.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        patch: int,
        layout: Layout,
        input_layout: Layout,
        norm: Norm | None = None,
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, outputs, patch, stride=patch)
        self.norm = channel_norm(norm, outputs, layout) if norm else nn.Identity()
        self.layout = layout
        self.input_layout = input_layout

    def forward(self, x: Tensor) -> Tensor:
        if self.input_layout == "channels-last":
            x = x.permute(0, 3, 1, 2)
        x = self.proj(x)
        if self.layout == "channels-last":
            x = x.permute(0, 2, 3, 1)
        out: Tensor = self.norm(x)
        return out


class Stage(nn.Module):
    """A patch embedding (after the first stage: the downsampling of a pyramid) and its blocks.

    Args:
        config: Of the network.
        index: Which stage.
        block: Makes a block of the config and a number of channels.
        norm: Of the patch embedding, or none.
    """

    def __init__(
        self, config: StagedConfig, index: int, block: Callable[[Any, int], nn.Module], norm: Norm | None = None
    ) -> None:
        super().__init__()
        dim = config.dims[index]
        inputs = config.dims[index - 1] if index else config.in_channels
        source = config.layout if index else "channels-first"
        self.patch_embed = PatchEmbed(inputs, dim, config.patches[index], config.layout, source, norm)
        self.blocks = nn.Sequential(*(block(config, dim) for _ in range(config.depths[index])))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(self.patch_embed(x))
        return out


def spatial_axes(layout: Layout) -> tuple[int, int]:
    """The axes of height and width."""
    return (1, 2) if layout == "channels-last" else (2, 3)
