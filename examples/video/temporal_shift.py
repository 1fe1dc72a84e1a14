"""A video network with temporal shift, in the manner of TSM (arXiv 1811.08383), offline and online.

    s2mlp-deploy export temporal_shift.py:make --output build/clips        # clips of eight frames, both directions
    s2mlp-deploy export temporal_shift.py:make_causal --output build/causal  # every frame sees those before it
    s2mlp-deploy export temporal_shift.py:make_online --output build/online  # one frame at a time
    python stream.py build/online build/causal

Offline, the batch is clips x frames. Online, one frame comes at a time: what a block hands on to the next frame is an
output of the graph, and comes back as an input with that frame. ``stream.py`` has the loop.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def shift_clips(x: Tensor, frames: int, fold: int) -> Tensor:
    """A fold of the channels from the frame after, one from the frame before; zeros at the ends of a clip."""
    nt, c, h, w = x.size()
    x = x.view(nt // frames, frames, c, h, w)
    out = torch.zeros_like(x)
    out[:, :-1, :fold] = x[:, 1:, :fold]
    out[:, 1:, fold : 2 * fold] = x[:, :-1, fold : 2 * fold]
    out[:, :, 2 * fold :] = x[:, :, 2 * fold :]
    return out.view(nt, c, h, w)


def shift_back(x: Tensor, frames: int, fold: int) -> Tensor:
    """A fold of the channels from the frame before, and nothing from the future."""
    nt, c, h, w = x.size()
    x = x.view(nt // frames, frames, c, h, w)
    out = torch.zeros_like(x)
    out[:, 1:, :fold] = x[:, :-1, :fold]
    out[:, :, fold:] = x[:, :, fold:]
    return out.view(nt, c, h, w)


class Block(nn.Module):
    """A residual block; the input of its first convolution is shifted, the way around keeps its own frame."""

    def __init__(self, inputs: int, outputs: int, stride: int, div: int) -> None:
        super().__init__()
        self.fold = inputs // div
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.around = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor, shifted: Tensor) -> Tensor:
        """[N, C, H, W] twice, the second shifted in time; [N, C', H / stride, W / stride] out."""
        y = F.relu(self.norm1(self.conv1(shifted)))
        return F.relu(self.norm2(self.conv2(y)) + self.around(x))


class Backbone(nn.Module):
    """What the three networks share, so that a checkpoint of one fits the others."""

    def __init__(self, width: int, depth: int, classes: int, div: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 7, 4, 3)
        widths = [width * 2 ** (i // 2) for i in range(depth)]
        self.blocks = nn.ModuleList(
            Block(i, o, 2 if o > i else 1, div) for i, o in zip([width, *widths], widths, strict=False)
        )
        self.head = nn.Linear(widths[-1], classes)


class Clips(Backbone):
    """Clips of a fixed number of frames, folded into the batch; one answer for each clip."""

    def __init__(self, frames: int, **sizes: int) -> None:
        super().__init__(**sizes)
        self.frames = frames

    def forward(self, video: Tensor) -> Tensor:
        """[clips x frames, 3, H, W] to logits [clips, classes]."""
        x = F.relu(self.stem(video))
        for block in self.blocks:
            x = block(x, shift_clips(x, self.frames, block.fold))
        logits = self.head(x.mean((2, 3)))
        return logits.view(-1, self.frames, logits.shape[1]).mean(1)


class Causal(Clips):
    """The same, each frame after those before it only; an answer for each frame."""

    def forward(self, video: Tensor) -> Tensor:
        """[clips x frames, 3, H, W] to logits [clips x frames, classes]."""
        x = F.relu(self.stem(video))
        for block in self.blocks:
            x = block(x, shift_back(x, self.frames, block.fold))
        return self.head(x.mean((2, 3)))


class Online(Backbone):
    """One frame at a time, of as many streams as the batch has."""

    def forward(self, frame: Tensor, *buffers: Tensor) -> tuple[Tensor, ...]:
        """[N, 3, H, W] and what the blocks kept of the frame before, zeros at first; logits and what they keep now."""
        x = F.relu(self.stem(frame))
        kept = []
        for block, buffer in zip(self.blocks, buffers, strict=True):
            kept.append(x[:, : block.fold])
            x = block(x, torch.cat((buffer, x[:, block.fold :]), 1))
        return (self.head(x.mean((2, 3))), *kept)


def make(
    *, frames: int = 8, clips: int = 1, width: int = 32, depth: int = 6, classes: int = 10, size: int = 112
) -> tuple[nn.Module, Tensor]:
    """Offline, both directions."""
    module = Clips(frames, width=width, depth=depth, classes=classes).eval()
    return module, torch.randn(clips * frames, 3, size, size)


def make_causal(
    *, frames: int = 8, clips: int = 1, width: int = 32, depth: int = 6, classes: int = 10, size: int = 112
) -> tuple[nn.Module, Tensor]:
    """Offline, one direction: what the online network computes, whole clips at once."""
    module = Causal(frames, width=width, depth=depth, classes=classes).eval()
    return module, torch.randn(clips * frames, 3, size, size)


def make_online(
    *, width: int = 32, depth: int = 6, classes: int = 10, size: int = 112
) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Online."""
    module = Online(width=width, depth=depth, classes=classes).eval()
    side, buffers = (size + 3) // 4, []
    for block in module.blocks:
        buffers.append(torch.randn(1, block.fold, side, side))
        side = (side + block.conv1.stride[0] - 1) // block.conv1.stride[0]
    return module, (torch.randn(1, 3, size, size), *buffers)
