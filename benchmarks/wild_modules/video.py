"""Video networks: shifts along time, at ranks 3 to 6."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wild_modules.registry import wild

SEGMENTS = 4


@wild("TSM", (8, 12, 16, 16), shifts=1, free=[(4, 12, 16, 16), (16, 12, 20, 28)])
class TemporalShift(nn.Module):
    """Frames in the batch: a part of the channels from the frame before, a part from the one after."""

    def __init__(self, dim: int = 12, div: int = 4) -> None:
        super().__init__()
        self.div, self.conv = div, nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        nt, c, h, w = x.size()
        y = x.view(nt // SEGMENTS, SEGMENTS, c, h, w)
        fold = c // self.div
        out = torch.zeros_like(y)
        out[:, :-1, :fold] = y[:, 1:, :fold]
        out[:, 1:, fold : 2 * fold] = y[:, :-1, fold : 2 * fold]
        out[:, :, 2 * fold :] = y[:, :, 2 * fold :]
        return x + self.conv(out.view(nt, c, h, w))


@wild("TSM, one clip", (4, 12, 16, 16), shifts=1, free=[(8, 12, 16, 16), (20, 12, 12, 30)])
class OneClip(nn.Module):
    """The same with one clip as the example, by padding: what torch would take for a constant."""

    def __init__(self, dim: int = 12) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = x.reshape(-1, SEGMENTS, *x.shape[1:])
        ahead, behind, rest = y.split((3, 3, 6), dim=2)
        ahead = F.pad(ahead, (0, 0, 0, 0, 0, 0, 0, 1))[:, 1:]
        behind = F.pad(behind, (0, 0, 0, 0, 0, 0, 1, 0))[:, :-1]
        return self.conv(torch.cat((ahead, behind, rest), 2).flatten(0, 1))


@wild("TSM in place", (8, 12, 16, 16), shifts=1)
class InplaceBuffer(nn.Module):
    """The memory-saving form: a buffer of one fold takes the moved frames and is written back, twice."""

    def __init__(self, dim: int = 12, fold: int = 3) -> None:
        super().__init__()
        self.fold, self.conv = fold, nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        nt, c, h, w = x.shape
        y = x.view(nt // SEGMENTS, SEGMENTS, c, h, w)
        f = self.fold
        buffer = y.new_zeros(y.shape[0], SEGMENTS, f, h, w)
        buffer[:, :-1] = y[:, 1:, :f]
        y[:, :, :f] = buffer
        buffer = buffer.zero_()
        buffer[:, 1:] = y[:, :-1, f : 2 * f]
        y[:, :, f : 2 * f] = buffer
        return y.view(nt, c, h, w)


@wild("TSM, racing", (8, 12, 16, 16), shifts=1, racing=True)
class RacingFrames(nn.Module):
    """Frames written onto themselves, which keeps the first and the last."""

    def __init__(self, dim: int = 12, functional: bool = False) -> None:
        super().__init__()
        self.functional, self.conv = functional, nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).view(-1, SEGMENTS, *x.shape[1:])
        source = y.clone() if self.functional else y
        y[:, 1:, :4] = source[:, :-1, :4]
        y[:, :-1, 4:8] = source[:, 1:, 4:8]
        return y.flatten(0, 1)


@wild("TPS", (8, 12, 18, 18), shifts=None)
class PatchShift(nn.Module):
    """Temporal patch shift: a 3 × 3 mosaic of patches, each from another frame; no groups of channels."""

    def __init__(self, dim: int = 12) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        bt, c, h, w = x.shape
        y = x.view(bt // SEGMENTS, SEGMENTS, c, h, w)
        out = torch.zeros_like(y)
        for k, step in enumerate((-4, 1, 2, -1, 0, -2, 3, 4, -3)):
            i, j = divmod(k, 3)
            out[:, :, :, i::3, j::3] = torch.roll(y[:, :, :, i::3, j::3], shifts=step, dims=1)
        return self.conv(out.view(bt, c, h, w))


@wild("GSM", (8, 12, 16, 16), shifts=2)
class GateShift(nn.Module):
    """Gated halves go one frame on and one back, what the gate held stays."""

    def __init__(self, dim: int = 12) -> None:
        super().__init__()
        self.gate = nn.Conv3d(dim, 2, 3, padding=1, groups=2)
        self.norm = nn.BatchNorm3d(dim)

    def forward(self, x: Tensor) -> Tensor:
        b, c = x.shape[0] // SEGMENTS, x.shape[1]
        y = x.view(b, SEGMENTS, c, *x.shape[2:]).permute(0, 2, 1, 3, 4).contiguous()
        gate = torch.tanh(self.gate(F.relu(self.norm(y))))
        one, two = y.chunk(2, dim=1)
        open_one, open_two = gate[:, :1] * one, gate[:, 1:] * two
        left_one, left_two = one - open_one, two - open_two
        zeros = torch.zeros_like(open_one[:, :, :1])
        open_one = torch.cat((open_one[:, :, 1:], zeros), dim=2) + left_one
        open_two = torch.cat((zeros, open_two[:, :, :-1]), dim=2) + left_two
        y = torch.cat((open_one, open_two), dim=1)
        return y.permute(0, 2, 1, 3, 4).reshape(b * SEGMENTS, c, *x.shape[2:])


@wild("PAN", (8, 3, 32, 32), shifts=0)
class AppearancePersistence(nn.Module):
    """Norm of differences of neighbouring frames after a shallow convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.shallow = nn.Conv2d(3, 8, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.shallow(x)
        y = y.view(-1, SEGMENTS, *y.shape[1:])
        difference = y[:, : SEGMENTS - 1] - y[:, 1:]
        return torch.norm(difference, p=2, dim=2, keepdim=True).flatten(0, 1)


@wild("TAM", (8, 12, 16, 16), shifts=2)
class DepthwiseAggregation(nn.Module):
    """Frame before, own frame and frame after, each weighed per channel, summed."""

    def __init__(self, dim: int = 12) -> None:
        super().__init__()
        self.before, self.own, self.after = (nn.Parameter(torch.randn(1, 1, dim, 1, 1)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = x.view((-1, SEGMENTS, *x.shape[1:]))
        zero = torch.zeros_like(y[:, :1])
        previous = torch.cat([zero, y[:, :-1]], 1)
        following = torch.cat([y[:, 1:], zero], 1)
        y = previous * self.before + y * self.own + following * self.after
        return F.relu(y).view_as(x)


@wild("3-D shift", (1, 12, 6, 16, 16), shifts=1, free=[(2, 12, 6, 20, 12)])
class SixDirections(nn.Module):
    """Channels of a clip (N, C, T, H, W) go along time, height and width, both ways, zeros coming in."""

    def __init__(self, dim: int = 12) -> None:
        super().__init__()
        self.project = nn.Conv3d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = x.chunk(6, dim=1)
        pads = [(0, 0, 0, 0, 1, -1), (0, 0, 0, 0, -1, 1), (0, 0, 1, -1), (0, 0, -1, 1), (1, -1), (-1, 1)]
        return self.project(torch.cat([F.pad(part, pad) for part, pad in zip(parts, pads, strict=True)], 1))


@wild("ViP3D rank 6", (1, 2, 6, 4, 8, 8), shifts=1)
class GroupedClip(nn.Module):
    """Rank 6 (N, views, C, T, H, W): thirds of the channels rolled along the last three axes."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(1, 1, 6, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = x * self.scale
        t, h, w = torch.tensor_split(y, 3, dim=2)
        return torch.cat((t.roll(1, 3), h.roll(-2, 4), w.roll(3, 5)), 2).sum(1)


@wild("Learnable temporal shift", (32, 12, 8), shifts=1)
class OneHotInTime(nn.Module):
    """A depthwise convolution along time whose kernels were set to a shift: (N·H·W, C, T)."""

    def __init__(self, dim: int = 12, fold: int = 3) -> None:
        super().__init__()
        self.time = nn.Conv1d(dim, dim, 3, padding=1, groups=dim, bias=False)
        with torch.no_grad():
            self.time.weight.zero_()
            self.time.weight[:fold, 0, 2] = 1
            self.time.weight[fold : 2 * fold, 0, 0] = 1
            self.time.weight[2 * fold :, 0, 1] = 1
        self.project = nn.Conv1d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.time(x))


@wild("Token shift transformer", (2, 4, 17, 16), shifts=None)
class ClassTokenShift(nn.Module):
    """Only the class tokens of the frames are shifted: (N, T, tokens, C)."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        cls = x[:, :, :1]
        f = x.shape[-1] // 4
        cls = torch.cat(
            (
                torch.cat((cls[:, 1:, :, :f], torch.zeros_like(cls[:, :1, :, :f])), 1),
                torch.cat((torch.zeros_like(cls[:, :1, :, :f]), cls[:, :-1, :, f : 2 * f]), 1),
                cls[..., 2 * f :],
            ),
            -1,
        )
        return self.mix(torch.cat((cls, x[:, :, 1:]), 2))


@wild("Recurrent over frames", (2, 4, 8, 16, 16), shifts=0)
class FrameLoop(nn.Module):
    """A state carried over the frames of a clip (N, T, C, H, W) by a loop in Python."""

    def __init__(self, dim: int = 8) -> None:
        super().__init__()
        self.gate, self.new = nn.Conv2d(2 * dim, dim, 1), nn.Conv2d(2 * dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros_like(x[:, 0])
        states = []
        for frame in x.unbind(1):
            both = torch.cat((frame, state), 1)
            gate = torch.sigmoid(self.gate(both))
            state = gate * state + (1 - gate) * torch.tanh(self.new(both))
            states.append(state)
        return torch.stack(states, 1)
