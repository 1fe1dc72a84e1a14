"""The images that rows are of: where elements of flattened tensors move, height and width are read off the movement.

Code that looks rows up in a table flattens height and width, and every tensor around the table may be flat: a row for
each position of each image. How high and wide an image is shows in the movement alone: with the right sizes it is a
shift, with others it is none.

More movements are shifts with some sizes than with those of an image, so less is taken for one here than where a tensor
of the graph has the sizes. A step is less than half an axis: ``0, 0, 2, 2`` repeats elements, and moves none. Elements
that leave at one end and come in at the other are a shift only where groups move by different steps: a permutation of
rows is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from s2mlp_deploy.recognition.match import NoShift, match_shifts, positions_in
from s2mlp_deploy.shift.spec import ShiftSpec

_MOST_COLUMNS = 8
"""Channels that are looked at for the sizes; the shift is compared whole afterwards."""
_MOST_ROWS = 1 << 17
"""More rows than these are not looked through: every divisor of their number may be a size."""

Frame = tuple[int, ...]
"""The sizes of an image and how many there are: -1, as many as there are elements for."""


def shifts_in_frames(
    moved: Tensor, base: Tensor, known: Sequence[Sequence[int]]
) -> Iterator[tuple[Frame, tuple[ShiftSpec, ...]]]:
    """The shifts that turn one tensor into another once both are seen as images, with the sizes of these.

    Args:
        moved: Index map after the movement.
        base: Index map before it, each element once and no constant; as many elements.
        known: Shapes of tensors of as many elements.

    Yields:
        Sizes, and shifts as :func:`~s2mlp_deploy.recognition.match.match_shifts` tells them: at most once, with sizes
        of ``known`` or else with those that the movement alone tells.
    """
    own = (tuple(moved.shape), tuple(base.shape))
    for frame in dict.fromkeys((-1, *shape[1:]) for shape in (*own, *known) if len(shape) > 3):
        specs = tuple(spec for spec in _matches(moved, base, frame) if _moves_less_than_half(spec, frame))
        if specs:
            yield frame, specs
            return
    position = positions_in(moved, base)
    if isinstance(position, NoShift) or max(map(len, own)) > 3:
        return  # A tensor that is no longer flat has the sizes of its images.
    best: tuple[int, Frame, tuple[ShiftSpec, ...]] | None = None
    for frame, channel_axis in _guesses(position, own):
        specs = tuple(
            spec
            for spec in _matches(moved, base, frame, channel_axis)
            if _moves_less_than_half(spec, frame) and (spec.border != "circular" or _moves_apart(spec))
        )
        if specs:
            step = max(abs(offset) for group in specs[0].groups for offset in group.offsets)
            if best is None or step < best[0]:
                best = step, frame, specs
            if step == 1:
                break
    if best is not None:
        yield best[1:]


def _matches(moved: Tensor, base: Tensor, frame: Frame, channel_axis: int | None = None) -> tuple[ShiftSpec, ...]:
    after, before = moved.reshape(frame), base.reshape(frame)
    return () if torch.equal(after, before) else match_shifts(after, before, channel_axis)


def _moves_less_than_half(spec: ShiftSpec, frame: Frame) -> bool:
    """Whether every step is less than half of its axis, and none leads from image to image."""
    steps = [(frame[a], abs(s)) for group in spec.groups for a, s in zip(spec.axes, group.offsets, strict=True)]
    return all(2 * step < size for size, step in steps)


def _moves_apart(spec: ShiftSpec) -> bool:
    return len({group.offsets for group in spec.groups}) > 1


def _guesses(position: Tensor, shapes: Sequence[Sequence[int]]) -> Iterator[tuple[Frame, int]]:
    """Sizes by which a few of the channels are shifted, with the axis of the channels.

    Args:
        position: Of the element that each element is in the tensor before the movement, flat; −1 for zeros.
        shapes: Of the tensor after and before the movement.
    """
    after = tuple(position.shape)
    for channels in dict.fromkeys(shape[-1] for shape in shapes if len(shape) > 1 and shape[-1] > 1):
        place = position.reshape(-1, channels)
        own = torch.arange(channels, dtype=place.dtype)
        if bool(((place % channels != own) & (place >= 0)).any()):
            continue  # Elements change their channel.
        source = torch.where(place < 0, -1, torch.div(place, channels, rounding_mode="floor"))
        images = [after[-2]] if len(after) > 2 and after[-1] == channels else None
        for height, width in _sizes(_columns(source), images):
            if height > 1 and width > 1:
                yield (-1, height, width, channels), 3
            elif images is None:  # Of one row: a sequence.
                yield (-1, height * width, channels), 2
    if len(after) > 2:
        channels, rows = after[-2:]
        place = position.reshape(-1, channels, rows)
        plane = torch.div(place, rows, rounding_mode="floor")
        own = torch.arange(len(place) * channels, dtype=place.dtype).reshape(-1, channels, 1)
        if not bool(((plane != own) & (place >= 0)).any()):
            image = torch.arange(len(place), dtype=place.dtype)[:, None, None] * rows
            source = torch.where(place < 0, -1, place % rows + image).transpose(1, 2).reshape(-1, channels)
            for height, width in _sizes(_columns(source), [rows]):
                if height > 1 and width > 1:
                    yield (-1, channels, height, width), 1


def _columns(source: Tensor) -> Tensor:
    """A few channels that move differently, [rows, channels]: the row that each row was."""
    moves = (source != torch.arange(len(source), dtype=source.dtype)[:, None]).any(0)
    new = torch.ones_like(moves)
    new[1:] = (source[:, 1:] != source[:, :-1]).any(0)
    return source[:, (moves & new).nonzero().flatten()[:_MOST_COLUMNS]]


def _sizes(source: Tensor, images: Sequence[int] | None) -> Iterator[tuple[int, int]]:
    """Heights and widths of images whose rows move so, the smallest images first, of these the squarest.

    Args:
        source: Which row each row was, [rows, channels].
        images: How many rows an image may have; None where that is not known.
    """
    count = len(source)
    if not source.shape[1] or count > _MOST_ROWS:
        return
    own = torch.arange(count, dtype=source.dtype)[:, None]
    numbers = torch.arange(1, source.numel() + 1, dtype=torch.int32).reshape(source.shape)
    taken = numbers.gather(0, source.clamp(min=0).long())
    moved = torch.where(source < 0, 0, taken)
    for rows in images or _divisors(count):
        crossing = torch.div(source, rows, rounding_mode="floor") != torch.div(own, rows, rounding_mode="floor")
        if count % rows or bool((crossing & (source >= 0)).any()):
            continue  # Elements change their image.
        for width in sorted(_divisors(rows), key=lambda width: abs(math.log(width * width / rows))):
            shape = (-1, rows // width, width, source.shape[1])
            after, before = moved.reshape(shape), numbers.reshape(shape)
            # One channel tells of most sizes that they are wrong.
            if all(match_shifts(after[..., :n], before[..., :n], 3) for n in (1, shape[3])):
                yield rows // width, width


def _divisors(number: int) -> list[int]:
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})
