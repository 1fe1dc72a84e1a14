"""Deformable convolutions with constant whole offsets: a shift, then an ordinary convolution.

CycleMLP's CycleFC is a 1x1 convolution whose channels each read from a cell a fixed step away. It is written as
``torchvision.ops.deform_conv2d`` with offsets that no input reaches. Sampling at whole cells interpolates nothing, and
cells outside are 0, so the sampling is a shift with a border of zeros.

torchvision need not be installed: the operator is known by its name and by the order of its arguments.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from s2mlp_deploy.recognition.match import NoShift
from s2mlp_deploy.recognition.movement import Sizes, UnknownValueError
from s2mlp_deploy.shift.spec import ShiftGroup, ShiftSpec

OPERATOR = "torchvision::deform_conv2d"
IDIOM = "constant sampling offsets"


@dataclass(frozen=True)
class SamplingMatch:
    """A deformable convolution that is a shift and a convolution.

    Attributes:
        target: The node that computes it.
        spec: The shift of what it samples, channels first with a border of zeros; None where every offset is 0.
        sizes: At how many choices of input sizes the offsets were read.
        convolution: The arguments of ``aten.conv2d`` after its input.
    """

    target: Node
    spec: ShiftSpec | None
    sizes: int
    convolution: tuple[Any, ...]


def is_deformable(node: Node) -> bool:
    """Whether a node is torchvision's deformable convolution."""
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and getattr(schema, "name", None) == OPERATOR


def read_sampling(node: Node, sizes: Sequence[Sizes]) -> SamplingMatch | NoShift:
    """A deformable convolution as a shift and a convolution, or why it is none.

    All kernel cells of an offset group must sample by one whole step: then sampling, which reads ``x[q + step]`` where
    an ordinary convolution reads ``x[q]``, reads the shifted tensor at ``q``. Padding lets ``q`` leave the tensor, and
    there the two differ (the sampling may read a cell, the shift has dropped it): no step may go along a padded axis.

    Args:
        node: One for which :func:`is_deformable` holds.
        sizes: Concrete sizes of the graph; the offsets must be the same at all of them.
    """
    source, weight, offset, mask, bias, *numbers = node.args
    assert isinstance(source, Node)
    assert isinstance(weight, Node)
    stride, pad, dilation = ((numbers[i], numbers[i + 1]) for i in (0, 2, 4))
    groups, offset_groups, use_mask = numbers[6:9]
    assert isinstance(offset_groups, int)
    steps: Tensor | None = None
    for at in sizes:
        if use_mask and not _all_ones(mask, at):
            return NoShift("its mask is not 1 everywhere")
        found = _steps(offset, offset_groups, at)
        if isinstance(found, NoShift):
            return found
        if steps is not None and not torch.equal(found, steps):
            return NoShift("at another input size its offsets are others")
        steps = found
    assert steps is not None
    if any(size and bool(steps[:, axis].any()) for axis, size in enumerate(pad)):
        return NoShift("it samples by whole steps along an axis that it pads too, where a shift has dropped cells")
    channels = sizes[0].shapes[source][1] // offset_groups
    # Content moves against the direction in which it is read.
    moves = [(-row, -column) for row, column in steps.tolist()]
    runs = tuple(ShiftGroup(channels * len(list(run)), move) for move, run in itertools.groupby(moves))
    spec = ShiftSpec(runs, (2, 3), 1, "zero") if bool(steps.any()) else None
    return SamplingMatch(node, spec, len(sizes), (weight, bias, [*stride], [*pad], [*dilation], groups))


def _all_ones(mask: Any, sizes: Sizes) -> bool:
    try:
        return bool((sizes.constant(mask) == 1).all())
    except UnknownValueError:
        return False


def _steps(offset: Any, groups: int, sizes: Sizes) -> Tensor | NoShift:
    """The step of each offset group, rows and columns: int64 [groups, 2]."""
    try:
        # [batch, groups x kernel cells x (row, column), height, width]
        values = sizes.constant(offset).unflatten(1, (groups, -1, 2))
    except UnknownValueError:
        return NoShift("its offsets depend on the input, or are learned by a layer")
    steps = values[0, :, 0, :, 0, 0]
    if not bool((values == steps[None, :, None, :, None, None]).all()):
        return NoShift("its offsets differ between cells of one group")
    if not torch.equal(steps, steps.round()):
        return NoShift("its offsets are no whole cells, so that it interpolates")
    whole: Tensor = steps.to(torch.int64)
    return whole
