"""What cannot become a graph is refused with its name, its line and a fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from s2mlp_deploy.capture.program import capture
from s2mlp_deploy.errors import CheckpointError, ExportError

EXAMPLE = (torch.rand(2, 3, 4, 4),)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.last(self.drop(self.first(image).relu()))


class Deciding(Small):
    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image) if image.sum() > 0 else super().forward(-image)


class TestRefusals:
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_weights_that_are_not_finite_by_name_and_number(self, value: float) -> None:
        module = Small()
        with torch.no_grad():
            module.first.weight[0, :2] = value
            module.last.bias[0] = value
        with pytest.raises(CheckpointError, match="2 weights hold NaN or infinite values") as raised:
            capture(module, EXAMPLE)
        assert raised.value.where is not None
        assert "first.weight (2 of 24 values)" in raised.value.where
        assert "last.bias (1 of 2 values)" in raised.value.where
        assert raised.value.fix

    def test_buffers_that_are_not_finite_but_not_counters(self) -> None:
        module = nn.BatchNorm2d(3)
        capture(module, EXAMPLE)
        assert module.running_var is not None
        module.running_var[1] = float("nan")
        with pytest.raises(CheckpointError, match="1 weights") as raised:
            capture(module, EXAMPLE)
        assert raised.value.where == "running_var (1 of 3 values)"

    def test_nan_but_not_infinity_in_buffers(self) -> None:
        class Masked(nn.Module):
            def __init__(self, fill: float) -> None:
                super().__init__()
                self.register_buffer("mask", torch.full((4, 4), fill).triu(1))

            def forward(self, image: Tensor) -> Tensor:
                return (image + self.mask).softmax(-1)

        assert capture(Masked(float("-inf")), EXAMPLE).notes == ()
        with pytest.raises(CheckpointError, match="1 weights hold NaN") as raised:
            capture(Masked(float("nan")), EXAMPLE)
        assert raised.value.where == "mask (6 of 16 values)"

    def test_weights_without_values(self) -> None:
        with torch.device("meta"):
            module = Small()
        with pytest.raises(CheckpointError, match="4 weights are on the meta device") as raised:
            capture(module, EXAMPLE)
        assert raised.value.fix

    def test_control_flow_on_values_and_says_where_it_stands(self) -> None:
        with pytest.raises(ExportError, match="Deciding decides by the values of tensors") as raised:
            capture(Deciding(), EXAMPLE)
        assert raised.value.fix
        assert "torch.where" in raised.value.fix
        assert raised.value.where is not None
        assert f"{Path(__file__).name}:" in raised.value.where
        assert "image.sum() > 0" in raised.value.where

    def test_a_forward_that_writes_into_its_input(self) -> None:
        class Writing(nn.Module):
            def forward(self, image: Tensor) -> Tensor:
                image[:, :, 0] = 0
                return image + 1

        with pytest.raises(ExportError, match="forward changes 'image' in place") as raised:
            capture(Writing(), EXAMPLE)
        assert raised.value.fix
        assert raised.value.where is not None
        assert raised.value.where.endswith("image[:, :, 0] = 0")

    def test_a_forward_that_counts_in_a_buffer(self) -> None:
        class Counting(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("seen", torch.zeros(1))

            def forward(self, image: Tensor) -> Tensor:
                self.seen += 1
                return image + self.seen

        with pytest.raises(ExportError, match="forward changes the buffers 'seen'") as raised:
            capture(Counting(), EXAMPLE)
        assert raised.value.where is not None
        assert raised.value.where.endswith("self.seen += 1")


class Dropping(nn.Module):
    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, image: Tensor) -> Tensor:
        return nn.functional.dropout(image, self.p)


def test_dropout_that_drops_nothing_is_not_on() -> None:
    program = capture(Dropping(0.0), EXAMPLE).program
    with torch.no_grad():
        assert torch.equal(program.module()(*EXAMPLE), EXAMPLE[0])
    with pytest.raises(ExportError, match="dropout is on"):
        capture(Dropping(0.1), EXAMPLE)


def test_a_branch_on_values_is_exported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = torch.export.export

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs)
        return original(*args, **kwargs)

    monkeypatch.setattr(torch.export, "export", counting)
    with pytest.raises(ExportError, match="decides by the values"):
        capture(Deciding(), EXAMPLE, dynamic=("batch", "height", "width"))
    assert len(calls) == 1


class TestNames:
    def test_given_twice_are_refused_before_anything_is_translated(self) -> None:
        with pytest.raises(ExportError, match="two inputs or outputs are called 'image'") as raised:
            capture(Small(), EXAMPLE, input_names=["image"], output_names=["image"])
        assert raised.value.where == "inputs image; outputs image"
        assert raised.value.fix

    def test_of_a_structure_that_repeats_itself_are_numbered(self) -> None:
        class Repeating(nn.Module):
            def forward(self, x: Tensor) -> dict[str, Any]:
                return {"a_b": x + 1, "a": {"b": x + 2}, "x": x + 3}

        assert capture(Repeating(), EXAMPLE).output_names == ("a_b", "a_b_1", "x_1")


def test_failed_trace_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    # torch prints its graph of a trace that data-dependent control flow ended.
    with pytest.raises(ExportError):
        capture(Deciding(), EXAMPLE)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize("place", ["weight", "saved", "unsaved", "constant"])
def test_a_program_with_nan_is_refused(place: str) -> None:
    class Adding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))
            self.register_buffer("saved", torch.ones(3))
            self.register_buffer("unsaved", torch.ones(3), persistent=False)
            self.constant = torch.ones(3)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.weight + self.saved + self.unsaved + self.constant

    module = Adding().eval()
    capture(torch.export.export(module, (torch.ones(2, 3),)), [torch.ones(2, 3)])
    getattr(module, place).data[1] = float("nan")
    with pytest.raises(CheckpointError, match="NaN") as raised:
        capture(torch.export.export(module, (torch.ones(2, 3),)), [torch.ones(2, 3)])
    assert raised.value.where == f"{place} (1 of 3 values)"
