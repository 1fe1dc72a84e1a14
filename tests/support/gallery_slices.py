"""Shifts without a write: slices put together, pads cut out of, rolls, flips, rows in another order."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from gallery_case import Collection, either, four, moved, nchw, nhwc, spec
from torch import Tensor, nn

gallery = Collection("slices")

IMAGE = (2, 6, 5, 8)
LARGE = ((1, 28, 28, 192),)
PLANES = (2, 8, 6, 5)
LARGE_PLANES = ((1, 192, 28, 28),)


@gallery.add(nhwc(four(2)), shape=IMAGE, large=LARGE)
def cat_of_slices(x: Tensor) -> Tensor:
    a, b, c, d = (x + 1).chunk(4, -1)
    a = torch.cat([a[:, :1], a[:, :-1]], 1)
    b = torch.cat([b[:, 1:], b[:, -1:]], 1)
    c = torch.cat([c[:, :, :1], c[:, :, :-1]], 2)
    d = torch.cat([d[:, :, 1:], d[:, :, -1:]], 2)
    return torch.cat([a, b, c, d], -1)


@gallery.add(nchw(four(2), "zero"), shape=PLANES, sizes=((1, 8, 7, 9),), large=LARGE_PLANES)
def cat_with_zeros(x: Tensor) -> Tensor:
    x = x + 1
    n, c, h, w = x.shape
    q = c // 4
    row, column = x.new_zeros(n, q, 1, w), x.new_zeros(n, q, h, 1)
    return torch.cat(
        [
            torch.cat([row, x[:, :q, :-1]], 2),
            torch.cat([x[:, q : 2 * q, 1:], row], 2),
            torch.cat([column, x[:, 2 * q : 3 * q, :, :-1]], 3),
            torch.cat([x[:, 3 * q :, :, 1:], column], 3),
        ],
        1,
    )


@gallery.add(
    nchw(four(2), "edge"), shape=PLANES, export=True, forms=True, sizes=((1, 8, 7, 9), (2, 8, 3, 2)), large=LARGE_PLANES
)
def replicate_pad_then_slices(x: Tensor) -> Tensor:
    x = x + 1
    h, w = x.shape[2:]
    p = F.pad(x, (1, 1, 1, 1), mode="replicate")
    q = x.shape[1] // 4
    return torch.cat(
        [
            p[:, :q, 0:h, 1 : w + 1],
            p[:, q : 2 * q, 2 : h + 2, 1 : w + 1],
            p[:, 2 * q : 3 * q, 1 : h + 1, 0:w],
            p[:, 3 * q :, 1 : h + 1, 2 : w + 2],
        ],
        dim=1,
    )


@gallery.add(nchw([(3, (1, 0)), (5, (0, -2))], "zero"), shape=PLANES)
def zero_pad_then_narrow(x: Tensor) -> Tensor:
    x = x + 1
    a, b = torch.split(x, [3, 5], dim=1)
    a = F.pad(a, (0, 0, 1, 0)).narrow(2, 0, x.shape[2])
    b = F.pad(b, (0, 2)).narrow(3, 2, x.shape[3])
    return torch.cat((a, b), dim=1)


@gallery.add(nchw([(4, (2, 0)), (4, (-1, 1))], "circular"), shape=PLANES)
def circular_pad_then_slices(x: Tensor) -> Tensor:
    p = F.pad(x + 1, (1, 1, 2, 2), mode="circular")
    return torch.cat([p[:, :4, :-4, 1:-1], p[:, 4:, 3:-1, :-2]], 1)


@gallery.add(nchw(four(2), "edge"), shape=PLANES, sizes=((1, 8, 7, 9), (2, 8, 3, 2)), large=LARGE_PLANES)
def roll_of_a_replicate_pad(x: Tensor) -> Tensor:
    x = F.pad(x + 1, (1, 1, 1, 1), mode="replicate")
    parts = []
    for part, (step, axis) in zip(x.chunk(4, 1), ((1, 2), (-1, 2), (1, 3), (-1, 3)), strict=True):
        parts.append(torch.roll(part, step, axis))
    return torch.cat(parts, 1)[:, :, 1:-1, 1:-1]


@gallery.add(nhwc([(4, (1, 0)), (4, (0, -1))]), shape=IMAGE)
def roll_then_first_row_back(x: Tensor) -> Tensor:
    x = x + 1
    down, left = x[..., :4], x[..., 4:]
    rolled = torch.roll(down, shifts=1, dims=1)
    down = torch.cat([down.narrow(1, 0, 1), rolled.narrow(1, 1, x.size(1) - 1)], dim=1)
    rolled = torch.roll(left, shifts=-1, dims=2)
    left = torch.cat([rolled.narrow(2, 0, x.size(2) - 1), left.narrow(2, x.size(2) - 1, 1)], dim=2)
    return torch.cat([down, left], dim=3)


@gallery.add(nchw([(2, (0, -2)), (2, (0, -1)), (2, (0, 0)), (2, (0, 1)), (2, (0, 2))], "circular"), shape=(2, 10, 6, 5))
def mixed_rolls_of_chunks(x: Tensor) -> Tensor:
    # MS-MLP: each chunk of channels has a step of its own.
    chunks = torch.chunk(x + 1, 5, dim=1)
    return torch.cat([torch.roll(part, step, dims=3) for part, step in zip(chunks, range(-2, 3), strict=True)], 1)


@gallery.add(nchw([(2, (1, 0)), (2, (-1, 0)), (2, (0, 2)), (1, (0, -2))], "circular"), shape=(2, 7, 6, 5))
def chunks_that_do_not_divide(x: Tensor) -> Tensor:
    # Seven channels in four chunks: 2, 2, 2 and 1.
    a, b, c, d = (x + 1).chunk(4, dim=1)
    return torch.cat([a.roll(1, 2), b.roll(-1, 2), c.roll(2, 3), d.roll(-2, 3)], 1)


@gallery.add(nchw([(4, (1, 1)), (4, (-1, 1))], "circular"), shape=PLANES)
def diagonal_roll(x: Tensor) -> Tensor:
    x = x + 1
    return torch.cat([torch.roll(x[:, :4], (1, 1), (2, 3)), torch.roll(x[:, 4:], (-1, 1), (2, 3))], 1)


@gallery.add(nchw([(4, (1, 1)), (4, (-1, 1))], "edge"), shape=PLANES)
def diagonal_cut_of_a_replicate_pad(x: Tensor) -> Tensor:
    p = nn.ReplicationPad2d(1)(x + 1)
    return torch.cat([p[:, :4, :-2, :-2], p[:, 4:, 2:, :-2]], 1)


@gallery.add(nchw([(4, (1, 1)), (4, (-1, 1))], "zero"), shape=PLANES)
def diagonal_cut_of_a_zero_pad(x: Tensor) -> Tensor:
    p = nn.ZeroPad2d(1)(x + 1)
    return torch.cat([p[:, :4, :-2, :-2], p[:, 4:, 2:, :-2]], 1)


@gallery.add(nchw([(4, (3, 0)), (4, (-3, 2))], "edge"), shape=PLANES)
def long_steps_of_a_replicate_pad(x: Tensor) -> Tensor:
    p = F.pad(x + 1, (3, 3, 3, 3), mode="replicate")
    return torch.cat([p[:, :4, :-6, 3:-3], p[:, 4:, 6:, 1:-5]], 1)


@gallery.add(nchw([(8, (1, -1))], "zero"), shape=PLANES)
def pad_that_also_crops(x: Tensor) -> Tensor:
    # Negative pads cut: one operator, no slice.
    return F.pad(x + 1, (-1, 1, 1, -1))


@gallery.add(nhwc([(4, (1, 0)), (4, (-1, 0))]), shape=IMAGE)
def backward_as_flipped_forward(x: Tensor) -> Tensor:
    def forward_step(part: Tensor) -> Tensor:
        return torch.cat([part[:, :1], part[:, :-1]], dim=1)

    x = x + 1
    return torch.cat([forward_step(x[..., :4]), forward_step(x[..., 4:].flip(1)).flip(1)], dim=-1)


KEPT = nhwc([(8, (1, 0))])
ROLLED = nhwc([(8, (1, 0))], "circular")


def _kept(module, x):  # type: ignore[no-untyped-def]
    return [moved(x + 1, [(8, (1, 0))], (1, 2), 3, "keep")]


@gallery.add(KEPT, shape=IMAGE, truth=_kept, also=(((ROLLED,),),), rest=frozenset({"where"}))
def where_a_constant_mask_keeps(x: Tensor) -> Tensor:
    x = x + 1
    first = (torch.arange(x.shape[1]) == 0).view(1, -1, 1, 1)
    return torch.where(first, x, torch.roll(x, 1, 1))


@gallery.add(nchw([(8, (1, 0))]), shape=PLANES)
def rows_unbound_and_stacked(x: Tensor) -> Tensor:
    rows = list(torch.unbind(x + 1, dim=2))
    return torch.stack([rows[0], *rows[:-1]], dim=2)


@gallery.add(nchw([(4, (1, 0)), (4, (0, 0))]), shape=PLANES)
def rows_selected_and_stacked(x: Tensor) -> Tensor:
    x = x + 1
    half = x[:, :4]
    order = [0, 0, 1, 2, 3, 4]
    return torch.cat([torch.stack([half.select(2, row) for row in order], dim=2), x[:, 4:]], dim=1)


@gallery.add(nhwc(four(2)), shape=IMAGE)
def moved_axes_and_uneven_splits(x: Tensor) -> Tensor:
    # The channels first, every part pushed along its own first spatial axis.
    parts = torch.movedim(x + 1, -1, 0).tensor_split(4, dim=0)
    out = []
    for index, part in enumerate(parts):
        axis = 2 if index < 2 else 3
        part = part.transpose(0, axis)
        part = torch.cat([part[:1], part[:-1]]) if index % 2 == 0 else torch.cat([part[1:], part[-1:]])
        out.append(part.transpose(0, axis))
    return torch.movedim(torch.cat(out, 0), 0, -1)


def _along_columns(module, x):  # type: ignore[no-untyped-def]
    return [moved(x + 1, [(4, (1, 0)), (4, (-1, 0))], (2, 3), 1, "zero")]


@gallery.add(
    (nchw([(4, (1, 0)), (4, (-1, 0))], "zero"), spec([(4, (1,)), (4, (-1,))], (1,), 2, "zero")),
    shape=PLANES,
    truth=_along_columns,
)
def columns_as_sequences(x: Tensor) -> Tensor:
    # 'b c h w -> (b w) h c' as einops writes it: every column is a sequence of its own.
    b, c, h, w = x.shape
    sequence = (x + 1).permute(0, 3, 2, 1).reshape(b * w, h, c)
    first, second = sequence.split(c // 2, dim=-1)
    first = F.pad(first, (0, 0, 1, 0))[:, :h]
    second = F.pad(second, (0, 0, 0, 1))[:, 1:]
    sequence = torch.cat([first, second], -1)
    return sequence.reshape(b, w, h, c).permute(0, 3, 2, 1)


def _tokens(module, x):  # type: ignore[no-untyped-def]
    y = moved((x + 1).reshape(2, 6, 5, 8), four(2), (1, 2), 3, "keep")
    return [y.reshape(2, 30, 8)]


@gallery.add(nhwc(four(2)), shape=(2, 30, 8), truth=_tokens, race=True)
def tokens_seen_as_an_image(x: Tensor) -> Tensor:
    b, n, c = x.shape
    y = (x + 1).reshape(b, 6, 5, c)
    y[:, 1:, :, :2] = y[:, :-1, :, :2]
    y[:, :-1, :, 2:4] = y[:, 1:, :, 2:4]
    y[:, :, 1:, 4:6] = y[:, :, :-1, 4:6]
    y[:, :, :-1, 6:] = y[:, :, 1:, 6:]
    return y.reshape(b, n, c)


@gallery.add(spec([(8, (1,))], (1,), 2, "circular"), shape=(2, 30, 8))
def flat_tokens_rolled_into_the_next_row(x: Tensor) -> Tensor:
    # Of the tokens it is a circular shift; of the image behind them it is none: a row's last token starts the next row.
    b, n, c = x.shape
    image = (x + 1).view(b, 6, 5, c)
    return torch.roll(image.reshape(b, n, c), 1, dims=1)


def _twice(module, x):  # type: ignore[no-untyped-def]
    once = moved(x + 1, four(2), (2, 3), 1, "edge")
    return [moved(once, turned_groups, (2, 3), 1, "edge")]


turned_groups = [(2, (0, 1)), (2, (0, -1)), (2, (1, 0)), (2, (-1, 0))]
TOGETHER = nchw([(2, (1, 1)), (2, (-1, -1)), (2, (1, 1)), (2, (-1, -1))], "edge")


@gallery.add(
    TOGETHER,
    shape=PLANES,
    truth=_twice,
    also=(((nchw(four(2), "edge"),), (nchw(turned_groups, "edge"),)),),
)
def two_shifts_in_a_row(x: Tensor) -> Tensor:
    x = _edge_steps(x + 1, ((2, 1), (2, -1), (3, 1), (3, -1)))
    return _edge_steps(x, ((3, 1), (3, -1), (2, 1), (2, -1)))


def _edge_steps(x: Tensor, steps: tuple[tuple[int, int], ...]) -> Tensor:
    out = []
    for part, (axis, step) in zip(x.chunk(len(steps), 1), steps, strict=True):
        size = part.size(axis)
        ends = [part.narrow(axis, 0, size - 1), part.narrow(axis, 1, size - 1)]
        border = [part.narrow(axis, 0, 1), part.narrow(axis, size - 1, 1)]
        out.append(torch.cat([border[0], ends[0]] if step > 0 else [ends[1], border[1]], axis))
    return torch.cat(out, 1)


def _there_and_back(module, x):  # type: ignore[no-untyped-def]
    y = moved(x + 1, [(8, (1, 0))], (2, 3), 1, "zero")
    return [moved(y, [(8, (-1, 0))], (2, 3), 1, "zero")]


@gallery.add(
    nchw([(8, (1, 0))], "zero"),
    nchw([(8, (-1, 0))], "zero"),
    shape=PLANES,
    truth=_there_and_back,
    also=(((nchw([(8, (1, 0))], "zero"),),), ((nchw([(8, (-1, 0))], "zero"),),)),
    rest=frozenset({"constant_pad_nd", "pad"}),
)
def there_and_back_over_zeros(x: Tensor) -> Tensor:
    # Together they are no shift: the last row is lost on the way. Each of them is one.
    down = F.pad(x + 1, (0, 0, 1, 0))[:, :, :-1]
    return F.pad(down, (0, 0, 0, 1))[:, :, 1:]


SIX = [
    (2, (1, 0, 0)),
    (2, (-1, 0, 0)),
    (2, (0, 1, 0)),
    (2, (0, -1, 0)),
    (2, (0, 0, 1)),
    (2, (0, 0, -1)),
]


@gallery.add(spec(SIX, (2, 3, 4), 1, "edge"), shape=(1, 12, 4, 5, 3))
def volume_cut_of_a_replicate_pad(x: Tensor) -> Tensor:
    p = F.pad(x + 1, (1,) * 6, mode="replicate")
    d, h, w = x.shape[2:]
    starts = ((0, 1, 1), (2, 1, 1), (1, 0, 1), (1, 2, 1), (1, 1, 0), (1, 1, 2))
    cut = [
        part[:, :, z : z + d, y : y + h, x0 : x0 + w]
        for part, (z, y, x0) in zip(p.split(2, dim=1), starts, strict=True)
    ]
    return torch.cat(cut, 1)


@gallery.add(either(four(2), "circular"), shape=PLANES)
def rolls_between_permutations(x: Tensor) -> Tensor:
    a, b, c, d = (x + 1).permute(0, 2, 3, 1).split(2, dim=-1)
    y = torch.cat([a.roll(1, 1), b.roll(-1, 1), c.roll(1, 2), d.roll(-1, 2)], -1)
    return y.permute(0, 3, 1, 2).contiguous()


# A shift of a part: what is around it stays, for it moves no content but puts the part back.
PART = frozenset({"slice_scatter", "copy", "zeros_like"}) | {"index_select"}


def _first_items(module, x):  # type: ignore[no-untyped-def]
    y = x + 1
    y[:2] = moved(y[:2], [(8, (1, 0))], (1, 2), 3, "keep")
    return [y]


@gallery.add(nhwc([(8, (1, 0))]), shape=IMAGE, truth=_first_items, rest=PART)
def only_the_first_items(x: Tensor) -> Tensor:
    # The whole is a shift at the example's batch of two and at no larger one.
    x = x + 1
    y = x.clone()
    y[:2, 1:] = x[:2, :-1]
    return y


def _two_tensors(module, x, other):  # type: ignore[no-untyped-def]
    down = moved(x[:, :4] + 1, [(4, (1, 0))], (2, 3), 1, "zero")
    up = moved(other[:, 4:] + 1, [(4, (-1, 0))], (2, 3), 1, "zero")
    return [np.concatenate([down, up], 1)]


HALVES = (nchw([(4, (1, 0))], "zero"), nchw([(4, (-1, 0))], "zero"))


@gallery.add(*HALVES, shape=(PLANES, PLANES), truth=_two_tensors, rest=PART)
def groups_from_two_tensors(x: Tensor, other: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, :4, 1:] = (x + 1)[:, :4, :-1]
    y[:, 4:, :-1] = (other + 1)[:, 4:, 1:]
    return y


def _exchanged(module, x):  # type: ignore[no-untyped-def]
    up = moved(x[:, 4:] + 1, [(4, (-1, 0))], (2, 3), 1, "zero")
    down = moved(x[:, :4] + 1, [(4, (1, 0))], (2, 3), 1, "zero")
    return [np.concatenate([up, down], 1)]


# Half of the channels, four further and one row down, with zeros around: told of one channels-last image it is the same
# movement, and nothing in the code says which axis holds channels.
DIAGONAL = nhwc([(5, (4, 1))], "zero")


@gallery.add(*HALVES, also=(((DIAGONAL,), (HALVES[1],)),), shape=PLANES, truth=_exchanged, rest=PART)
def halves_that_change_places(x: Tensor) -> Tensor:
    # The groups move as in a shift but come out in another order of channels.
    x = x + 1
    y = torch.zeros_like(x)
    y[:, 4:, 1:] = x[:, :4, :-1]
    y[:, :4, :-1] = x[:, 4:, 1:]
    return y


def _even_rows(module, x):  # type: ignore[no-untyped-def]
    y = x + 1
    y[:, :4, ::2] = moved(y[:, :4, ::2], [(4, (0, 1))], (2, 3), 1, "keep")
    return [y]


ROWS_IN_TURN = spec([(1, ((index % 2 == 0 and 1) or 0,)) for index in range(6)], (3,), 2)


@gallery.add(
    (nchw([(4, (0, 1))]), ROWS_IN_TURN),
    shape=PLANES,
    truth=_even_rows,
    rest=PART,
)
def every_second_row_moved(x: Tensor) -> Tensor:
    # The slice of even rows is shifted; the whole is not.
    x = x + 1
    y = x.clone()
    y[:, :4, ::2, 1:] = x[:, :4, ::2, :-1]
    return y


@gallery.add(nchw([(4, (1, 0)), (4, (0, -1))], "zero"), shape=PLANES, export=True, large=LARGE_PLANES)
def roll_then_border_zeroed(x: Tensor) -> Tensor:
    x = x + 1
    down, left = torch.roll(x[:, :4], 1, 2), torch.roll(x[:, 4:], -1, 3)
    down[:, :, 0] = 0
    left[:, :, :, -1] = 0
    return torch.cat([down, left], 1)


@gallery.add(nchw([(4, (2, 0)), (4, (0, 0))]), shape=PLANES)
def roll_then_border_of_the_input(x: Tensor) -> Tensor:
    x = x + 1
    y = x.clone()
    y[:, :4] = torch.roll(x[:, :4], 2, 2)
    y[:, :4, :2] = x[:, :4, :2]
    return y


@gallery.add(nhwc([(5, (1, 0))], "circular"), shape=PLANES)
def channels_rolled(x: Tensor) -> Tensor:
    # Meant as a permutation of channels; it cannot be told from rows of a channels-last image that move around, and is
    # the same values either way.
    return torch.roll(x + 1, 1, dims=1)
