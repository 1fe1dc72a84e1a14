"""An S2-MLPv2 as nested Sequentials of pre-norm residuals, the way most public code lays it out.

It differs from the paper: split attention has no bottleneck, and there is no norm before the head.
"""

from __future__ import annotations

import torch
from s2attention import S2Attention
from torch import Tensor, nn


class PreNormResidual(nn.Module):
    """A LayerNorm, any module, and the way around both."""

    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """NHWC in and out."""
        return x + self.fn(self.norm(x))


class LastAxis(S2Attention):
    """The same block on NHWC, with the same weights."""

    def forward(self, x: Tensor) -> Tensor:
        """NHWC in and out."""
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Blocks(nn.Module):
    """Pairs of residuals on NHWC: an S2Attention, an MLP."""

    def __init__(self, dim: int, depth: int, expansion: int) -> None:
        super().__init__()
        self.model = nn.Sequential(
            *(
                nn.Sequential(
                    PreNormResidual(dim, LastAxis(dim)),
                    PreNormResidual(
                        dim,
                        nn.Sequential(
                            nn.Linear(dim, dim * expansion),
                            nn.GELU(),
                            nn.Dropout(0.1),
                            nn.Linear(dim * expansion, dim),
                            nn.Dropout(0.1),
                        ),
                    ),
                )
                for _ in range(depth)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """NCHW in and out."""
        return self.model(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Network(nn.Module):
    """A pyramid of patch convolutions and blocks, the mean over positions, a linear head."""

    def __init__(self, dims: list[int], depths: list[int], patches: list[int], classes: int) -> None:
        super().__init__()
        inputs = [3, *dims]
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(inputs[i], dims[i], patches[i], stride=patches[i]), Blocks(dims[i], depths[i], 3)
                )
                for i in range(len(dims))
            )
        )
        self.mlp_head = nn.Sequential(nn.Flatten(2), nn.Linear(dims[-1], classes))

    def forward(self, image: Tensor) -> Tensor:
        """[N, 3, H, W] to logits [N, classes]."""
        pool, head = self.mlp_head
        return head(pool(self.stages(image)).mean(2))


def make(*, classes: int = 10) -> tuple[nn.Module, Tensor]:
    """A network for 32x32 images."""
    return Network([16, 32], [1, 1], [2, 2], classes), torch.randn(2, 3, 32, 32)
