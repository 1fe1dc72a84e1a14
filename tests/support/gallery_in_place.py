"""Slice assignment: onto the tensor itself, as nearly all public S2-MLP code has it, or onto a copy."""

from __future__ import annotations

import torch
from gallery_case import Collection, either, four, moved, nchw, nhwc, only, spec, targets_and_sources, turned
from torch import Tensor, nn

gallery = Collection("in-place")

IMAGE = (2, 6, 5, 8)
"""Channels last."""
LARGE = ((1, 28, 28, 192),)
PLANES = (2, 8, 6, 5)
"""Channels first."""
LARGE_PLANES = ((1, 192, 28, 28),)


@gallery.add(nhwc(four(2)), shape=IMAGE, race=True, export=True, forms=True, large=LARGE)
def in_place_channels_last(x: Tensor) -> Tensor:
    x = x + 1
    c = x.size(3)
    x[:, 1:, :, : c // 4] = x[:, :-1, :, : c // 4]
    x[:, :-1, :, c // 4 : c // 2] = x[:, 1:, :, c // 4 : c // 2]
    x[:, :, 1:, c // 2 : c * 3 // 4] = x[:, :, :-1, c // 2 : c * 3 // 4]
    x[:, :, :-1, 3 * c // 4 :] = x[:, :, 1:, 3 * c // 4 :]
    return x


@gallery.add(nhwc(turned(2)), shape=IMAGE, race=True)
def in_place_width_first(x: Tensor) -> Tensor:
    x = x + 1
    b, w, h, c = x.size()
    x[:, :, 1:, : c // 4] = x[:, :, : h - 1, : c // 4]
    x[:, :, : h - 1, c // 4 : c // 2] = x[:, :, 1:, c // 4 : c // 2]
    x[:, 1:, :, c // 2 : c * 3 // 4] = x[:, : w - 1, :, c // 2 : c * 3 // 4]
    x[:, : w - 1, :, 3 * c // 4 :] = x[:, 1:, :, 3 * c // 4 :]
    return x


@gallery.add(nchw(four(2)), shape=PLANES, race=True, sizes=((1, 8, 7, 9), (3, 8, 3, 4)), large=LARGE_PLANES)
def in_place_channels_first(x: Tensor) -> Tensor:
    x = x + 1
    q = x.size(1) // 4
    x[:, :q, 1:] = x[:, :q, :-1]
    x[:, q : 2 * q, :-1] = x[:, q : 2 * q, 1:]
    x[:, 2 * q : 3 * q, ..., 1:] = x[:, 2 * q : 3 * q, ..., :-1]
    x[:, 3 * q :, ..., :-1] = x[:, 3 * q :, ..., 1:]
    return x


@gallery.add(
    either(four(2)),
    shape=PLANES,
    race=True,
    sizes=((1, 8, 7, 9), (2, 8, 2, 3)),
    large=LARGE_PLANES,
)
def planes_viewed_as_channels_last(x: Tensor) -> Tensor:
    y = (x + 1).permute(0, 2, 3, 1)
    q = y.shape[-1] // 4
    y[:, 1:, :, :q] = y[:, :-1, :, :q]
    y[:, :-1, :, q : q * 2] = y[:, 1:, :, q : q * 2]
    y[:, :, 1:, q * 2 : q * 3] = y[:, :, :-1, q * 2 : q * 3]
    y[:, :, :-1, q * 3 :] = y[:, :, 1:, q * 3 :]
    return y.permute(0, 3, 1, 2)


@gallery.add(nhwc(four(2)), shape=IMAGE, large=LARGE)
def clone_first(x: Tensor) -> Tensor:
    x = x + 1
    y = x.clone()
    q = x.shape[-1] // 4
    y[:, 1:, :, :q] = x[:, :-1, :, :q]
    y[:, :-1, :, q : q * 2] = x[:, 1:, :, q : q * 2]
    y[:, :, 1:, q * 2 : q * 3] = x[:, :, :-1, q * 2 : q * 3]
    y[:, :, :-1, q * 3 :] = x[:, :, 1:, q * 3 :]
    return y


@gallery.add(nhwc([(2, (1, 0)), (2, (0, -1)), (4, (0, 0))]), shape=IMAGE)
def right_hand_side_cloned(x: Tensor) -> Tensor:
    # Half of the channels stay where they are.
    x = x + 1
    x[:, 1:, :, :2] = x[:, :-1, :, :2].clone()
    x[:, :, :-1, 2:4] = x[:, :, 1:, 2:4].clone()
    return x


@gallery.add(nhwc(four(2), "zero"), shape=IMAGE, export=True, large=LARGE)
def zeros_then_fill(x: Tensor) -> Tensor:
    x = x + 1
    q = x.shape[-1] // 4
    y = torch.zeros_like(x)
    y[:, 1:, :, :q] = x[:, :-1, :, :q]
    y[:, :-1, :, q : q * 2] = x[:, 1:, :, q : q * 2]
    y[:, :, 1:, q * 2 : q * 3] = x[:, :, :-1, q * 2 : q * 3]
    y[:, :, :-1, q * 3 :] = x[:, :, 1:, q * 3 :]
    return y


@gallery.add(nhwc([(4, (1, 0)), (4, (0, -1))]), shape=IMAGE)
def uninitialised_then_all_filled(x: Tensor) -> Tensor:
    x = x + 1
    y = torch.empty_like(x)
    y[:, 1:, :, :4] = x[:, :-1, :, :4]
    y[:, 0, :, :4] = x[:, 0, :, :4]
    y[:, :, :-1, 4:] = x[:, :, 1:, 4:]
    y[:, :, -1, 4:] = x[:, :, -1, 4:]
    return y


UNEQUAL = [(1, (1, 0)), (2, (-1, 0)), (3, (0, 1)), (1, (0, -1)), (1, (0, 0))]


@gallery.add(nhwc(UNEQUAL), shape=IMAGE, truth=only(nhwc(UNEQUAL)), race=True)
class UnequalGroups(nn.Module):
    """Group sizes from a list, as in ablations."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = (1, 2, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 1
        start = 0
        for size, axis, step in zip(self.sizes, (1, 1, 2, 2), (1, -1, 1, -1), strict=True):
            target, source = targets_and_sources(4, {axis: step}, 3, slice(start, start + size))
            x[target] = x[source]
            start += size
        return x


SIXTEEN = [(1, (dy, dx)) for dy in (1, -1, 0, 2) for dx in (1, -1, 0, 2)]


@gallery.add(nhwc(SIXTEEN, "zero"), shape=(2, 5, 6, 16))
def sixteen_nested_groups(x: Tensor) -> Tensor:
    # Four quarters move along H, and the quarters of each quarter along W.
    x = x + 1
    tall = torch.zeros_like(x)
    for index, step in enumerate((1, -1, 0, 2)):
        target, source = targets_and_sources(4, {1: step}, 3, slice(index * 4, index * 4 + 4))
        tall[target] = x[source]
    wide = torch.zeros_like(x)
    for outer in range(4):
        for index, step in enumerate((1, -1, 0, 2)):
            target, source = targets_and_sources(4, {2: step}, 3, slice(outer * 4 + index, outer * 4 + index + 1))
            wide[target] = tall[source]
    return wide


@gallery.add(nhwc([(4, (1, 1)), (4, (1, -1)), (4, (-1, 1)), (4, (-1, -1))], "edge"), shape=(2, 5, 6, 16), race=True)
def nested_in_place(x: Tensor) -> Tensor:
    # Halves along H, halves of the halves along W; each write keeps the border, so corners come from the corner.
    x = x + 1
    c = x.shape[-1]
    x[:, 1:, :, : c // 2] = x[:, :-1, :, : c // 2]
    x[:, :-1, :, c // 2 :] = x[:, 1:, :, c // 2 :]
    for half in (0, c // 2):
        x[:, :, 1:, half : half + c // 4] = x[:, :, :-1, half : half + c // 4]
        x[:, :, :-1, half + c // 4 : half + c // 2] = x[:, :, 1:, half + c // 4 : half + c // 2]
    return x


@gallery.add(nhwc(four(2, 2)), shape=IMAGE, race=True)
def step_two_keep(x: Tensor) -> Tensor:
    x = x + 1
    x[:, 2:, :, :2] = x[:, :-2, :, :2]
    x[:, :-2, :, 2:4] = x[:, 2:, :, 2:4]
    x[:, :, 2:, 4:6] = x[:, :, :-2, 4:6]
    x[:, :, :-2, 6:] = x[:, :, 2:, 6:]
    return x


@gallery.add(nhwc([(4, (2, 0)), (4, (0, -2))], "edge"), shape=IMAGE)
def step_two_edge(x: Tensor) -> Tensor:
    x = x + 1
    y = x.clone()
    y[:, 2:, :, :4] = x[:, :-2, :, :4]
    y[:, :2, :, :4] = x[:, :1, :, :4]
    y[:, :, :-2, 4:] = x[:, :, 2:, 4:]
    y[:, :, -2:, 4:] = x[:, :, -1:, 4:]
    return y


@gallery.add(nhwc([(4, (2, 0)), (4, (0, -2))], "zero"), shape=IMAGE)
def step_two_zero(x: Tensor) -> Tensor:
    x = x + 1
    y = x.new_zeros(x.shape)
    y[:, 2:, :, :4] = x[:, :-2, :, :4]
    y[:, :, :-2, 4:] = x[:, :, 2:, 4:]
    return y


@gallery.add(nhwc([(4, (2, 0)), (4, (0, -2))], "circular"), shape=IMAGE)
def step_two_circular(x: Tensor) -> Tensor:
    x = x + 1
    y = torch.empty_like(x)
    y[:, 2:, :, :4] = x[:, :-2, :, :4]
    y[:, :2, :, :4] = x[:, -2:, :, :4]
    y[:, :, :-2, 4:] = x[:, :, 2:, 4:]
    y[:, :, -2:, 4:] = x[:, :, :2, 4:]
    return y


EIGHT = [(1, (dy, dx)) for dy in (1, 0, -1) for dx in (1, 0, -1) if dy or dx]


@gallery.add(nhwc(EIGHT), shape=IMAGE, race=True)
def eight_neighbours_in_place(x: Tensor) -> Tensor:
    # A diagonal in one write: the vacated row AND column keep their own values.
    x = x + 1
    group = 0
    for dy in (1, 0, -1):
        for dx in (1, 0, -1):
            if dy == dx == 0:
                continue
            target, source = targets_and_sources(4, {1: dy, 2: dx}, 3, slice(group, group + 1))
            x[target] = x[source]
            group += 1
    return x


def _push(y: Tensor, x: Tensor, first: int, count: int, axis: int, step: int) -> None:
    """A helper that writes into its argument, one group at a time."""
    size = x.size(axis)
    to, start = (step, 0) if step > 0 else (0, -step)
    length = size - abs(step)
    part = x.narrow(1, first, count).narrow(axis, start, length)
    y.narrow(1, first, count).narrow(axis, to, length).copy_(part)


@gallery.add(nchw([(2, (1, 0)), (2, (-1, 0)), (1, (0, 1)), (3, (0, -1))]), shape=PLANES)
def helper_copies_narrowed_views(x: Tensor) -> Tensor:
    x = x + 1
    y = x.clone()
    first = 0
    for count, axis, step in ((2, 2, 1), (2, 2, -1), (1, 3, 1), (3, 3, -1)):
        _push(y, x, first, count, axis, step)
        first += count
    return y


@gallery.add(nhwc(four(2)), shape=IMAGE, race=True)
def pieces_of_a_chunk_written(x: Tensor) -> Tensor:
    # The pieces are views, so writing them writes x.
    x = x + 1
    a, b, c, d = x.chunk(4, dim=-1)
    a[:, 1:] = a[:, :-1]
    b[:, :-1] = b[:, 1:]
    c[:, :, 1:] = c[:, :, :-1]
    d[:, :, :-1] = d[:, :, 1:]
    return x


@gallery.add(nhwc(four(2)), shape=IMAGE, race=True)
def pieces_of_a_chunk_joined(x: Tensor) -> Tensor:
    pieces = list(torch.chunk(x + 1, 4, dim=3))
    pieces[0][:, 1:] = pieces[0][:, :-1]
    pieces[1][:, :-1] = pieces[1][:, 1:]
    pieces[2][:, :, 1:] = pieces[2][:, :, :-1]
    pieces[3][:, :, :-1] = pieces[3][:, :, 1:]
    return torch.cat(pieces, dim=3)


@gallery.add(nhwc([(8, (1, 0))]), shape=IMAGE)
def rows_one_by_one_from_the_last(x: Tensor) -> Tensor:
    # Row by row, last first: nothing overlaps, so this is a shift and not a smear.
    x = x + 1
    for row in range(x.shape[1] - 1, 0, -1):
        x[:, row] = x[:, row - 1]
    return x


def _filled(module: nn.Module, x):  # type: ignore[no-untyped-def]
    y = moved(x + 1, [(4, (1, 0)), (4, (0, 1))], (1, 2), 3, "keep")
    y[:, :, 0, 4:] = 0
    return [y]


@gallery.add(
    nhwc([(4, (1, 0)), (4, (0, 1))]),
    shape=IMAGE,
    truth=_filled,
    rest=frozenset({"constant_pad_nd", "index_select"}),
)
def shift_then_one_border_zeroed(x: Tensor) -> Tensor:
    # As a whole it is no shift, for its borders differ; what is there before the fill is one.
    x = x + 1
    y = x.clone()
    y[:, 1:, :, :4] = x[:, :-1, :, :4]
    y[:, :, 1:, 4:] = x[:, :, :-1, 4:]
    y[:, :, 0, 4:] = 0.0
    return y


THREE = [
    (2, (1, 0, 0)),
    (2, (-1, 0, 0)),
    (2, (0, 1, 0)),
    (2, (0, -1, 0)),
    (2, (0, 0, 1)),
    (2, (0, 0, -1)),
]


@gallery.add(spec(THREE, (2, 3, 4), 1), shape=(1, 12, 4, 5, 3), race=True, export=True, large=((1, 48, 8, 16, 16),))
def volume_six_directions(x: Tensor) -> Tensor:
    x = x + 1
    n = x.shape[1] // 6
    x[:, :n, 1:] = x[:, :n, :-1]
    x[:, n : 2 * n, :-1] = x[:, n : 2 * n, 1:]
    x[:, 2 * n : 3 * n, :, 1:] = x[:, 2 * n : 3 * n, :, :-1]
    x[:, 3 * n : 4 * n, :, :-1] = x[:, 3 * n : 4 * n, :, 1:]
    x[:, 4 * n : 5 * n, :, :, 1:] = x[:, 4 * n : 5 * n, :, :, :-1]
    x[:, 5 * n :, :, :, :-1] = x[:, 5 * n :, :, :, 1:]
    return x


@gallery.add(spec([(3, (1,)), (3, (-1,))], (1,), 2), shape=(2, 7, 6), race=True)
def time_in_place_channels_last(x: Tensor) -> Tensor:
    x = x + 1
    half = x.shape[-1] // 2
    x[:, 1:, :half] = x[:, :-1, :half]
    x[:, :-1, half:] = x[:, 1:, half:]
    return x


@gallery.add(spec([(2, (1,)), (2, (-1,)), (2, (0,))], (2,), 1, "zero"), shape=(2, 6, 7))
def time_channels_first_zero(x: Tensor) -> Tensor:
    x = x + 1
    y = torch.zeros_like(x)
    y[:, :2, 1:] = x[:, :2, :-1]
    y[:, 2:4, :-1] = x[:, 2:4, 1:]
    y[:, 4:] = x[:, 4:]
    return y
