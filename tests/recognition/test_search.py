"""What recognition does beyond the gallery: constants, and regions that cannot be followed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2mlp_deploy.capture.program import capture
from s2mlp_deploy.errors import ExportError
from s2mlp_deploy.export.rewrite import Rewritten, rewrite_shifts
from s2mlp_deploy.recognition.fx import SizedFxGraph


def found(module: nn.Module, *shape: int) -> Rewritten:
    return rewrite_shifts(capture(module, (torch.rand(shape),)).program)


class TwoRegions(nn.Module):
    """Two shifts with a layer between them."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.roll(x, 1, 2).relu()
        return torch.cat([x[:, :, :1], x[:, :, :-1]], 2)


def test_region_that_cannot_be_followed_is_a_near_miss_and_others_are_found(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = SizedFxGraph.run

    def run(self: SizedFxGraph, node: Any, *rest: Any) -> Any:
        if "roll" in node.name:
            raise RuntimeError("no such kernel\nsecond line")
        return original(self, node, *rest)

    monkeypatch.setattr(SizedFxGraph, "run", run)
    result = found(TwoRegions(), 2, 3, 7)
    assert [shift.spec.border for shift in result.shifts] == ["keep"]
    (miss,) = result.near_misses
    assert miss.reason == "its elements could not be followed: RuntimeError: no such kernel"
    assert miss.origin.idiom == "roll"
    assert [record.levelname for record in caplog.records if "could not be followed" in record.message] == ["WARNING"]


class ShiftedConstant(nn.Module):
    """A table of positions, shifted on the way: no shift of the network's."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.rand(3, 7))

    def forward(self, x: Tensor) -> Tensor:
        kernel = torch.zeros(3, 1, 3)
        kernel[:2, 0, 0] = 1
        kernel[2:, 0, 2] = 0.5
        return F.conv1d(x, kernel, padding=1, groups=3) + F.pad(self.positions, (1, 0))[:, :-1]


def test_constants_are_neither_shifts_nor_near_misses() -> None:
    result = found(ShiftedConstant(), 2, 3, 7)
    assert not result.shifts
    assert not result.near_misses


class Pieces(nn.Module):
    """Two pieces of one tensor, written in turn."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + 1
        first, second = x.chunk(2, 2)
        first[:, 1:] = first[:, :-1]
        second[:, :-1] = second[:, 1:]
        return torch.stack([first, second])


def test_line_of_a_shift_is_that_of_its_own_piece() -> None:
    result = found(Pieces(), 2, 7, 6)
    assert [shift.origin.code for shift in result.shifts] == [
        "first[:, 1:] = first[:, :-1]",
        "second[:, :-1] = second[:, 1:]",
    ]


class Shuffled(nn.Module):
    """Channels change places."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + 1)[:, [2, 0, 1, 3]]


def test_permutation_of_channels_is_no_shift_and_one_gather() -> None:
    result = found(Shuffled(), 2, 4, 6, 5)
    assert not result.shifts
    assert not result.near_misses
    (movement,) = result.movements
    assert movement.operators == "Gather"


class ThroughAnotherType(nn.Module):
    """Rows move down by way of a buffer of another type, which rounds or reads the bits anew."""

    def __init__(self, buffer: torch.dtype, *, as_bits: bool = False) -> None:
        super().__init__()
        self.buffer, self.as_bits = buffer, as_bits

    def forward(self, x: Tensor) -> Tensor:
        x = x * 3
        if self.as_bits:
            return torch.roll(x.view(self.buffer), 1, 2).view(x.dtype) if x.shape[3] else x
        y = torch.zeros(x.shape, dtype=self.buffer)
        y[:, :, 1:] = x[:, :, :-1]
        return y.to(x.dtype)


@pytest.mark.parametrize("buffer", [torch.int64, torch.float16, torch.float64])
def test_a_copy_through_another_type_is_no_shift_of_the_first(buffer: torch.dtype) -> None:
    module, x = ThroughAnotherType(buffer), torch.randn(2, 4, 6, 5)
    program = capture(module, (x,)).program
    result = rewrite_shifts(program)
    # Between the two casts rows do move, as a shift of what was cast.
    assert torch.equal(program.module()(x.clone()), module(x.clone()))
    for node in program.graph.nodes:
        if node.target is torch.ops.s2mlp.shift.default:
            assert node.args[0].meta["val"].dtype == buffer
    assert len(result.shifts) <= 1


def test_bits_read_as_another_type_are_no_movement() -> None:
    module, x = ThroughAnotherType(torch.int16, as_bits=True), torch.randn(2, 4, 6, 5)
    program = capture(module, (x,)).program
    rewrite_shifts(program)
    assert torch.equal(program.module()(x.clone()), module(x.clone()))
    views = [n for n in program.graph.nodes if n.target is torch.ops.aten.view.dtype]
    assert len(views) == 2


class Enlarged(nn.Module):
    """Rows move down over zeros, in a tensor of more elements than an index may have."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.repeat(1, 44, 1, 1)
        x = x * x
        y = torch.zeros_like(x)
        y[:, :, 1:] = x[:, :, :-1]
        return y.amax((2, 3))


@pytest.mark.slow
def test_a_large_border_of_zeros_is_found() -> None:
    result = found(Enlarged(), 2, 2, 320, 320)
    assert 2 * 88 * 320 * 320 > 1 << 24
    assert [(shift.spec.border, shift.spec.axes) for shift in result.shifts] == [("zero", (2,))]


class RolledWithBorder(nn.Module):
    """Pieces of a padded tensor roll, and the padding stays."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x + 1, (2, 2, 2, 2), mode=self.mode)
        first, second, third = padded.split([3, 2, 1], 1)
        return torch.cat([torch.roll(first, 2, 2), torch.roll(second, -2, 2), third], 1)


@pytest.mark.parametrize("mode", ["constant", "replicate"])
def test_a_padded_tensor_is_a_base_though_it_holds_zeros_or_elements_twice(mode: str) -> None:
    module, x = RolledWithBorder(mode), torch.rand(3, 6, 5, 7)
    program = capture(module, (x,)).program
    (shift,) = rewrite_shifts(program).shifts
    assert [(group.channels, group.offsets) for group in shift.spec.groups] == [(3, (2,)), (2, (-2,)), (1, (0,))]
    assert (shift.spec.axes, shift.spec.border) == ((2,), "circular")
    for batch in (1, 3, 4):
        other = torch.rand(batch, 6, 5, 7)
        assert torch.equal(program.module()(other), module(other))


def whirl(x: Tensor) -> Tensor:
    parts = [torch.roll(part, 3 * k, 3) for k, part in enumerate(torch.split(x + 1, 2, 1))]
    return torch.cat(parts, 1)


class Whirl(nn.Module):
    """Every group rolls by a quarter more."""

    def forward(self, x: Tensor) -> Tensor:
        return whirl(x)


def test_half_the_way_round_beside_other_steps_is_one_of_their_groups() -> None:
    (shift,) = found(Whirl(), 2, 8, 5, 12).shifts
    assert [group.offsets for group in shift.spec.groups] == [(0,), (3,), (6,), (-3,)]


class Halves(nn.Module):
    """The halves of the rows change places."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.roll(x + 1, 3, 2)


def test_half_the_way_round_alone_is_no_shift() -> None:
    result = found(Halves(), 2, 4, 6, 5)
    assert not result.shifts
    assert len(result.near_misses) == 1


class SomeColumns(nn.Module):
    """Channels move within two columns of a few rows only, in a copy of the input."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.clone()
        y[:, 2:, 1, 3:] = x[:, :-2, 1, 3:]
        y[:, :2, 1, 3:] = 0
        return y


def test_a_write_into_a_part_is_another_movement_at_its_line() -> None:
    result = found(SomeColumns(), 2, 6, 4, 5)
    assert not result.shifts
    assert not result.near_misses
    (movement,) = result.movements
    assert movement.origin.code.startswith("y[:, ")
    assert movement.origin.idiom == "slice assignment"


class Tokens(nn.Module):
    """As many tokens as channels, which change places by a transposition."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + 1).flatten(2).transpose(1, 2) * 2


def test_views_are_nothing_to_tell() -> None:
    result = found(Tokens(), 2, 12, 3, 4)
    assert not result.shifts
    assert not result.near_misses


class OneClip(nn.Module):
    """Frames move within clips of six, and the example is one clip: torch allows batches that are none."""

    def forward(self, x: Tensor) -> Tensor:
        clips = (x + 1).view(x.shape[0] // 6, 6, *x.shape[1:])
        y = torch.zeros_like(clips)
        y[:, 1:, :2] = clips[:, :-1, :2]
        y[:, :, 2:] = clips[:, :, 2:]
        return y.view(x.shape)


def test_one_clip_is_shifted_within_clips() -> None:
    """On the example alone the frames might as well stand on the axis of the batch."""
    captured = capture(OneClip(), (torch.rand(6, 4, 3, 3),))
    assert captured.notes == ("the batch of x is a multiple of 6",)
    (shift,) = rewrite_shifts(captured.program).shifts
    assert (shift.spec.axes, shift.spec.border) == ((1,), "zero")


class StepOfSize(nn.Module):
    """Rows move by one for every forty there are: none in the example."""

    def forward(self, x: Tensor) -> Tensor:
        step = x.shape[2] // 40
        y = (x + 1).clone()
        y[:, :3, step:] = (x + 1)[:, :3, : x.shape[2] - step]
        return y


def test_a_copy_at_small_sizes_is_no_copy_at_all_of_them() -> None:
    with pytest.raises(ExportError, match="height cannot be free"):
        capture(StepOfSize(), (torch.rand(2, 6, 9, 5),), dynamic=("batch", "height"))


@pytest.mark.parametrize("way", ["pad", "full_like", "where"])
@pytest.mark.parametrize(("zero", "shifts"), [(0.0, 1), (-0.0, 0)])
def test_a_negative_zero_is_no_zero(way: str, zero: float, shifts: int) -> None:
    class Filled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x * 2
            if way == "pad":
                return F.pad(x, (0, 0, 1, 0), value=zero)[:, :, :-1] + 1
            if way == "full_like":
                y = torch.full_like(x, zero)
                y[:, :, 1:] = x[:, :, :-1]
                return y + 1
            return torch.where((torch.arange(6) > 0)[:, None], torch.roll(x, 1, 2), zero) + 1

    result = found(Filled(), 2, 3, 6, 5)
    assert len([shift for shift in result.shifts if shift.spec.border == "zero"]) == shifts


class Spectrum(nn.Module):
    """Frequencies roll."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.view_as_real(torch.roll(torch.fft.rfft2(x), 1, 2))


def test_complex_elements_are_left_to_the_exporter() -> None:
    assert not found(Spectrum(), 2, 3, 6, 5).shifts
