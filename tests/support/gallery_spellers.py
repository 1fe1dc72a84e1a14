"""Ways to write any shift: each takes a tensor and a specification and returns the shifted tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from gallery_case import targets_and_sources
from torch import Tensor, nn

from s2mlp_deploy.shift.spec import ShiftGroup, ShiftSpec

Speller = Callable[[Tensor, ShiftSpec], Tensor]


def _groups(spec: ShiftSpec) -> Iterator[tuple[slice, ShiftGroup]]:
    start = 0
    for group in spec.groups:
        yield slice(start, start + group.channels), group
        start += group.channels


def _steps(spec: ShiftSpec, group: ShiftGroup) -> dict[int, int]:
    return {axis: step for axis, step in zip(spec.axes, group.offsets, strict=True) if step}


def assigned_slices(x: Tensor, spec: ShiftSpec) -> Tensor:
    """Slice assignment into a clone (keep) or zeros (zero)."""
    y = x.clone() if spec.border == "keep" else torch.zeros_like(x)
    for channels, group in _groups(spec):
        target, source = targets_and_sources(x.dim(), _steps(spec, group), spec.channel_axis, channels)
        y[target] = x[source]
    return y


def overlapping_slices(x: Tensor, spec: ShiftSpec) -> Tensor:
    """Slice assignment onto the tensor itself."""
    y = x.clone()
    for channels, group in _groups(spec):
        if _steps(spec, group):
            target, source = targets_and_sources(x.dim(), _steps(spec, group), spec.channel_axis, channels)
            y[target] = y[source]
    return y


def joined_slices(x: Tensor, spec: ShiftSpec) -> Tensor:
    """``cat`` of a border and of what stays inside, one axis after the other."""
    parts = []
    for part, group in zip(x.split([g.channels for g in spec.groups], spec.channel_axis), spec.groups, strict=True):
        for axis, step in _steps(spec, group).items():
            size, count = part.size(axis), abs(step)
            inside = part.narrow(axis, 0 if step > 0 else count, size - count)
            if spec.border == "zero":
                border = torch.zeros_like(part.narrow(axis, 0, count))
            elif spec.border == "circular":
                border = part.narrow(axis, size - count if step > 0 else 0, count)
            else:
                edge = part.narrow(axis, 0 if step > 0 else size - 1, 1)
                border = torch.cat([edge] * count, axis)
            part = torch.cat([border, inside] if step > 0 else [inside, border], axis)
        parts.append(part)
    return torch.cat(parts, spec.channel_axis)


def rolled(x: Tensor, spec: ShiftSpec) -> Tensor:
    """``torch.roll`` of each group."""
    parts = []
    for part, group in zip(x.split([g.channels for g in spec.groups], spec.channel_axis), spec.groups, strict=True):
        steps = _steps(spec, group)
        parts.append(torch.roll(part, list(steps.values()), list(steps)) if steps else part)
    return torch.cat(parts, spec.channel_axis)


def rolled_then_mended(x: Tensor, spec: ShiftSpec) -> Tensor:
    """``torch.roll``, then the vacated cells are written over."""
    y = rolled(x, spec)
    for channels, group in _groups(spec):
        for axis, step in _steps(spec, group).items():
            vacated = [slice(None)] * x.dim()
            vacated[spec.channel_axis] = channels
            vacated[axis] = slice(0, step) if step > 0 else slice(step, None)
            y[tuple(vacated)] = 0 if spec.border == "zero" else x[tuple(vacated)]
    return y


def _channels_first(x: Tensor, spec: ShiftSpec) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The tensor as batch, channels, spatial axes, and the way back."""
    if spec.channel_axis == 1:
        return x, lambda y: y
    return torch.movedim(x, spec.channel_axis, 1), lambda y: torch.movedim(y, 1, spec.channel_axis)


def _reach(spec: ShiftSpec) -> int:
    return max(abs(step) for group in spec.groups for step in group.offsets)


def _padded(x: Tensor, spec: ShiftSpec) -> Tensor:
    mode = {"edge": "replicate", "zero": "constant", "circular": "circular"}[spec.border]
    return F.pad(x, (_reach(spec),) * (2 * len(spec.axes)), mode=mode)


def cut_of_a_pad(x: Tensor, spec: ShiftSpec) -> Tensor:
    """A pad on all sides, and a cut for each group."""
    first, back = _channels_first(x, spec)
    padded, parts = _padded(first, spec), []
    for channels, group in _groups(spec):
        window = [slice(None), channels]
        for axis, step in enumerate(group.offsets, start=2):
            start = _reach(spec) - step
            window.append(slice(start, start + first.shape[axis]))
        parts.append(padded[tuple(window)])
    return back(torch.cat(parts, 1))


