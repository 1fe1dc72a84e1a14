"""What a grouped spatial shift is, without saying how it is computed.

A shift moves groups of channels by whole steps along spatial axes (S2-MLP, arXiv 2106.07477, section 3.2). It has
no parameters: :class:`ShiftSpec` is all there is to know about it. No torch here, so that reports, manifests and
ONNX lowerings can speak of shifts without it; a manifest holds the dataclasses themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from s2mlp_deploy.errors import ShiftError

Border = Literal["keep", "edge", "zero", "circular"]
BORDERS: tuple[str, ...] = get_args(Border)


@dataclass(frozen=True)
class ShiftGroup:
    """Consecutive channels that move together.

    Attributes:
        channels: How many channels, at least 1.
        offsets: Steps along each of the spec's axes. The content moves by that many elements: with +1 along H, row
            ``h`` of the output is row ``h - 1`` of the input.
    """

    channels: int
    offsets: tuple[int, ...]


@dataclass(frozen=True)
class ShiftSpec:
    """A grouped shift of a tensor of any rank.

    ``output[..., p, ...] = input[..., p - offset, ...]`` for the channels of each group. Elements whose source lies
    outside the tensor are vacated; the border says what they hold:

    * ``keep``: their own input value. For one axis and a step of one this equals ``edge``.
    * ``edge``: the nearest element inside, per axis (replicate padding).
    * ``zero``: 0.
    * ``circular``: the element that left at the other end (``torch.roll``).

    Attributes:
        groups: The channel groups in order; together they cover every channel.
        axes: The spatial axes the offsets speak of, not negative.
        channel_axis: The axis the groups split, not negative and none of ``axes``.
        border: What vacated elements hold.

    Raises:
        ShiftError: A field contradicts another.
    """

    groups: tuple[ShiftGroup, ...]
    axes: tuple[int, ...]
    channel_axis: int
    border: Border = "keep"

    def __post_init__(self) -> None:
        if self.border not in BORDERS:
            raise ShiftError(f"unknown border {self.border!r}", fix=f"use one of {', '.join(BORDERS)}")
        if not self.groups:
            raise ShiftError(
                "a shift needs at least one channel group", fix="give one group of all channels with offsets of 0"
            )
        if self.channel_axis < 0 or any(axis < 0 for axis in self.axes):
            raise ShiftError(
                "axes are counted from the front",
                where=f"axes {self.axes}, channel axis {self.channel_axis}",
                fix="add the tensor's rank to negative axes",
            )
        if len(set(self.axes)) != len(self.axes) or self.channel_axis in self.axes:
            raise ShiftError(
                "spatial axes and channel axis must all differ",
                where=f"axes {self.axes}, channel axis {self.channel_axis}",
                fix="name each axis once",
            )
        for index, group in enumerate(self.groups):
            if group.channels < 1:
                raise ShiftError(f"group {index} has {group.channels} channels", fix="give it at least 1")
            if len(group.offsets) != len(self.axes):
                raise ShiftError(
                    f"group {index} has {len(group.offsets)} offsets for {len(self.axes)} axes",
                    fix="give one offset per axis",
                )

    @classmethod
    def equal_groups(
        cls,
        channels: int,
        offsets: Sequence[tuple[int, ...]],
        *,
        axes: tuple[int, ...],
        channel_axis: int,
        border: Border = "keep",
    ) -> ShiftSpec:
        """Splits the channels evenly, one group per offset, as the papers do.

        Raises:
            ShiftError: The number of groups does not divide the channels.
        """
        if not offsets or channels % len(offsets):
            raise ShiftError(
                f"{len(offsets)} shift groups do not divide {channels} channels",
                fix=f"use a multiple of {max(len(offsets), 1)} channels, or other directions",
            )
        each = channels // len(offsets)
        groups = tuple(ShiftGroup(each, tuple(offset)) for offset in offsets)
        return cls(groups, axes, channel_axis, border)

    @property
    def channels(self) -> int:
        """The number of channels all groups hold together."""
        return sum(group.channels for group in self.groups)

    @property
    def is_identity(self) -> bool:
        """Whether no group moves."""
        return all(not any(group.offsets) for group in self.groups)

    def check_shape(self, shape: Sequence[Any]) -> None:
        """Checks that a tensor of this shape can be shifted; symbolic sizes pass for spatial axes.

        Raises:
            ShiftError: The rank or the number of channels does not fit.
        """
        rank = len(shape)
        if max((self.channel_axis, *self.axes)) >= rank:
            raise ShiftError(
                f"a shift over axes {self.axes} with channels on axis {self.channel_axis} "
                f"does not fit a tensor of rank {rank}",
                where=f"shape {tuple(shape)}",
                fix=f"give a tensor of rank {max((self.channel_axis, *self.axes)) + 1} or more, or other axes",
            )
        if shape[self.channel_axis] != self.channels:
            raise ShiftError(
                f"the shift's groups hold {self.channels} channels, the tensor {shape[self.channel_axis]}",
                where=f"axis {self.channel_axis} of shape {tuple(shape)}",
                fix="make the group sizes add up to the channels",
            )

    def op_args(self) -> tuple[list[int], list[int], list[int], int, str]:
        """The arguments of ``torch.ops.s2mlp.shift`` after the tensor."""
        return (
            [group.channels for group in self.groups],
            [offset for group in self.groups for offset in group.offsets],
            list(self.axes),
            self.channel_axis,
            self.border,
        )

    @classmethod
    def from_op_args(
        cls,
        channels: Sequence[int],
        offsets: Sequence[int],
        axes: Sequence[int],
        channel_axis: int,
        border: str,
    ) -> ShiftSpec:
        """Inverse of :meth:`op_args`.

        Raises:
            ShiftError: The arguments do not describe a shift.
        """
        width = len(axes)
        if len(offsets) != width * len(channels):
            raise ShiftError(
                f"{len(offsets)} offsets for {len(channels)} groups over {width} axes",
                fix="give one offset per axis for each group",
            )
        groups = tuple(
            ShiftGroup(int(count), tuple(int(o) for o in offsets[i * width : (i + 1) * width]))
            for i, count in enumerate(channels)
        )
        return cls(groups, tuple(int(a) for a in axes), int(channel_axis), cast(Border, border))


def in_bounds(size: int, offset: int) -> tuple[slice, slice]:
    """Destination and source slices of a shift by ``offset`` along an axis of ``size`` elements.

    Both are empty when nothing stays inside. ``size`` may be a symbolic integer when ``offset`` is 0 or smaller
    than it.
    """
    if offset >= 0:
        return slice(offset, None), slice(0, max(size - offset, 0) if offset else None)
    return slice(0, max(size + offset, 0)), slice(-offset, None)
