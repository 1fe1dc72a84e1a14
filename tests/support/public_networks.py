"""Networks as public code writes them, with the shift as its authors meant it."""

from __future__ import annotations

import torch
from safetensors.torch import save_file
from torch import Tensor, nn


def moved(x: Tensor, turned: bool) -> Tensor:
    """Quarters of the channels go one cell along an axis each; the first or last cell stays."""
    first, second = (2, 1) if turned else (1, 2)
    out = []
    for index, part in enumerate(x.chunk(4, 3)):
        axis, n = (first, second)[index // 2], x.shape[(first, second)[index // 2]]
        order = [0, *range(n - 1)] if index % 2 == 0 else [*range(1, n), n - 1]
        out.append(part.index_select(axis, torch.tensor(order)))
    return torch.cat(out, 3)


class SplitAttention(nn.Module):
    def __init__(self, channel: int, bottleneck: int | None = None) -> None:
        super().__init__()
        bottleneck = bottleneck or channel
        self.mlp1 = nn.Linear(channel, bottleneck, bias=False)
        self.gelu = nn.GELU()
        self.mlp2 = nn.Linear(bottleneck, channel * 3, bias=False)
        self.softmax = nn.Softmax(1)
        self.channel_major = False

    def forward(self, stacked: Tensor) -> Tensor:
        b, k, h, w, c = stacked.shape
        cells = stacked.reshape(b, k, -1, c)
        logits = self.mlp2(self.gelu(self.mlp1(cells.sum(1).sum(1))))
        logits = logits.reshape(b, c, k).transpose(1, 2) if self.channel_major else logits.reshape(b, k, c)
        return (self.softmax(logits).unsqueeze(-2) * cells).sum(1).reshape(b, h, w, c)


class S2Attention(nn.Module):
    def __init__(self, channels: int, bottleneck: int | None = None) -> None:
        super().__init__()
        self.mlp1 = nn.Linear(channels, channels * 3)
        self.mlp2 = nn.Linear(channels, channels)
        self.split_attention = SplitAttention(channels, bottleneck)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = self.mlp1(x).chunk(3, -1)
        return self.mlp2(self.split_attention(torch.stack([moved(a, False), moved(b, True), c], 1)))


class PreNormResidual(nn.Module):
    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(self.norm(x)) + x


class S2Block(nn.Module):
    def __init__(self, dim: int, depth: int, expansion: int, dropout: bool, bottleneck: int | None) -> None:
        super().__init__()

        def mlp() -> nn.Sequential:
            first, last = nn.Linear(dim, dim * expansion), nn.Linear(dim * expansion, dim)
            return nn.Sequential(
                *((first, nn.GELU(), nn.Dropout(0.1), last, nn.Dropout(0.1)) if dropout else (first, nn.GELU(), last))
            )

        self.model = nn.Sequential(
            *(
                nn.Sequential(
                    PreNormResidual(dim, S2Attention(dim, bottleneck and dim // bottleneck)),
                    PreNormResidual(dim, mlp()),
                )
                for _ in range(depth)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Pool(nn.Module):
    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.axes)


class PublicS2MLPv2(nn.Module):
    """``head``: what stands before the linear layer: ``mean``, ``norm-mean`` or ``mean-norm``."""

    def __init__(
        self,
        dims: tuple[int, ...] = (8, 16),
        depths: tuple[int, ...] = (1, 2),
        patches: tuple[int, ...] = (4, 2),
        expansion: tuple[int, ...] = (3, 3),
        channels: int = 3,
        classes: int = 5,
        dropout: bool = True,
        bottleneck: int | None = None,
        head: str = "mean",
        patch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(channels if i == 0 else dims[i - 1], dims[i], patches[i], stride=patches[i]),
                    *([nn.GroupNorm(1, dims[i])] if patch_norm else []),
                    S2Block(dims[i], depths[i], expansion[i], dropout, bottleneck),
                )
                for i in range(len(dims))
            )
        )
        linear, norm = nn.Linear(dims[-1], classes), nn.LayerNorm(dims[-1])
        self.mlp_head = {
            "mean": lambda: nn.Sequential(Pool((2, 3)), linear),
            "norm-mean": lambda: nn.Sequential(norm, Pool((1, 2)), linear),
            "mean-norm": lambda: nn.Sequential(Pool((2, 3)), norm, linear),
        }[head]()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(x)
        return self.mlp_head(x.permute(0, 2, 3, 1) if self.head == "norm-mean" else x)


def seeded(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights large enough that a wrong place changes the logits; norms that are not the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / max(parameter[0].numel(), 4) ** 0.5)
    return module.eval()


def public(**options: object) -> PublicS2MLPv2:
    module = seeded(PublicS2MLPv2(**options))  # type: ignore[arg-type]
    assert isinstance(module, PublicS2MLPv2)
    return module


def saved(module: nn.Module, tmp_path, prefix: str = ""):
    path = tmp_path / "public.safetensors"
    save_file({prefix + name: value.contiguous() for name, value in module.state_dict().items()}, path)
    return path


def logits(module: nn.Module, size: tuple[int, int] = (32, 32), channels: int = 3) -> Tensor:
    x = torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        return module(x)
