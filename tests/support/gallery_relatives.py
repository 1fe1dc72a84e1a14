"""Networks of other papers that shift: AS-MLP, Hire-MLP, ShiftViT, TSM, UNeXt, RWKV and video networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from gallery_case import (
    Collection,
    Groups,
    either,
    moved,
    nchw,
    seeded,
    spec,
    with_reference,
)
from torch import Tensor, nn

gallery = Collection("networks")


def axial(sizes: Sequence[int], axis: int) -> Groups:
    steps = range(-(len(sizes) // 2), len(sizes) // 2 + 1)
    return [(count, (step, 0) if axis == 0 else (0, step)) for count, step in zip(sizes, steps, strict=True) if count]


class AxialShift(nn.Module):
    def __init__(self, channels: int, kernel: int = 5) -> None:
        super().__init__()
        self.kernel, self.pad = kernel, kernel // 2
        self.conv1 = nn.Conv2d(channels, channels, 1)
        self.conv2_1 = nn.Conv2d(channels, channels, 1)
        self.conv2_2 = nn.Conv2d(channels, channels, 1)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        seeded(self)

    def shift(self, x: Tensor, dim: int) -> Tensor:
        h, w = x.shape[2:]
        padded = F.pad(x, (self.pad,) * 4, "constant", 0)
        chunks = torch.chunk(padded, self.kernel, 1)
        rolled = [
            torch.roll(part, step, dim) for part, step in zip(chunks, range(-self.pad, self.pad + 1), strict=True)
        ]
        y = torch.cat(rolled, 1)
        return torch.narrow(torch.narrow(y, 2, self.pad, h), 3, self.pad, w)

    def shift_lr(self, x: Tensor) -> Tensor:
        return self.shift(x, 3)

    def shift_td(self, x: Tensor) -> Tensor:
        return self.shift(x, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.conv1(x))
        return self.conv3(F.gelu(self.conv2_1(self.shift_lr(x))) + F.gelu(self.conv2_2(self.shift_td(x))))


AXIAL_LR, AXIAL_TD = nchw(axial((2,) * 5, 1), "zero"), nchw(axial((2,) * 5, 0), "zero")


@gallery.add(
    AXIAL_LR,
    AXIAL_TD,
    shape=(2, 10, 6, 7),
    truth=with_reference(shift_lr=AXIAL_LR, shift_td=AXIAL_TD),
    exact=False,
    export=True,
    forms=True,
    sizes=((1, 10, 8, 5),),
)
class AxialShiftBlock(AxialShift):
    """AS-MLP: -2 to +2 along each axis, zeros at the border."""

    def __init__(self) -> None:
        super().__init__(10)


LAST_LR, LAST_TD = nchw(axial((3, 3, 3, 3, 1), 1), "zero"), nchw(axial((3, 3, 3, 3, 1), 0), "zero")


@gallery.add(
    LAST_LR,
    LAST_TD,
    shape=(1, 13, 6, 7),
    truth=with_reference(shift_lr=LAST_LR, shift_td=LAST_TD),
    exact=False,
)
class AxialShiftSmallLastGroup(AxialShift):
    """Thirteen channels: chunk leaves one for the last group."""

    def __init__(self) -> None:
        super().__init__(13)


HIRE_H, HIRE_W = nchw([(8, (1, 0))], "circular"), nchw([(8, (0, 1))], "circular")
HIRE_H_BACK, HIRE_W_BACK = nchw([(8, (-1, 0))], "circular"), nchw([(8, (0, -1))], "circular")


@gallery.add(
    HIRE_H,
    HIRE_W,
    HIRE_H_BACK,
    HIRE_W_BACK,
    shape=(2, 8, 6, 4),
    exact=False,
)
class HireRegions(nn.Module):
    """Hire-MLP: the regions are rolled around the image, rearranged into channels, mixed, and sent back."""

    def __init__(self, channels: int = 8, region: int = 2) -> None:
        super().__init__()
        self.region = region
        self.mlp_h = nn.Conv2d(channels * region, channels * region, 1)
        self.mlp_w = nn.Conv2d(channels * region, channels * region, 1)
        self.mlp_c = nn.Conv2d(channels, channels, 1)
        seeded(self)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        r = self.region
        x = x * 0.5
        tall = torch.roll(x, 1, -2).reshape(b, c, h // r, r, w).permute(0, 1, 3, 2, 4).reshape(b, c * r, h // r, w)
        wide = torch.roll(x, 1, -1).reshape(b, c, h, w // r, r).permute(0, 1, 4, 2, 3).reshape(b, c * r, h, w // r)
        tall, wide = F.relu(self.mlp_h(tall)), F.relu(self.mlp_w(wide))
        tall = tall.reshape(b, c, r, h // r, w).permute(0, 1, 3, 2, 4).reshape(b, c, h, w)
        wide = wide.reshape(b, c, r, h, w // r).permute(0, 1, 3, 4, 2).reshape(b, c, h, w)
        return torch.roll(tall, -1, -2) + torch.roll(wide, -1, -1) + self.mlp_c(x)


TWELFTHS = [(1, (0, -1)), (1, (0, 1)), (1, (-1, 0)), (1, (1, 0)), (8, (0, 0))]
VIT_ZERO, VIT_KEEP = nchw(TWELFTHS, "zero"), nchw(TWELFTHS)


class PartialShift(nn.Module):
    def __init__(self, *, keep: bool) -> None:
        super().__init__()
        self.keep = keep
        self.norm = nn.GroupNorm(1, 12)
        self.fc1, self.fc2 = nn.Conv2d(12, 24, 1), nn.Conv2d(24, 12, 1)
        seeded(self)

    def shift(self, x: Tensor) -> Tensor:
        g = x.shape[1] // 12
        out = x.clone() if self.keep else torch.zeros_like(x)
        out[:, g * 0 : g * 1, :, :-1] = x[:, g * 0 : g * 1, :, 1:]
        out[:, g * 1 : g * 2, :, 1:] = x[:, g * 1 : g * 2, :, :-1]
        out[:, g * 2 : g * 3, :-1, :] = x[:, g * 2 : g * 3, 1:, :]
        out[:, g * 3 : g * 4, 1:, :] = x[:, g * 3 : g * 4, :-1, :]
        if not self.keep:
            out[:, g * 4 :] = x[:, g * 4 :]
        return out

    def forward(self, x: Tensor) -> Tensor:
        x = self.shift(x)
        return x + self.fc2(F.gelu(self.fc1(self.norm(x))))


@gallery.add(
    VIT_ZERO,
    shape=(2, 12, 6, 5),
    truth=with_reference(shift=VIT_ZERO),
    exact=False,
    sizes=((1, 12, 7, 9),),
)
class ShiftVitZeros(PartialShift):
    """ShiftViT: a third of the channels moves, zeros come in."""

    def __init__(self) -> None:
        super().__init__(keep=False)


@gallery.add(VIT_KEEP, shape=(2, 12, 6, 5), truth=with_reference(shift=VIT_KEEP), exact=False)
class ShiftVitKept(PartialShift):
    """The same with kept values."""

    def __init__(self) -> None:
        super().__init__(keep=True)


FRAMES = 4
SEGMENTS = spec([(2, (-1,)), (2, (1,)), (4, (0,))], (1,), 2, "zero")


def _segments(module, x):  # type: ignore[no-untyped-def]
    clips = x.reshape(-1, FRAMES, *x.shape[1:])
    y = moved(clips, [(2, (-1,)), (2, (1,)), (4, (0,))], (1,), 2, "zero").reshape(x.shape)
    with torch.no_grad():
        return [module.conv(torch.from_numpy(y)).numpy()]


@gallery.add(SEGMENTS, shape=(2 * FRAMES, 8, 5, 6), truth=_segments, exact=False, export=True, large=((8, 8, 28, 28),))
class TemporalShift(nn.Module):
    """TSM: the batch is clips × frames; a fold looks ahead, a fold looks back, zeros at the ends of a clip."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = seeded(nn.Conv2d(8, 4, 1))

    def shift(self, x: Tensor) -> Tensor:
        nt, c, h, w = x.size()
        clips = x.view(nt // FRAMES, FRAMES, c, h, w)
        fold = c // 4
        out = torch.zeros_like(clips)
        out[:, :-1, :fold] = clips[:, 1:, :fold]
        out[:, 1:, fold : 2 * fold] = clips[:, :-1, fold : 2 * fold]
        out[:, :, 2 * fold :] = clips[:, :, 2 * fold :]
        return out.view(nt, c, h, w)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.shift(x))


