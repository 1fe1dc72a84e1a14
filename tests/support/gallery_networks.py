"""Blocks and small networks of the families that use shifts, written anew after papers and public code."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from gallery_case import (
    Collection,
    four,
    nchw,
    nhwc,
    seeded,
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
