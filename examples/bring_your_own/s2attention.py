"""An S2Attention block as it is found pasted into other networks: the shift is a slice assignment in place.

Kept as it is on purpose. Eager PyTorch does not define what ``x[:, 1:] = x[:, :-1]`` leaves in ``x``; see
``docs/how-to/your-own-network.md`` for what that does and what is exported instead.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def shift_rows_first(x: Tensor) -> Tensor:
    quarter = x.shape[-1] // 4
    x[:, 1:, :, :quarter] = x[:, :-1, :, :quarter]
    x[:, :-1, :, quarter : 2 * quarter] = x[:, 1:, :, quarter : 2 * quarter]
    x[:, :, 1:, 2 * quarter : 3 * quarter] = x[:, :, :-1, 2 * quarter : 3 * quarter]
    x[:, :, :-1, 3 * quarter :] = x[:, :, 1:, 3 * quarter :]
    return x


def shift_columns_first(x: Tensor) -> Tensor:
    quarter = x.shape[-1] // 4
    x[:, :, 1:, :quarter] = x[:, :, :-1, :quarter]
    x[:, :, :-1, quarter : 2 * quarter] = x[:, :, 1:, quarter : 2 * quarter]
    x[:, 1:, :, 2 * quarter : 3 * quarter] = x[:, :-1, :, 2 * quarter : 3 * quarter]
    x[:, :-1, :, 3 * quarter :] = x[:, 1:, :, 3 * quarter :]
    return x


class SplitAttention(nn.Module):
    """Weighs the three branches per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp1 = nn.Linear(channels, channels, bias=False)
        self.mlp2 = nn.Linear(channels, 3 * channels, bias=False)

    def forward(self, branches: Tensor) -> Tensor:
        """[N, 3, H, W, C] to [N, H, W, C]."""
        b, k, h, w, c = branches.shape
        branches = branches.reshape(b, k, h * w, c)
        logits = self.mlp2(nn.functional.gelu(self.mlp1(branches.sum((1, 2))))).reshape(b, k, 1, c)
        return (logits.softmax(1) * branches).sum(1).reshape(b, h, w, c)


class S2Attention(nn.Module):
    """Expand to three branches, shift two of them, weigh, project. Images are NCHW."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp1 = nn.Linear(channels, 3 * channels)
        self.mlp2 = nn.Linear(channels, channels)
        self.split_attention = SplitAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        """NCHW in and out."""
        c = x.shape[1]
        x = self.mlp1(x.permute(0, 2, 3, 1))
        first, second, third = shift_rows_first(x[..., :c]), shift_columns_first(x[..., c : 2 * c]), x[..., 2 * c :]
        return self.mlp2(self.split_attention(torch.stack([first, second, third], 1))).permute(0, 3, 1, 2)