def _wrapped(module, x):  # type: ignore[no-untyped-def]
    clips = x.reshape(-1, FRAMES, *x.shape[1:])
    return [moved(clips, [(2, (1,)), (6, (0,))], (1,), 2, "circular").reshape(x.shape)]


@gallery.add(spec([(2, (1,)), (6, (0,))], (1,), 2, "circular"), shape=(2 * FRAMES, 8, 3, 5), truth=_wrapped)
class TemporalShiftCircular(nn.Module):
    """Frames go around the clip: cat along time of what torch.roll would do."""

    def forward(self, x: Tensor) -> Tensor:
        clips = x.unflatten(0, (-1, FRAMES))
        moving, still = clips[:, :, :2], clips[:, :, 2:]
        moving = torch.cat([moving[:, -1:], moving[:, :-1]], dim=1)
        return torch.cat([moving, still], dim=2).flatten(0, 1)


UNEXT = [(2, (-2, 0)), (2, (-1, 0)), (2, (0, 0)), (2, (1, 0)), (2, (2, 0))]


def _unext(module, x):  # type: ignore[no-untyped-def]
    with torch.no_grad():
        y = module.fc1(torch.from_numpy(x)).numpy().reshape(2, 6, 5, 10)
        y = moved(y, UNEXT, (1, 2), 3, "zero").reshape(2, 30, 10)
        return [module.fc2(torch.from_numpy(y)).numpy()]


