"""Blocks and small networks of the families that use shifts, written anew after papers and public code."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from gallery_case import (
    Collection,
    Groups,
    either,
    four,
    moved,
    nchw,
    nhwc,
    seeded,
    spec,
    turned,
    with_reference,
)
from torch import Tensor, nn

gallery = Collection("networks")

C = 8
FIRST, SECOND = nhwc(four(2)), nhwc(turned(2))
BOTH = nhwc([*four(2), *turned(2), (C, (0, 0))])
"""The two shifts told as one of the tensor they are slices of."""


def shift_rows_first(x: Tensor) -> Tensor:
    b, w, h, c = x.size()
    x[:, 1:, :, : c // 4] = x[:, : w - 1, :, : c // 4]
    x[:, : w - 1, :, c // 4 : c // 2] = x[:, 1:, :, c // 4 : c // 2]
    x[:, :, 1:, c // 2 : c * 3 // 4] = x[:, :, : h - 1, c // 2 : c * 3 // 4]
    x[:, :, : h - 1, 3 * c // 4 :] = x[:, :, 1:, 3 * c // 4 :]
    return x


def shift_columns_first(x: Tensor) -> Tensor:
    b, w, h, c = x.size()
    x[:, :, 1:, : c // 4] = x[:, :, : h - 1, : c // 4]
    x[:, :, : h - 1, c // 4 : c // 2] = x[:, :, 1:, c // 4 : c // 2]
    x[:, 1:, :, c // 2 : c * 3 // 4] = x[:, : w - 1, :, c // 2 : c * 3 // 4]
    x[:, : w - 1, :, 3 * c // 4 :] = x[:, 1:, :, 3 * c // 4 :]
    return x


class SplitAttention(nn.Module):
    def __init__(self, channels: int, branches: int = 3) -> None:
        super().__init__()
        self.channels, self.branches = channels, branches
        self.mlp1 = nn.Linear(channels, channels, bias=False)
        self.gelu = nn.GELU()
        self.mlp2 = nn.Linear(channels, channels * branches, bias=False)
        self.softmax = nn.Softmax(1)

    def forward(self, stacked: Tensor) -> Tensor:
        b, k, h, w, c = stacked.shape
        stacked = stacked.reshape(b, k, -1, c)
        total = torch.sum(torch.sum(stacked, 1), 1)
        hat = self.mlp2(self.gelu(self.mlp1(total))).reshape(b, self.branches, c)
        attention = self.softmax(hat).unsqueeze(-2)
        return torch.sum(attention * stacked, 1).reshape(b, h, w, c)


class S2Attention(nn.Module):
    """As pasted into other networks: the three branches are slices of one projection."""

    def __init__(self, channels: int = C) -> None:
        super().__init__()
        self.mlp1 = nn.Linear(channels, channels * 3)
        self.mlp2 = nn.Linear(channels, channels)
        self.split_attention = SplitAttention(channels)

    def shift1(self, x: Tensor) -> Tensor:
        return shift_rows_first(x)

    def shift2(self, x: Tensor) -> Tensor:
        return shift_columns_first(x)

    def forward(self, x: Tensor) -> Tensor:
        c = x.shape[-1]
        x = self.mlp1(x)
        x1 = self.shift1(x[:, :, :, :c])
        x2 = self.shift2(x[:, :, :, c : c * 2])
        x3 = x[:, :, :, c * 2 :]
        return self.mlp2(self.split_attention(torch.stack([x1, x2, x3], 1)))


SPLIT_ALSO = (((BOTH,),),)
ATTENTION = {"race": True, "exact": False, "also": SPLIT_ALSO}


@gallery.add(
    FIRST,
    SECOND,
    shape=(2, 6, 5, C),
    truth=with_reference(shift1=FIRST, shift2=SECOND),
    export=True,
    forms=True,
    large=((1, 28, 28, C),),
    **ATTENTION,
)
class S2AttentionOfSlices(S2Attention):
    def __init__(self) -> None:
        super().__init__()
        seeded(self)


@gallery.add(FIRST, SECOND, shape=(2, 6, 5, C), truth=with_reference(shift1=FIRST, shift2=SECOND), **ATTENTION)
class S2AttentionOfChunks(S2Attention):
    """The same with chunk, and its flattened branches stacked right after the shift."""

    def __init__(self) -> None:
        super().__init__()
        seeded(self)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        x1, x2, x3 = self.mlp1(x).chunk(3, dim=-1)
        branches = [branch.flatten(1, 2) for branch in (self.shift1(x1), self.shift2(x2), x3)]
        return self.mlp2(self.split_attention(torch.stack(branches, 1).unflatten(2, (h, w))))


@gallery.add(FIRST, SECOND, shape=(2, 6, 5, C), truth=with_reference(shift1=FIRST, shift2=SECOND), **ATTENTION)
class SumOfBranches(S2Attention):
    """The ablation without attention: the branches are added."""

    def __init__(self) -> None:
        super().__init__()
        del self.split_attention
        seeded(self)

    def forward(self, x: Tensor) -> Tensor:
        x1, x2, x3 = self.mlp1(x).chunk(3, -1)
        return self.mlp2(self.shift1(x1) + self.shift2(x2) + x3)


@gallery.add(
    FIRST,
    SECOND,
    shape=(1, 3, 24, 20),
    truth=with_reference(shift1=FIRST, shift2=SECOND),
    export=True,
    large=((1, 3, 112, 112),),
    **ATTENTION,
)
class Detector(nn.Module):
    """One of three branches is the attention; two heads answer in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, C, 4, 4), nn.BatchNorm2d(C), nn.SiLU())
        self.attention = S2Attention(C)
        self.local = nn.Conv2d(C, C, 3, padding=1, groups=C)
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.neck = nn.Conv2d(3 * C, C, 1)
        self.boxes = nn.Conv2d(C, 4, 1)
        self.scores = nn.Conv2d(C, 5, 1)
        seeded(self)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = self.stem(image)
        attended = self.attention(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = torch.cat([attended, self.local(x), self.pool(x)], dim=1)
        x = F.relu(self.neck(x))
        return {"boxes": self.boxes(x).flatten(2), "scores": self.scores(x).flatten(2).sigmoid()}


@gallery.add(
    nchw(four(2, 1)),
    shape=(1, 3, 12, 10),
    truth=with_reference(shift=nchw(four(2, 1))),
    exact=False,
)
class UnetSkip(nn.Module):
    """The skip takes the tensor before its shift."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 8, 2, 2)
        self.up = nn.ConvTranspose2d(8, 8, 2, 2)
        self.leave = nn.Conv2d(24, 2, 1)
        seeded(self)

    def shift(self, x: Tensor) -> Tensor:
        y = x.clone()
        y[:, 0:2, 1:] = x[:, 0:2, :-1]
        y[:, 2:4, :-1] = x[:, 2:4, 1:]
        y[:, 4:6, :, 1:] = x[:, 4:6, :, :-1]
        y[:, 6:8, :, :-1] = x[:, 6:8, :, 1:]
        return y

    def forward(self, x: Tensor) -> Tensor:
        skip = self.enter(x)
        y = self.shift(skip)
        return self.leave(torch.cat([skip, y, self.up(F.gelu(self.down(y)))], 1))


@gallery.add(
    FIRST,
    FIRST,
    shape=((1, C, 6, 6), (1, C, 12, 10)),
    truth=with_reference(shift=FIRST),
    race=True,
    exact=False,
    export=True,
)
class TrackerOfTwoInputs(nn.Module):
    """Template and search image go through the same block; two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(C, C)
        self.leave = nn.Linear(C, C)
        seeded(self)

    def shift(self, x: Tensor) -> Tensor:
        return shift_rows_first(x)

    def block(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = x + self.leave(self.shift(F.gelu(self.enter(x))))
        return x.permute(0, 3, 1, 2)

    def forward(self, template: Tensor, search: Tensor) -> tuple[Tensor, Tensor]:
        template, search = self.block(template), self.block(search)
        return template.mean((2, 3)), search * template.amax((2, 3), keepdim=True)


EIGHT = [(1, (dy, dx)) for dy in (1, 0, -1) for dx in (1, 0, -1) if dy or dx]


@gallery.add(
    nhwc(EIGHT, "edge"),
    shape=(2, 6, 5, 8),
    truth=with_reference(shift=nhwc(EIGHT, "edge")),
    exact=False,
)
class S2BlockEightNeighbours(nn.Module):
    """S2-MLP's post-norm block with all eight neighbours, a replicate pad under them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 8), nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        seeded(self)

    def shift(self, x: Tensor) -> Tensor:
        h, w = x.shape[1:3]
        padded = F.pad(x.permute(0, 3, 1, 2), (1, 1, 1, 1), mode="replicate").permute(0, 2, 3, 1)
        steps = [(dy, dx) for dy in (1, 0, -1) for dx in (1, 0, -1) if dy or dx]
        parts = [
            padded[:, 1 - dy : 1 - dy + h, 1 - dx : 1 - dx + w, index : index + 1]
            for index, (dy, dx) in enumerate(steps)
        ]
        return torch.cat(parts, dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.fc2(self.shift(F.gelu(self.fc1(x)))))


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


STILL_USED = nhwc(four(2))


@gallery.add(STILL_USED, shape=(2, 6, 5, 8), truth=with_reference(shift=STILL_USED), exact=False)
class UnshiftedTensorStillUsed(nn.Module):
    """The shift's result, a slice of it and its input are all used."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = seeded(nn.Linear(8, 8))

    def shift(self, x: Tensor) -> Tensor:
        y = x.clone()
        y[:, 1:, :, :2] = x[:, :-1, :, :2]
        y[:, :-1, :, 2:4] = x[:, 1:, :, 2:4]
        y[:, :, 1:, 4:6] = x[:, :, :-1, 4:6]
        y[:, :, :-1, 6:] = x[:, :, 1:, 6:]
        return y

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.fc(x)
        y = self.shift(x)
        return y - x, y[..., :2].mean((1, 2))
