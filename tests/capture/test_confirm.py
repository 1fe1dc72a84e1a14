"""A program beside its module at sizes that the example did not have."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2mlp_deploy.capture.axes import input_shapes
from s2mlp_deploy.capture.program import Captured, capture
from s2mlp_deploy.errors import ExportError
from s2mlp_deploy.export.canonical import to_canonical


class Of(nn.Module):
    """A module of one function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def captured(function: Callable[[Tensor], Tensor], *shape: int, dynamic: tuple[str, ...] = ("batch",)) -> Captured:
    return capture(Of(function), (torch.rand(shape),), dynamic=dynamic)


def frames(x: Tensor) -> Tensor:
    """Channels of a clip of five frames move by one frame."""
    v = x.view(x.shape[0] // 5, 5, *x.shape[1:])
    y = torch.zeros_like(v)
    y[:, 1:, :1] = v[:, :-1, :1]
    y[:, :, 1:] = v[:, :, 1:]
    return y.view(x.shape)


def parts(x: Tensor) -> Tensor:
    """torch itself makes a constant of the batch where it replaces these writes."""
    y = x.clone()
    for part in y.unbind(2):
        part.mul_(2)
    return y


class Limited:
    """A check that torch.export does not see."""

    @staticmethod
    def check(x: Tensor) -> None:
        if not torch.compiler.is_compiling() and x.shape[2] > 6:
            raise ValueError("too high")


class TestBatch:
    @pytest.mark.parametrize("batch", [1, 3])
    def test_that_becomes_constant_when_writes_do_is_the_examples(self, batch: int) -> None:
        found = captured(parts, batch, 3, 2, 5)
        assert input_shapes(found.program) == [(batch, 3, 2, 5)]
        assert found.notes == (f"the batch is fixed: batch cannot be free: x must have {max(batch, 2)}",)

    @pytest.mark.parametrize("clips", [1, 2])
    def test_of_whole_clips_is_free_in_multiples(self, clips: int) -> None:
        found = captured(frames, 5 * clips, 3, 4, 4)
        (limit,) = found.limits
        assert (limit.name, limit.multiple, limit.min, limit.max) == ("batch", 5, 5, None)
        assert found.notes == ("the batch of x is a multiple of 5",)
        for count in (5, 10, 15, 35):
            x = torch.rand(count, 3, 4, 4)
            assert torch.equal(found.program.module(check_guards=False).forward(x), frames(x))

    def test_of_a_program_that_becomes_constant_is_noted(self) -> None:
        x = torch.rand(3, 4, 2, 5)
        program = torch.export.export(Of(parts), (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
        found = capture(program, (x,))
        assert input_shapes(found.program) == [(3, 4, 2, 5)]
        assert found.notes == ("the batch of x is fixed: torch makes 3 of it where it replaces writes in place",)
        # No size is a string of digits.
        assert list(to_canonical(found).graph.inputs[0].shape or ()) == [3, 4, 2, 5]

    @pytest.mark.parametrize("batch", [1, 3])
    def test_that_decides_at_one_image_is_fixed_at_the_examples(self, batch: int) -> None:
        """torch.export takes a free batch for 2 or more and drops the branch without a guard."""

        def two_ways(x: Tensor) -> Tensor:
            return x.roll(1, 2) if x.shape[0] > 1 else x.roll(2, 2)

        found = captured(two_ways, batch, 2, 5, 5)
        assert input_shapes(found.program) == [(batch, 2, 5, 5)]
        assert "at 1 (the example has" in found.notes[0]
        x = torch.rand(batch, 2, 5, 5)
        assert torch.equal(found.program.module()(x), two_ways(x))

    def test_that_a_loop_counts_is_the_examples_and_no_other(self) -> None:
        found = captured(lambda x: torch.stack([x[i] * (i + 1) for i in range(x.shape[0])]), 1, 2, 5)
        assert input_shapes(found.program) == [(1, 2, 5)]
        assert found.notes[0].startswith("the batch is fixed: ")

    def test_through_integers_of_sizes_is_the_examples(self) -> None:
        """As window attention counts its images."""

        def windows(x: Tensor) -> Tensor:
            n, h, w, c = x.shape
            parts = x.view(n, h // 3, 3, w // 3, 3, c).transpose(2, 3).reshape(-1, 9, c) * 2
            count = int(parts.shape[0] / (h * w / 3 / 3))
            return parts.view(count, h // 3, w // 3, 3, 3, c).transpose(2, 3).reshape(count, h, w, c)

        found = captured(windows, 1, 6, 6, 2)
        assert input_shapes(found.program) == [(1, 6, 6, 2)]

    def test_of_a_race_is_compared_with_its_functional_meaning(self) -> None:
        def race(x: Tensor) -> Tensor:
            x = x * 2
            x[:, :, 1:] = x[:, :, :-1]
            return x

        assert captured(race, 1, 2, 9, 9).notes == ()


class TestHeight:
    def test_of_one_row_may_be_another_thing(self) -> None:
        found = captured(lambda x: x.roll(1, 2) if x.shape[2] > 1 else x * 2, 2, 2, 5, 5, dynamic=("batch", "height"))
        assert found.notes == ("the height of x is at least 2",)

    def test_in_windows_is_a_multiple_from_one_window_on(self) -> None:
        """torch itself asks for two windows, because the example had two."""

        def flipped(x: Tensor) -> Tensor:
            return x.view(x.shape[0], 2, x.shape[2] // 3, 3, x.shape[3]).flip(3).view(x.shape) * 2

        found = captured(flipped, 2, 2, 6, 5, dynamic=("batch", "height"))
        assert found.notes == ("the height of x is a multiple of 3",)
        assert [limit.min for limit in found.limits] == [3]

    def test_that_the_module_refuses_is_refused_where_the_program_runs(self) -> None:
        """torch.export, which takes sizes for 2 and more, notes no guard for this padding; the graph has no check."""
        found = captured(
            lambda x: F.pad(x, (1, 1, 2, 2), mode="circular"), 2, 3, 7, 6, dynamic=("batch", "height", "width")
        )
        assert found.notes == ("the height of x is at least 2",)

    def test_that_the_module_refuses_beyond_the_example_cannot_be_free(self) -> None:
        def few(x: Tensor) -> Tensor:
            Limited.check(x)
            return x * 2

        with pytest.raises(ExportError, match=r"height cannot be free: at \d+ .*the module does not run"):
            captured(few, 2, 2, 6, 5, dynamic=("batch", "height"))

    def test_that_no_range_of_multiples_describes_is_refused(self) -> None:
        def prime(x: Tensor) -> Tensor:
            return x.roll(1 if x.shape[2] in (7, 11, 13) else 2, 2)

        with pytest.raises(ExportError, match=r"height cannot be free: at \d+, "):
            captured(prime, 2, 2, 6, 5, dynamic=("batch", "height"))


def test_the_module_keeps_nothing_of_what_is_tried() -> None:
    class Keeping(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            self.last = x * 2
            return self.last + 1

    module = Keeping()
    module.last = torch.zeros(1)
    before = module.last
    capture(module, (torch.rand(2, 3, 4, 4),))
    assert module.last is before


def test_a_module_that_draws_numbers_is_no_reference_and_keeps_its_free_batch() -> None:
    found = captured(lambda x: x + torch.bernoulli(torch.full_like(x, 0.5)), 2, 3)
    assert input_shapes(found.program) == [("batch", 3)]


def thirds(x: Tensor) -> Tensor:
    """Pieces of one length at the example's height, which torch's exporter writes down as if they always were."""
    return F.adaptive_avg_pool2d(x, (3, 1))


def test_what_the_exporter_takes_apart_by_the_examples_size_is_no_free_size():
    with pytest.raises(ExportError, match=r"height cannot be free: at \d+ \(the example has 12\)"):
        captured(thirds, 2, 4, 12, 5, dynamic=("batch", "height"))
    assert not captured(thirds, 2, 4, 12, 5).notes