# Rows moved by whole rows are tokens moved by multiples of the width, when nothing comes back at the other end.
AS_TOKENS = spec([(2, (5 * step,)) for step in range(-2, 3)], (1,), 2, "zero")


@gallery.add((*either(UNEXT, "zero"), AS_TOKENS), shape=(2, 30, 10), truth=_unext, exact=False)
class TokenizedShift(nn.Module):
    """UNeXt: tokens become an image, are padded, rolled by chunk, cut, and become tokens again."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(10, 10), nn.Linear(10, 10)
        seeded(self)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        h, w, pad = 6, 5, 2
        x = self.fc1(x).transpose(1, 2).view(b, c, h, w).contiguous()
        x = F.pad(x, (pad, pad, pad, pad), "constant", 0)
        parts = [torch.roll(part, step, 2) for part, step in zip(torch.chunk(x, 5, 1), range(-2, 3), strict=True)]
        x = torch.cat(parts, 1)
        x = torch.narrow(torch.narrow(x, 2, pad, h), 3, pad, w)
        return self.fc2(x.reshape(b, c, h * w).contiguous().transpose(1, 2))


QUARTERS = [(2, (0, 1)), (2, (0, -1)), (2, (1, 0)), (2, (-1, 0)), (2, (0, 0))]


def _quarters(module, x):  # type: ignore[no-untyped-def]
    y = moved(x.reshape(2, 6, 5, 10), QUARTERS, (1, 2), 3, "zero").reshape(2, 30, 10)
    return [x * (1 - module.mix.numpy()) + y * module.mix.numpy()]


@gallery.add(either(QUARTERS, "zero"), shape=(2, 30, 10), truth=_quarters, exact=False)
class TokenQuarters(nn.Module):
    """Vision-RWKV's shift of tokens, mixed with the tokens themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mix", torch.linspace(0.1, 0.9, 10))

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        image = x.transpose(1, 2).reshape(b, c, 6, 5)
        out = torch.zeros_like(image)
        out[:, 0:2, :, 1:] = image[:, 0:2, :, :-1]
        out[:, 2:4, :, :-1] = image[:, 2:4, :, 1:]
        out[:, 4:6, 1:] = image[:, 4:6, :-1]
        out[:, 6:8, :-1] = image[:, 6:8, 1:]
        out[:, 8:] = image[:, 8:]
        shifted = out.flatten(2).transpose(1, 2)
        return x * (1 - self.mix) + shifted * self.mix


BEFORE = spec([(6, (1,))], (1,), 2, "zero")


@gallery.add(BEFORE, shape=(2, 7, 6), truth=with_reference(time_shift=BEFORE), exact=False)
class TimeMix(nn.Module):
    """RWKV: the token before, by a pad that adds a step in front and cuts the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.time_shift = nn.ZeroPad2d((0, 0, 1, -1))
        self.register_buffer("mix", torch.linspace(0, 1, 6).view(1, 1, -1))
        self.key = seeded(nn.Linear(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        before = self.time_shift(x)
        return torch.relu(self.key(x * self.mix + before * (1 - self.mix))) ** 2


HALF = spec([(3, (1,)), (3, (0,))], (1,), 2, "zero")


def _half(module, x):  # type: ignore[no-untyped-def]
    with torch.no_grad():
        y = moved(x, [(3, (1,)), (3, (0,))], (1,), 2, "zero")
        return [module.key(torch.from_numpy(y)).numpy()]


@gallery.add(HALF, shape=(2, 7, 6), truth=_half, exact=False)
class HalfTimeMix(nn.Module):
    """Only the first half of the channels looks back."""

    def __init__(self) -> None:
        super().__init__()
        self.time_shift = nn.ZeroPad2d((0, 0, 1, -1))
        self.key = seeded(nn.Linear(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        c = x.shape[-1]
        return self.key(torch.cat([self.time_shift(x[:, :, : c // 2]), x[:, :, c // 2 :]], dim=-1))


VIDEO = spec([(2, (1, 0, 0)), (2, (-1, 0, 0)), (2, (0, 1, 0)), (2, (0, 0, -1))], (1, 2, 3), 4, "edge")


@gallery.add(VIDEO, shape=(1, 4, 5, 3, 8), truth=with_reference(shift=VIDEO), exact=False)
class VideoBlock(nn.Module):
    """Time and space of a channels-last clip."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = seeded(nn.Linear(8, 8))

    def shift(self, x: Tensor) -> Tensor:
        a, b, c, d = x.split(2, -1)
        return torch.cat(
            [
                torch.cat((a[:, :1], a[:, :-1]), 1),
                torch.cat((b[:, 1:], b[:, -1:]), 1),
                torch.cat((c[:, :, :1], c[:, :, :-1]), 2),
                torch.cat((d[:, :, :, 1:], d[:, :, :, -1:]), 3),
            ],
            -1,
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift(self.fc(x))
