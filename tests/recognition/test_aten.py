"""Every operator that counts as movement, run on element numbers against torch's own kernel on floats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx import Graph, Node

from s2mlp_deploy.recognition import aten as table
from s2mlp_deploy.recognition.fx import SizedFxGraph
from s2mlp_deploy.recognition.graph import INDEX, UNWRITTEN, ZERO

aten = torch.ops.aten


@dataclass(frozen=True)
class Known:
    """A tensor that decides where elements go: an index, a mask or a kernel."""

    value: Tensor


X = torch.arange(1.0, 1 + 2 * 4 * 5 * 6).reshape(2, 4, 5, 6)
Y = torch.arange(1000.0, 1000 + 2 * 4 * 5 * 6).reshape(2, 4, 5, 6)
ROW = X[:, :, :1] + 5000
BOARD = X[:, :, 0]  # Rank 3.


def one_hot(outputs: int, inputs: int, *sizes: int) -> Known:
    """A kernel whose outputs read from different inputs and positions."""
    kernel = torch.zeros(outputs, inputs, *sizes)
    flat = kernel.flatten(1)
    for output in range(outputs):
        flat[output, (3 * output + 1) % flat.shape[1]] = 1
    return Known(kernel)


def permuting(channels: int, *sizes: int) -> Known:
    """A kernel of a transposed convolution of one group whose outputs read each from another input and position."""
    kernel = torch.zeros(channels, channels, *sizes)
    for output in range(channels):
        kernel[(output + 1) % channels, output].flatten()[(3 * output + 1) % kernel[0, 0].numel()] = 1
    return Known(kernel)


CALLS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "alias": (aten.alias.default, (X,)),
    "detach": (aten.detach.default, (X,)),
    "clone": (aten.clone.default, (X,)),
    "contiguous": (aten.contiguous.default, (X,)),
    "lift_fresh_copy": (aten.lift_fresh_copy.default, (X,)),
    "flatten": (aten.flatten.using_ints, (X, 1, 2)),
    "unflatten": (aten.unflatten.int, (X, 1, [2, 2])),
    "movedim": (aten.movedim.int, (X, 1, 3)),
    "permute": (aten.permute.default, (X, [0, 3, 1, 2])),
    "transpose": (aten.transpose.int, (X, 1, 3)),
    "t": (aten.t.default, (X[0, 0],)),
    "reshape": (aten.reshape.default, (X, [2, 20, 6])),
    "_reshape_copy": (aten._reshape_copy.default, (X, [8, 30])),
    "view": (aten.view.default, (X, [2, 2, 2, 30])),
    "_unsafe_view": (aten._unsafe_view.default, (X, [8, 30])),
    "squeeze": (aten.squeeze.dim, (ROW, 2)),
    "unsqueeze": (aten.unsqueeze.default, (X, 2)),
    "slice": (aten.slice.Tensor, (X, 2, 1, 9, 2)),
    "narrow": (aten.narrow.default, (X, 2, 1, 3)),
    "select": (aten.select.int, (X, 2, -1)),
    "chunk": (aten.chunk.default, (X, 3, 3)),
    "split": (aten.split.Tensor, (X, 4, 3)),
    "split_with_sizes": (aten.split_with_sizes.default, (X, [1, 3], 1)),
    "unsafe_split": (aten.unsafe_split.Tensor, (X, 4, 3)),
    "unbind": (aten.unbind.int, (X, 2)),
    "copy": (aten.copy.default, (X, ROW)),
    "slice_scatter": (aten.slice_scatter.default, (X, Y[:, :, 1:3], 2, 0, 2)),
    "select_scatter": (aten.select_scatter.default, (X, Y[:, :, 0], 2, 3)),
    "cat": (aten.cat.default, ([X, Y, ROW], 2)),
    "stack": (aten.stack.default, ([X, Y], 1)),
    "expand": (aten.expand.default, (ROW, [2, 4, 5, 6])),
    "repeat": (aten.repeat.default, (ROW, [1, 1, 3, 2])),
    "flip": (aten.flip.default, (X, [1, 3])),
    "roll": (aten.roll.default, (X, [2, -1], [1, 3])),
    "pad-zeros": (aten.pad.default, (X, [1, 2, 0, 1])),
    "pad-crops": (aten.pad.default, (X, [-1, 2, 1, -2])),
    "pad-reflect": (aten.pad.default, (X, [1, 2, 3, 0], "reflect")),
    "pad-replicate": (aten.pad.default, (X, [1, 2, 3, 0], "replicate")),
    "pad-circular": (aten.pad.default, (X, [1, 2, 3, 0], "circular")),
    "constant_pad_nd": (aten.constant_pad_nd.default, (X, [1, 2, 0, 1], 0.0)),
    "reflection_pad1d": (aten.reflection_pad1d.default, (BOARD, [2, 1])),
    "reflection_pad2d": (aten.reflection_pad2d.default, (X, [2, 1, 0, 3])),
    "reflection_pad3d": (aten.reflection_pad3d.default, (X, [2, 1, 0, 3, 1, 1])),
    "replication_pad1d": (aten.replication_pad1d.default, (BOARD, [2, 1])),
    "replication_pad2d": (aten.replication_pad2d.default, (X, [2, 1, 0, 3])),
    "replication_pad3d": (aten.replication_pad3d.default, (X, [2, 1, 0, 3, 1, 1])),
    "index": (aten.index.Tensor, (X, [None, Known(torch.tensor([[2, 0], [1, 1]]))])),
    "_unsafe_index": (aten._unsafe_index.Tensor, (X, [None, None, Known(torch.tensor([4, 0, 0]))])),
    "index_select": (aten.index_select.default, (X, 3, Known(torch.tensor([5, 0, 0, 1])))),
    "gather": (aten.gather.default, (X, 2, Known(torch.tensor([0, 0, 1, 3]).reshape(1, 1, 4, 1).expand(2, 4, 4, 6)))),
    "index_put": (aten.index_put.default, (X, [None, None, Known(torch.tensor([1, 4]))], Y[:, :, :2])),
    "where": (aten.where.self, (Known(torch.arange(6) > 2), X, Y)),
    "where-zero": (aten.where.ScalarOther, (Known(torch.arange(6) > 2), X, 0.0)),
    "narrow_copy": (aten.narrow_copy.default, (X, 2, 1, 3)),
    "concat": (aten.concat.default, ([X, ROW], 2)),
    "concatenate": (aten.concatenate.default, ([X, ROW], -2)),
    "hstack": (aten.hstack.default, ([X, Y],)),
    "vstack": (aten.vstack.default, ([X, Y],)),
    "row_stack": (aten.row_stack.default, ([X, Y],)),
    "dstack": (aten.dstack.default, ([X, ROW],)),
    "column_stack": (aten.column_stack.default, ([X, Y],)),
    "fliplr": (aten.fliplr.default, (X,)),
    "flipud": (aten.flipud.default, (X,)),
    "rot90": (aten.rot90.default, (X, 1, [2, 3])),
    "tile": (aten.tile.default, (ROW, [2, 3, 1])),
    "repeat_interleave": (aten.repeat_interleave.self_int, (X, 2, 3)),
    "channel_shuffle": (aten.channel_shuffle.default, (X, 2)),
    "pixel_shuffle": (aten.pixel_shuffle.default, (X, 2)),
    "pixel_unshuffle": (aten.pixel_unshuffle.default, (X[..., :4, :], 2)),
    "unfold": (aten.unfold.default, (X, 3, 3, 2)),
    "im2col": (aten.im2col.default, (X, [2, 3], [2, 1], [1, 2], [1, 3])),
    "masked_fill": (aten.masked_fill.Scalar, (X, Known(torch.arange(6) > 2), 0.0)),
    "take_along_dim": (aten.take_along_dim.default, (X, Known(torch.tensor([5, 0, 1]).view(1, 1, 1, 3)), 3)),
    "conv_transpose1d": (aten.conv_transpose1d.default, (BOARD, one_hot(4, 1, 3), None, [1], [1], [0], 4)),
    "conv_transpose2d": (
        aten.conv_transpose2d.input,
        (X, one_hot(4, 1, 3, 2), None, [1, 1], [3, 0], [0, 0], 4, [1, 2]),
    ),
    "conv_transpose3d": (aten.conv_transpose3d.input, (X[None], permuting(2, 2, 3, 1))),
    "convolution-transposed": (
        aten.convolution.default,
        (X, permuting(4, 3, 1), None, [1, 1], [1, 0], [2, 1], True, [0, 0], 1),
    ),
    "conv1d": (aten.conv1d.default, (BOARD, one_hot(8, 1, 3), None, [1], [1], [1], 4)),
    "conv2d": (aten.conv2d.default, (X, one_hot(6, 4, 3, 3), None, [2, 1], [1, 2], [1, 2])),
    "conv2d-same": (aten.conv2d.padding, (X, one_hot(4, 2, 2, 3), None, [1, 1], "same", [2, 1], 2)),
    "conv2d-no-batch": (aten.conv2d.default, (X[0], one_hot(4, 1, 3, 3), None, [1], [1], [1], 4)),
    "conv3d": (aten.conv3d.default, (X[None], one_hot(2, 2, 1, 2, 3))),
    "convolution": (
        aten.convolution.default,
        (X, one_hot(4, 1, 3, 1), None, [1, 2], [1, 0], [1, 1], False, [0, 0], 4),
    ),
}


def as_node(target: Any, arguments: tuple[Any, ...]) -> tuple[Node, SizedFxGraph, Callable[[Node], Any]]:
    """A node that calls an operator, a graph that knows its constants, and the numbers of its tensors."""
    graph, constants, numbers = Graph(), {}, {}

    def place(argument: Any) -> Any:
        if isinstance(argument, list):
            return [place(item) for item in argument]
        if not isinstance(argument, (Tensor, Known)):
            return argument
        node = graph.placeholder("x")
        value = argument.value if isinstance(argument, Known) else argument
        node.meta["val"] = value
        if isinstance(argument, Known):
            constants[node] = value
        else:
            numbers[node] = value.to(INDEX)
        return node

    node = graph.call_function(target, tuple(place(argument) for argument in arguments))
    node.meta["val"] = compute(target, arguments)
    return node, SizedFxGraph({}, constants), numbers.__getitem__


def compute(target: Any, arguments: tuple[Any, ...]) -> Any:
    def plain(argument: Any) -> Any:
        if isinstance(argument, list):
            return [plain(item) for item in argument]
        return argument.value if isinstance(argument, Known) else argument

    return target(*(plain(argument) for argument in arguments))


@pytest.mark.parametrize("name", CALLS)
def test_an_operator_moves_numbers_as_it_moves_values(name: str) -> None:
    node, sized, numbers = as_node(*CALLS[name])
    moved, wanted = sized.run(node, numbers), node.meta["val"]
    if isinstance(wanted, Tensor):
        moved, wanted = [moved], [wanted]
    assert len(moved) == len(wanted)
    for got, true in zip(moved, wanted, strict=True):
        assert got.dtype == INDEX
        assert torch.equal(got.to(torch.float32), true)


def test_every_operator_of_the_tables_is_tried() -> None:
    tried = {target.overloadpacket for target, _ in CALLS.values()}
    assert table.MOVES | set(table.INDEXED) | table.CONVOLUTIONS == tried


ZEROS = {
    "zeros": (aten.zeros.default, ([2, 3],)),
    "zeros_like": (aten.zeros_like.default, (X,)),
    "new_zeros": (aten.new_zeros.default, (X, [2, 3])),
    "zero": (aten.zero.default, (X,)),
    "full": (aten.full.default, ([2, 3], 0)),
    "full_like": (aten.full_like.default, (X, 0.0)),
    "new_full": (aten.new_full.default, (X, [2, 3], 0)),
    "fill": (aten.fill.Scalar, (X, 0)),
}
OTHERS = {
    "ones": (aten.ones.default, ([2, 3],), 1),
    "ones_like": (aten.ones_like.default, (X,), 1),
    "new_ones": (aten.new_ones.default, (X, [2, 3]), 1),
    "full": (aten.full.default, ([2, 3], -2.5), -2.5),
    "full_like": (aten.full_like.default, (X, 7), 7),
    "new_full": (aten.new_full.default, (X, [2, 3], 0.5), 0.5),
    "fill": (aten.fill.Scalar, (X, 3), 3),
    "fill-tensor": (aten.fill.Tensor, (X, Known(torch.tensor(4.0))), 4),
}


@pytest.mark.parametrize("name", ZEROS)
def test_fills_with_zero_hold_the_constant_zero(name: str) -> None:
    node, sized, numbers = as_node(*ZEROS[name])
    assert sized.fill(node) == 0
    moved = sized.run(node, numbers)
    assert moved.shape == node.meta["val"].shape
    assert bool((moved == ZERO).all())


@pytest.mark.parametrize("name", OTHERS)
def test_other_fills_are_known_by_their_scalar(name: str) -> None:
    target, arguments, value = OTHERS[name]
    node, sized, _ = as_node(target, arguments)
    assert sized.fill(node) == value
    assert torch.equal(sized.constant(node), node.meta["val"])


def test_every_fill_is_tried() -> None:
    assert {target.overloadpacket for target, *_ in (*ZEROS.values(), *OTHERS.values())} == set(table.FILLS)


def test_a_large_fill_takes_no_memory() -> None:
    node, sized, numbers = as_node(aten.full.default, ([1, 1], 0))
    node.meta["val"] = torch.empty(1 << 15, 1 << 15, device="meta")
    for value in (sized.constant(node), sized.run(node, numbers)):
        assert value.shape == (1 << 15, 1 << 15)
        assert value.untyped_storage().nbytes() <= 8


@pytest.mark.parametrize("target", [aten.empty.memory_format, aten.empty_like.default, aten.new_empty.default])
def test_memory_that_is_only_allocated_is_marked(target: Any) -> None:
    arguments = ([2, 3],) if target is aten.empty.memory_format else (X,)
    arguments = (X, [2, 3]) if target is aten.new_empty.default else arguments
    node, sized, numbers = as_node(target, arguments)
    assert bool((sized.run(node, numbers) == UNWRITTEN).all())


@pytest.mark.parametrize(("amounts", "mode"), [([6, 0], "reflect"), ([7, 0], "circular")], ids=["reflect", "circular"])
def test_padding_by_more_than_there_is_fails_as_in_torch(amounts: list[int], mode: str) -> None:
    with pytest.raises(RuntimeError):
        torch.nn.functional.pad(BOARD, amounts, mode=mode)
    with pytest.raises(ValueError, match="cannot be padded"):
        table.pad(BOARD.to(INDEX), amounts, mode)


def test_a_kernel_larger_than_its_input_fails() -> None:
    with pytest.raises(ValueError, match="larger than its input"):
        table.convolve(BOARD.to(INDEX), one_hot(4, 4, 9).value, stride=1, padding=0, dilation=1, groups=1)


@pytest.mark.parametrize(
    ("target", "arguments", "moves"),
    [
        (aten.constant_pad_nd.default, (X, [1, 1], 0.0), True),
        (aten.constant_pad_nd.default, (X, [1, 1], 1.0), False),
        (aten.pad.default, (X, [1, 1], "constant", 2.0), False),
        (aten.pad.default, (X, [1, 1], "constant", None), True),
        (aten.pad.default, (X, [1, 1, 0, 0], "circular"), True),
        (aten.roll.default, (X, [1], [2]), True),
    ],
)
def test_padding_with_another_constant_is_no_movement(target: Any, arguments: tuple[Any, ...], moves: bool) -> None:
    node, _, _ = as_node(target, arguments)
    assert table.pads_with_elements(node) == moves


@pytest.mark.parametrize(
    ("target", "arguments", "moves"),
    [
        (aten.where.self, (Known(X > 3), X, Y), True),
        (aten.where.ScalarOther, (Known(X > 3), X, 0.0), True),
        (aten.where.ScalarOther, (Known(X > 3), X, 1.0), False),
        (aten.index_put.default, (X, [Known(torch.tensor([1]))], Y[:1]), True),
        (aten.index_put.default, (X, [Known(torch.tensor([1]))], Y[:1], True), False),
    ],
)
def test_masks_with_constants_and_sums_are_no_movement(target: Any, arguments: tuple[Any, ...], moves: bool) -> None:
    node, _, _ = as_node(target, arguments)
    assert table.moves_by_known_rule(node) == moves


def test_only_exact_one_hot_kernels_move() -> None:
    kernel = one_hot(4, 2, 3, 3).value
    assert table.is_one_hot(kernel)
    for other in (kernel * 0.999, kernel + 1e-6, kernel.roll(1, -1) + kernel, kernel * 0):
        assert not table.is_one_hot(other)
