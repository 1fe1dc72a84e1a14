"""Operators of PyTorch that only move elements, and how they run on index maps.

The table of data movement for programs of ``torch.export``. Padding by replication and convolution do not exist for
integers on the CPU: here they are written with indices.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from s2mlp_deploy.shift.origin import CONVOLUTION

aten = torch.ops.aten

SLICES = {
    aten.chunk,
    aten.narrow,
    aten.narrow_copy,
    aten.select,
    aten.slice,
    aten.split,
    aten.split_with_sizes,
    aten.unbind,
}
SPLITS = {aten.chunk, aten.split, aten.split_with_sizes, aten.unbind, aten.unsafe_split}
ASSIGNMENTS = {aten.copy, aten.select_scatter, aten.slice_scatter}
# A program before decomposition has an operator for each of torch's names of one and the same.
CONCATENATIONS = {
    aten.cat,
    aten.column_stack,
    aten.concat,
    aten.concatenate,
    aten.dstack,
    aten.hstack,
    aten.row_stack,
    aten.stack,
    aten.vstack,
}
FLIPS = {aten.flip, aten.fliplr, aten.flipud, aten.rot90}
REPEATS = {aten.expand, aten.repeat, aten.repeat_interleave, aten.tile}
# Elements in another order, some of them several times.
FOLDS = {aten.channel_shuffle, aten.im2col, aten.pixel_shuffle, aten.pixel_unshuffle, aten.unfold}
REFLECTIONS = {aten.reflection_pad1d, aten.reflection_pad2d, aten.reflection_pad3d}
REPLICATIONS = {aten.replication_pad1d, aten.replication_pad2d, aten.replication_pad3d}
PADS = {aten.pad, aten.constant_pad_nd} | REFLECTIONS | REPLICATIONS
COPIES = {aten.clone, aten.contiguous, aten.lift_fresh_copy}
RESHAPES = {aten.view, aten._unsafe_view, aten.reshape, aten._reshape_copy}
# One tensor in another shape.
WHOLE_VIEWS = {
    aten.alias,
    aten.detach,
    aten.flatten,
    aten.movedim,
    aten.permute,
    aten.reshape,
    aten.squeeze,
    aten.t,
    aten.transpose,
    aten.unflatten,
    aten.unsqueeze,
    aten.view,
    aten._unsafe_view,
}
VIEWS = WHOLE_VIEWS | {aten.narrow, aten.select, aten.slice, operator.getitem}
# Looked at by overload packet, so that every overload counts.
MOVES = (
    WHOLE_VIEWS
    | SLICES
    | SPLITS
    | ASSIGNMENTS
    | CONCATENATIONS
    | PADS
    | COPIES
    | RESHAPES
    | FLIPS
    | REPEATS
    | FOLDS
    | {aten.roll}
)
# Operators that move elements by an index, which must be the same for every input: positions of the indices.
INDEXED = {
    aten.index: (1,),
    aten._unsafe_index: (1,),
    aten.index_select: (2,),
    aten.gather: (2,),
    aten.index_put: (1,),
    aten.masked_fill: (1,),
    aten.take_along_dim: (1,),
    aten.where: (0,),
}
# Operators whose result holds only one constant, whatever their tensor argument holds; its value where it is fixed.
FILLS: dict[Any, float | None] = {
    aten.fill: None,
    aten.full: None,
    aten.full_like: None,
    aten.new_full: None,
    aten.new_ones: 1.0,
    aten.ones: 1.0,
    aten.ones_like: 1.0,
    aten.new_zeros: 0.0,
    aten.zero: 0.0,
    aten.zeros: 0.0,
    aten.zeros_like: 0.0,
}
# Allocated but not written: every element must be overwritten before it is read.
ALLOCATIONS = {aten.empty_like, aten.new_empty, aten.empty, aten.new_empty_strided, aten.empty_permuted}
TRANSPOSED_CONVOLUTIONS = {aten.conv_transpose1d, aten.conv_transpose2d, aten.conv_transpose3d}
CONVOLUTIONS = {aten.conv1d, aten.conv2d, aten.conv3d, aten.convolution} | TRANSPOSED_CONVOLUTIONS

IDIOM_OF: dict[Any, str] = {
    **dict.fromkeys([*ASSIGNMENTS, aten.index_put], "slice assignment"),
    aten.roll: "roll",
    **dict.fromkeys(CONVOLUTIONS, CONVOLUTION),
    **dict.fromkeys(
        [aten.index, aten.index_select, aten.gather, aten._unsafe_index, aten.take_along_dim], "index table"
    ),
    **dict.fromkeys([aten.where, aten.masked_fill], "mask"),
    **dict.fromkeys(FLIPS, "flip"),
    **dict.fromkeys(PADS, "pad"),
    **dict.fromkeys(CONCATENATIONS, "concatenation"),
    **dict.fromkeys(SLICES, "slices"),
}


def packet(node: Node) -> Any:
    """The operator of a node without its overload."""
    target = node.target
    return getattr(target, "overloadpacket", target)


def argument(node: Node, position: int, name: str, default: Any = None) -> Any:
    """An argument of a node, given by position or by name."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def fill_argument(node: Node) -> Any:
    """The scalar that a fill holds: a number, or the node that computes it."""
    fixed = FILLS[packet(node)]
    if fixed is not None:
        return fixed
    if packet(node) is aten.fill:
        return argument(node, 1, "value")
    return argument(node, 2 if packet(node) is aten.new_full else 1, "fill_value")


