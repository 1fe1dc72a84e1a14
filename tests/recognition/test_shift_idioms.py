"""Four ways to write a shift, each equal to the operator; and two that look alike and are not.

The worked example is a 5x5 grid whose channels hold the row and the column of each cell, in turn: after a shift every
cell says where it came from. Channel pairs move right, left, down and up.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from s2mlp_deploy.shift.op import shift
from s2mlp_deploy.shift.spec import BORDERS, Border, ShiftSpec

Offsets = list[tuple[int, int]]
Spelling = Callable[[Tensor, Offsets, Border], Tensor]


# --- The idioms. All take NCHW with equal channel groups. --------------------------------------------------------


def by_slices(x: Tensor, offsets: Offsets, border: Border) -> Tensor:
    """Assign to a copy what was read from the original: what is not assigned keeps its value, or is 0."""
    out = torch.zeros_like(x) if border == "zero" else x.clone()
    height, width = x.shape[2:]
    for target, source, (down, right) in zip(
        out.chunk(len(offsets), 1), x.chunk(len(offsets), 1), offsets, strict=True
    ):
        target[:, :, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = source[
            :, :, max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)
        ]
    return out


def padded(x: Tensor, reach: int, border: Border) -> Tensor:
    """``reach`` more cells on every side. A kept border is a replicated one only where a single cell is vacated."""
    assert border != "keep" or reach == 1
    mode = {"keep": "replicate", "edge": "replicate", "zero": "constant", "circular": "circular"}[border]
    return F.pad(x, [reach] * 4, mode=mode)


def reach_of(offsets: Offsets) -> int:
    return max(abs(step) for offset in offsets for step in offset)


def by_roll(x: Tensor, offsets: Offsets, border: Border) -> Tensor:
    """Roll each group of the padded tensor; what wraps around ends in the padding, which is cut off."""
    reach = reach_of(offsets)
    groups = padded(x, reach, border).chunk(len(offsets), 1)
    rolled = [torch.roll(group, offset, (2, 3)) for group, offset in zip(groups, offsets, strict=True)]
    return torch.cat(rolled, 1)[:, :, reach:-reach, reach:-reach]


def one_hot_kernels(offsets: Offsets, channels: int, reach: int) -> Tensor:
    """Each channel's kernel has its only 1 where the channel reads from."""
    kernels = torch.zeros(channels, 1, 2 * reach + 1, 2 * reach + 1)
    for channel in range(channels):
        down, right = offsets[channel * len(offsets) // channels]
        kernels[channel, 0, reach - down, reach - right] = 1
    return kernels


def by_convolution(x: Tensor, offsets: Offsets, border: Border) -> Tensor:
    """A depthwise convolution of the padded tensor."""
    reach, channels = reach_of(offsets), x.shape[1]
    return F.conv2d(padded(x, reach, border), one_hot_kernels(offsets, channels, reach), groups=channels)


def by_deformable(deform: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Spelling:
    """A 1x1 deformable convolution that passes every channel on, with one constant offset per channel."""

    def spelled(x: Tensor, offsets: Offsets, border: Border) -> Tensor:
        reach, channels = reach_of(offsets), x.shape[1]
        wide = padded(x, reach, border)
        # Offsets say where to read: the opposite of where the content goes.
        reads = torch.tensor(offsets).neg().repeat_interleave(channels // len(offsets), 0).flatten().to(x.dtype)
        offset = reads[None, :, None, None].expand(x.shape[0], -1, *wide.shape[2:]).contiguous()
        weight = torch.eye(channels)[:, :, None, None]
        return deform(wide, offset, weight)[:, :, reach:-reach, reach:-reach]

    return spelled


def deform_reference(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """Deformable convolution v1 with stride 1 and no padding: bilinear sampling, 0 outside, then a weighted sum.

    ``offset`` is [N, offset groups x kernel cells x (row, column), H', W'].
    """
    batch, channels, height, width = x.shape
    rows, columns = weight.shape[2:]
    out_height, out_width = height - rows + 1, width - columns + 1
    per_group = offset.unflatten(1, (-1, rows * columns, 2))
    each = channels // per_group.shape[1]
    out = x.new_zeros(batch, weight.shape[0], out_height, out_width)
    base_row, base_column = torch.meshgrid(torch.arange(out_height), torch.arange(out_width), indexing="ij")
    for tap, (i, j) in enumerate(itertools.product(range(rows), range(columns))):
        moves = per_group[:, :, tap].repeat_interleave(each, 1)  # [N, C, 2, H', W']
        row, column = base_row + i + moves[:, :, 0], base_column + j + moves[:, :, 1]
        sample = torch.zeros_like(row)
        for r, c in itertools.product((row.floor(), row.floor() + 1), (column.floor(), column.floor() + 1)):
            share = (1 - (row - r).abs()) * (1 - (column - c).abs())
            inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
            cell = r.clamp(0, height - 1).long() * width + c.clamp(0, width - 1).long()
            value = x.flatten(2).gather(2, cell.flatten(2)).reshape(cell.shape)
            sample = sample + torch.where(inside, share * value, 0.0)
        out = out + torch.einsum("oc,nchw->nohw", weight[:, :, i, j], sample)
    return out


def deform_torchvision(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    ops = pytest.importorskip("torchvision.ops")
    return ops.deform_conv2d(x, offset, weight)


SPELLINGS: dict[str, Spelling] = {
    "slices": by_slices,
    "roll": by_roll,
    "convolution": by_convolution,
    "deformable": by_deformable(deform_reference),
    "deformable-torchvision": by_deformable(deform_torchvision),
}


def expressible(step: int) -> list[tuple[str, Border]]:
    """Which idiom can leave which border after a step of so many cells."""
    slices: list[Border] = ["keep", "edge", "zero"] if step == 1 else ["keep", "zero"]
    # What is padded cannot keep the own values of two vacated cells.
    others: list[Border] = [border for border in BORDERS if border != "keep" or step == 1]  # type: ignore[misc]
    return [(name, border) for name in SPELLINGS for border in (slices if name == "slices" else others)]


# --- They are the shift. ---------------------------------------------------------------------------------------------


def four_ways(step: int) -> Offsets:
    return [(0, step), (0, -step), (step, 0), (-step, 0)]


def operator(x: Tensor, offsets: Offsets, border: Border, layout: str) -> Tensor:
    """The operator in either layout, from NCHW to NCHW."""
    if layout == "channels-first":
        return shift(x, ShiftSpec.equal_groups(x.shape[1], offsets, axes=(2, 3), channel_axis=1, border=border))
    spec = ShiftSpec.equal_groups(x.shape[1], offsets, axes=(1, 2), channel_axis=3, border=border)
    return shift(x.permute(0, 2, 3, 1).contiguous(), spec).permute(0, 3, 1, 2)


def coordinates(height: int, width: int) -> Tensor:
    """Even channels hold each cell's row, odd channels its column: [1, 8, height, width]."""
    row = torch.arange(height)[:, None].expand(height, width)
    column = torch.arange(width)[None, :].expand(height, width)
    return torch.stack([row, column] * 4)[None].float()


@pytest.mark.parametrize("layout", ["channels-first", "channels-last"])
def test_worked_example_says_where_each_cell_came_from(layout: str) -> None:
    result = operator(coordinates(5, 5), four_ways(1), "keep", layout)[0]
    still, forward, backward = [0, 1, 2, 3, 4], [0, 0, 1, 2, 3], [1, 2, 3, 4, 4]
    expected_rows = [still, still, forward, backward]
    expected_columns = [forward, backward, still, still]
    for pair in range(4):
        rows, columns = result[2 * pair], result[2 * pair + 1]
        assert rows.tolist() == [[row] * 5 for row in expected_rows[pair]]
        assert columns.tolist() == [expected_columns[pair]] * 5


@pytest.mark.parametrize("layout", ["channels-first", "channels-last"])
@pytest.mark.parametrize(
    ("step", "idiom", "border"),
    [(step, idiom, border) for step in (1, 2) for idiom, border in expressible(step)],
)
def test_spelling_is_the_operator(step: int, idiom: str, border: Border, layout: str) -> None:
    offsets = four_ways(step)
    generator = torch.Generator().manual_seed(0)
    for x in (
        coordinates(5, 5),
        torch.randn(3, 12, 5, 7, generator=generator),
        torch.randn(2, 8, 6, 4, generator=generator),
        torch.randn(2, 4, 14, 14, generator=generator),
    ):
        assert torch.equal(SPELLINGS[idiom](x, offsets, border), operator(x, offsets, border, layout))


# A diagonal vacates more than one cell wherever two of its sides meet, so it is as the step of two.
@pytest.mark.parametrize(("idiom", "border"), expressible(2))
def test_spelling_is_the_operator_on_diagonals(idiom: str, border: Border) -> None:
    offsets = [(1, 1), (-1, 2), (2, -1), (0, 0)]
    x = torch.randn(2, 8, 5, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(SPELLINGS[idiom](x, offsets, border), operator(x, offsets, border, "channels-first"))


def test_deformable_reference_without_offsets_is_a_convolution() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 4, 6, 5, generator=generator), torch.randn(3, 4, 3, 2, generator=generator)
    no_offset = torch.zeros(2, 2 * 6, 4, 4)
    torch.testing.assert_close(deform_reference(x, no_offset, weight), F.conv2d(x, weight))


def test_deformable_reference_interpolates_between_cells() -> None:
    x = torch.tensor([[[[0.0, 10.0, 30.0]]]])
    offset = torch.tensor([0.0, 0.25])[None, :, None, None].expand(1, 2, 1, 3)
    # The last cell mixes with the 0 outside.
    assert deform_reference(x, offset, torch.ones(1, 1, 1, 1)).tolist() == [[[[2.5, 15.0, 22.5]]]]


# --- They are not. ---------------------------------------------------------------------------------------------------


def test_zero_padded_convolution_is_not_the_papers_shift() -> None:
    """Section 3.3 of the S2-MLP paper calls a depthwise convolution equivalent: only once the border is replicated."""
    x, offsets = coordinates(5, 5) + 1, four_ways(1)
    zero_padded = F.conv2d(x, one_hot_kernels(offsets, 8, reach=1), groups=8, padding=1)
    paper = operator(x, offsets, "keep", "channels-first")
    assert not torch.equal(zero_padded, paper)
    assert torch.equal(zero_padded, operator(x, offsets, "zero", "channels-first"))
    # It differs in the vacated row or column of each group and nowhere else.
    assert int((zero_padded != paper).sum()) == 8 * 5


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
class TestOverlappingCopy:
    """``x[:, 1:] = x[:, :-1]`` copies a tensor onto itself; torch leaves the result undefined.

    On one thread, contiguous channels-last, the copy runs from front to back, so that a step forward reads cells that
    were written a moment before.
    """

    SIZE = 14

    def written_in_place(self, x: Tensor) -> Tensor:
        x = x.clone()
        x[:, 1:, :, 0:4] = x[:, :-1, :, 0:4]
        x[:, :-1, :, 4:8] = x[:, 1:, :, 4:8]
        return x

    def meant(self, x: Tensor) -> Tensor:
        return shift(x, ShiftSpec.equal_groups(8, [(1,), (-1,)], axes=(1,), channel_axis=3))

    @pytest.fixture
    def x(self) -> Tensor:
        return torch.randn(2, self.SIZE, self.SIZE, 8, generator=torch.Generator().manual_seed(0))

    def test_steps_forward_smear_the_first_row_over_all(self, x: Tensor) -> None:
        smeared = self.written_in_place(x)[..., :4]
        assert torch.equal(smeared, x[:, :1, :, :4].expand_as(smeared))
        assert not torch.equal(smeared, self.meant(x)[..., :4])
        # Rows 0 and 1 hold the first row in the paper's shift too: 12 of 14 are wrong.
        wrong = (smeared != self.meant(x)[..., :4]).float().mean().item()
        assert wrong == pytest.approx((self.SIZE - 2) / self.SIZE)

    def test_steps_back_happen_to_be_right(self, x: Tensor) -> None:
        assert torch.equal(self.written_in_place(x)[..., 4:], self.meant(x)[..., 4:])

    def test_from_a_copy_both_are_right(self, x: Tensor) -> None:
        out = x.clone()
        out[:, 1:, :, 0:4] = x[:, :-1, :, 0:4]
        out[:, :-1, :, 4:8] = x[:, 1:, :, 4:8]
        assert torch.equal(out, self.meant(x))
