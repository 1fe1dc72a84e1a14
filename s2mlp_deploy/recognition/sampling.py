"""Deformable convolutions with constant whole offsets: a shift, then an ordinary convolution.

CycleMLP's CycleFC is a 1x1 convolution whose channels each read from a position a fixed step away. It is written as
``torchvision.ops.deform_conv2d`` with offsets that no input reaches. Sampling at whole positions interpolates nothing,
and outside the tensor it reads 0, so the sampling is a shift with a border of zeros.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from s2mlp_deploy.recognition.graph import DeformableConv, Graph, N, SizedGraph, UnknownValueError
from s2mlp_deploy.recognition.match import NoShift
from s2mlp_deploy.recognition.results import SamplingMatch
from s2mlp_deploy.recognition.sizes import SizeProof, other_sizes
from s2mlp_deploy.shift.spec import ShiftGroup, ShiftSpec

IDIOM = "constant sampling offsets"


def match_sampling(graph: Graph[N], node: N, parts: DeformableConv[N]) -> SamplingMatch[N] | NoShift:
    """A deformable convolution as a shift and a convolution, or why it is none.

    All kernel elements of an offset group must sample by one whole step: then sampling, which reads ``x[q + step]``
    where an ordinary convolution reads ``x[q]``, reads the shifted tensor at ``q``. Padding lets ``q`` leave the
    tensor, and there the two differ (the sampling may read an element that the shift has dropped): no step may go
    along a padded axis.

    Args:
        graph: Whose offsets must be the same at all sizes.
        node: The convolution.
        parts: What it samples, and where.
    """
    example = graph.at({})
    try:
        steps = _steps(parts, example)
    except UnknownValueError:
        return NoShift("its offsets depend on the input, or are learned by a layer")
    if isinstance(steps, NoShift):
        return steps
    dependence = graph.size_dependence([node])
    if dependence.problem is not None:
        return NoShift(dependence.problem)
    proof = SizeProof(graph.free_sizes, dependence.turns)
    for choice in other_sizes(graph.free_sizes, dependence):
        try:
            found = _steps(parts, graph.at(choice.sizes))
        except UnknownValueError:
            continue
        if isinstance(found, NoShift) or not torch.equal(found, steps):
            return NoShift("at another input size its offsets are others")
        proof.confirm(choice)
    if proof.unproven:
        return NoShift(f"its offsets are not known at other sizes ({', '.join(proof.unproven)})")
    if any(size and bool(steps[:, axis].any()) for axis, size in enumerate(parts.padding)):
        return NoShift("it samples by whole steps along an axis that it pads too, where a shift has dropped elements")
    channels = example.shape(parts.source)[1] // parts.groups
    # Content moves against the direction in which it is read.
    moves = [(-row, -column) for row, column in steps.tolist()]
    runs = tuple(ShiftGroup(channels * len(list(run)), move) for move, run in itertools.groupby(moves))
    spec = ShiftSpec(runs, (2, 3), 1, "zero") if bool(steps.any()) else None
    return SamplingMatch(node, parts.source, spec, proof.count)


def _steps(parts: DeformableConv[N], sized: SizedGraph[N]) -> Tensor | NoShift:
    """The step of each offset group, rows and columns: int64 [groups, 2].

    Raises:
        UnknownValueError: The offsets are not known.
    """
    if parts.mask is not None and not _all_ones(parts.mask, sized):
        return NoShift("its mask is not 1 everywhere")
    # [batch, groups x kernel elements x (row, column), height, width]
    offset = sized.constant(parts.offset)
    # Of images and positions that are one in memory, one says all: many images may be asked about.
    once = [slice(1) if axis != 1 and stride == 0 else slice(None) for axis, stride in enumerate(offset.stride())]
    offset = offset[tuple(once)]
    values = offset.reshape(offset.shape[0], parts.groups, -1, 2, *offset.shape[2:])
    steps = values[0, :, 0, :, 0, 0]
    if not bool((values == steps[None, :, None, :, None, None]).all()):
        return NoShift("its offsets differ between elements of one group")
    if not torch.equal(steps, steps.round()):
        return NoShift("its offsets are no whole steps, so that it interpolates")
    whole: Tensor = steps.to(torch.int64)
    return whole


def _all_ones(mask: N, sized: SizedGraph[N]) -> bool:
    try:
        return bool((sized.constant(mask) == 1).all())
    except UnknownValueError:
        return False