def is_plain_zero(value: Any) -> bool:
    """Whether a scalar is 0 and not -0.0, whose sign an index map does not keep (``1 / -0.0`` is -inf)."""
    if isinstance(value, Tensor):
        return value.numel() == 1 and not bool(value) and not bool(value.signbit())
    return value is not None and bool(value == 0) and math.copysign(1.0, value) > 0


def _pads_with_zeros(value: Any) -> bool:
    return value is None or is_plain_zero(value)


def pads_with_elements(node: Node) -> bool:
    """Whether a padding adds elements of its tensor or zeros; True for what is no padding."""
    op = packet(node)
    if op is aten.constant_pad_nd:
        return is_plain_zero(argument(node, 2, "value", 0))
    if op is aten.pad:
        return argument(node, 2, "mode", "constant") != "constant" or _pads_with_zeros(argument(node, 3, "value"))
    return True


def moves_by_known_rule(node: Node) -> bool:
    """Whether an operator of :data:`INDEXED` only moves, given that its indices are known."""
    if packet(node) is aten.where:
        return len(node.args) == 3 and all(isinstance(arg, Node) or is_plain_zero(arg) for arg in node.args[1:])
    if packet(node) is aten.masked_fill:
        return not isinstance(node.args[2], Node) and is_plain_zero(node.args[2])
    # With accumulate, index_put adds.
    return packet(node) is not aten.index_put or not argument(node, 3, "accumulate", False)