def one_hot_kernels(x: Tensor, spec: ShiftSpec) -> Tensor:
    """A depthwise convolution with one tap per channel."""
    first, back = _channels_first(x, spec)
    count, reach = len(spec.axes), _reach(spec)
    kernels = torch.zeros(spec.channels, 1, *(2 * reach + 1,) * count)
    for channels, group in _groups(spec):
        kernels[(channels, 0, *(reach - step for step in group.offsets))] = 1
    conv = (F.conv1d, F.conv2d, F.conv3d)[count - 1]
    return back(conv(_padded(first, spec), kernels, groups=spec.channels))


def index_tables(x: Tensor, spec: ShiftSpec) -> Tensor:
    """Rows by a table, per group and axis."""
    parts = []
    for part, group in zip(x.split([g.channels for g in spec.groups], spec.channel_axis), spec.groups, strict=True):
        for axis, step in _steps(spec, group).items():
            size = part.size(axis)
            wanted = torch.arange(size) - step
            table = wanted % size if spec.border == "circular" else wanted.clamp(0, size - 1)
            part = part.index_select(axis, table)
        parts.append(part)
    return torch.cat(parts, spec.channel_axis)


def flat_gather(x: Tensor, spec: ShiftSpec) -> Tensor:
    """One gather over the flattened cells of every channel."""
    first, back = _channels_first(x, spec)
    sizes = first.shape[2:]
    grid = torch.meshgrid(*(torch.arange(size) for size in sizes), indexing="ij")
    table = []
    for group in spec.groups:
        inside = torch.ones(tuple(sizes), dtype=torch.bool)
        wanted = []
        for cells, step, size in zip(grid, group.offsets, sizes, strict=True):
            source = cells - step
            inside = inside & (source >= 0) & (source < size)
            wanted.append(source % size if spec.border == "circular" else source.clamp(0, size - 1))
        if spec.border == "keep":
            wanted = [torch.where(inside, source, cells) for source, cells in zip(wanted, grid, strict=True)]
        flat = torch.zeros(tuple(sizes), dtype=torch.int64)
        for source, size in zip(wanted, sizes, strict=True):
            flat = flat * size + source
        table.append(flat.flatten().expand(group.channels, -1))
    index = torch.cat(table).unsqueeze(0).expand(first.shape[0], -1, -1)
    return back(torch.gather(first.flatten(2), 2, index).unflatten(2, tuple(sizes)))


def stacked_rows(x: Tensor, spec: ShiftSpec) -> Tensor:
    """Every row taken out and put back in another order."""
    parts = []
    for part, group in zip(x.split([g.channels for g in spec.groups], spec.channel_axis), spec.groups, strict=True):
        for axis, step in _steps(spec, group).items():
            rows, size = part.unbind(axis), part.size(axis)
            wanted = [row - step for row in range(size)]
            if spec.border == "circular":
                chosen = [rows[row % size] for row in wanted]
            elif spec.border == "edge":
                chosen = [rows[min(max(row, 0), size - 1)] for row in wanted]
            else:
                chosen = [rows[row] if 0 <= row < size else torch.zeros_like(rows[0]) for row in wanted]
            part = torch.stack(chosen, axis)
        parts.append(part)
    return torch.cat(parts, spec.channel_axis)


SPELLERS: dict[Speller, tuple[str, ...]] = {
    assigned_slices: ("keep", "zero"),
    overlapping_slices: ("keep",),
    joined_slices: ("edge", "zero", "circular"),
    rolled: ("circular",),
    rolled_then_mended: ("zero",),
    cut_of_a_pad: ("edge", "zero", "circular"),
    one_hot_kernels: ("edge", "zero", "circular"),
    index_tables: ("edge", "circular"),
    flat_gather: ("keep", "edge", "circular"),
    stacked_rows: ("edge", "zero", "circular"),
}
"""Which borders each can write."""


class Spelled(nn.Module):
    """A specification, written in one way."""

    def __init__(self, speller: Speller, spec: ShiftSpec) -> None:
        super().__init__()
        self.speller, self.spec = speller, spec

    def forward(self, x: Tensor) -> Tensor:
        # The capture refuses to write into its input.
        return self.speller(x + 0.5, self.spec)