def convolution_arguments(node: Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a convolution by name, those after the bias; ``transposed`` where it is one.

    Args:
        node: The operator's.
        args: Its arguments.
        kwargs: Its arguments by name.
    """
    op = packet(node)
    names = ["stride", "padding", "dilation", "groups"]
    if op is aten.convolution:
        names[3:3] = ["transposed", "output_padding"]
    elif op in TRANSPOSED_CONVOLUTIONS:
        names[2:] = ["output_padding", "groups", "dilation"]
    defaults = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    named = {name: value for name, value in kwargs.items() if name in names}
    given = defaults | dict(zip(names, args[3:], strict=False)) | named
    return given | ({"transposed": True} if op in TRANSPOSED_CONVOLUTIONS else {})


def has_one_hot_kernel(node: Node, kernel: Tensor) -> bool:
    """Whether a convolution's kernel gives every output element exactly one input element, its bias aside."""
    given = convolution_arguments(node, node.args, node.kwargs)
    if not given.get("transposed"):
        return is_one_hot(kernel)
    # Other steps leave holes between the elements.
    plain = {*_listed(given["stride"])} == {1} and {*_listed(given.get("output_padding", 0))} == {0}
    return plain and is_one_hot(turned(kernel, given["groups"]))


def is_one_hot(kernel: Tensor) -> bool:
    """Whether a convolution with this kernel gives every output element exactly one input element.

    Exactly 1 and exactly 0: a learned kernel that is nearly one-hot is another operation.
    """
    return bool(((kernel == 0) | (kernel == 1)).all()) and bool((kernel.flatten(1).sum(1) == 1).all())


def run_movement(node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Runs an operator of :data:`MOVES` (but ``copy``), :data:`INDEXED` or :data:`CONVOLUTIONS` on index maps.

    Args:
        node: The operator's.
        args: Its arguments, index maps in place of tensors.
        kwargs: Its arguments by name.
    """
    op = packet(node)
    if op in CONVOLUTIONS:
        given = convolution_arguments(node, args, kwargs)
        transposed = given.pop("transposed", False)
        given.pop("output_padding", None)
        return (convolve_transposed if transposed else convolve)(args[0], args[1], **given)
    if op in REFLECTIONS or op in REPLICATIONS:
        return pad(args[0], args[1], "reflect" if op in REFLECTIONS else "replicate")
    if op is aten.pad:
        given = {**dict(zip(("mode", "value"), args[2:], strict=False)), **kwargs}
        return pad(args[0], args[1], given.get("mode", "constant"))
    if op is aten.constant_pad_nd:
        return pad(args[0], args[1], "constant")
    if op in COPIES:
        return args[0].contiguous()
    if op in RESHAPES:
        # The numbers' memory layout is not the network's, so a view of them may need a copy.
        return args[0].reshape(args[1])
    if op is aten.im2col:
        # Not there for integers, and exact in doubles.
        return aten.im2col(args[0].double(), *args[1:], **kwargs).to(args[0].dtype)
    if op is aten.masked_fill:
        return args[0].masked_fill(args[1], 0)
    if op is aten.where:
        # A Python zero would make floats of the numbers.
        args = [args[0], *(arg if isinstance(arg, Tensor) else 0 for arg in args[1:])]
    kwargs = {name: value for name, value in kwargs.items() if name not in ("dtype", "device", "layout")}
    target = node.target
    assert callable(target)
    return target(*args, **kwargs)


def pad(x: Tensor, amounts: Sequence[int], mode: str) -> Tensor:
    """``torch.nn.functional.pad`` for tensors of any type; negative amounts crop.

    Args:
        x: Any shape.
        amounts: Before and after, the last axis first.
        mode: ``constant`` (zeros), ``replicate``, ``reflect`` or ``circular``.

    Raises:
        ValueError: A mode that repeats elements is asked for more than there are.
    """
    if mode == "constant":
        return torch.constant_pad_nd(x, list(amounts), 0)
    for index in range(len(amounts) // 2):
        axis, (before, after) = x.dim() - 1 - index, amounts[2 * index : 2 * index + 2]
        if not before and not after:
            continue
        size = x.shape[axis]
        if size < 1 or {"reflect": size <= max(before, after), "circular": size < max(before, after)}.get(mode, False):
            raise ValueError(f"an axis of size {size} cannot be padded by {max(before, after)} ({mode})")
        source = torch.arange(-before, size + after)
        if mode == "replicate":
            source = source.clamp(0, size - 1)
        elif mode == "reflect":
            source = size - 1 - (size - 1 - source.abs()).abs()
        else:
            source = source % size
        x = x.index_select(axis, source)
    return x


def convolve(x: Tensor, kernel: Tensor, *, stride: Any, padding: Any, dilation: Any, groups: int) -> Tensor:
    """A convolution with one-hot kernels, for tensors of any type.

    Args:
        x: [batch, channels, ...] or [channels, ...].
        kernel: [outputs, channels / groups, ...], one 1 in each output's.
        stride: As ``aten.conv2d`` takes it, and so are the others.
        padding: Amounts, ``valid`` or ``same``.
        dilation: See there.
        groups: See there.

    Raises:
        ValueError: The kernel is larger than the padded input.
    """
    rank = kernel.dim() - 2
    steps, gaps = _per_axis(stride, rank), _per_axis(dilation, rank)
    reach = [gap * (size - 1) for gap, size in zip(gaps, kernel.shape[2:], strict=True)]
    if padding == "same":
        amounts = [(total // 2, total - total // 2) for total in reach]
    else:
        amounts = [(amount, amount) for amount in _per_axis(0 if padding == "valid" else padding, rank)]
    batched = x.dim() == kernel.dim()
    wide = pad(x if batched else x[None], [amount for pair in amounts[::-1] for amount in pair], "constant")
    counts = [(size - far - 1) // step + 1 for size, far, step in zip(wide.shape[2:], reach, steps, strict=True)]
    if min(counts) < 1:
        raise ValueError("the kernel is larger than its input")
    taps = kernel.nonzero()  # One row per output: output, channel of its group, position.
    source = taps[:, 1] + taps[:, 0] // (kernel.shape[0] // groups) * kernel.shape[1]
    parts, outputs = [], []
    for position in sorted({tuple(tap) for tap in taps[:, 2:].tolist()}):
        chosen = (taps[:, 2:] == torch.tensor(position, dtype=taps.dtype)).all(1)
        window = tuple(
            slice(start * gap, start * gap + step * (count - 1) + 1, step)
            for start, gap, step, count in zip(position, gaps, steps, counts, strict=True)
        )
        parts.append(wide[(slice(None), slice(None), *window)].index_select(1, source[chosen]))
        outputs.append(taps[chosen, 0])
    result = torch.cat(parts, 1).index_select(1, torch.cat(outputs).argsort())
    return result if batched else result[0]


def convolve_transposed(x: Tensor, kernel: Tensor, *, stride: Any, padding: Any, dilation: Any, groups: int) -> Tensor:
    """A transposed convolution with one-hot kernels and steps of 1, for tensors of any type.

    Args:
        x: [batch, channels, ...] or [channels, ...].
        kernel: [channels, outputs / groups, ...], as ``aten.conv_transpose2d`` takes it; turned round it is that of the
            convolution that computes the same.
        stride: 1.
        padding: Amounts.
        dilation: As ``aten.conv_transpose2d`` takes it.
        groups: See there.
    """
    rank = kernel.dim() - 2
    reach = [gap * (size - 1) for gap, size in zip(_per_axis(dilation, rank), kernel.shape[2:], strict=True)]
    amounts = [far - amount for far, amount in zip(reach, _per_axis(padding, rank), strict=True)]
    return convolve(x, turned(kernel, groups), stride=stride, padding=amounts, dilation=dilation, groups=groups)


def turned(kernel: Tensor, groups: int) -> Tensor:
    """[channels, outputs / groups, ...] to [outputs, channels / groups, ...], every axis behind reversed."""
    parts = kernel.reshape(groups, -1, *kernel.shape[1:]).transpose(1, 2).flatten(0, 1)
    return parts.flip(list(range(2, kernel.dim())))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _per_axis(value: Any, rank: int) -> list[int]:
    values = _listed(value)
    return [int(item) for item in (values * rank if len(values) == 1 else values)]
