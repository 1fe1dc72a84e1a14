"""Modules that cannot be exported are refused with the line and the fix."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
import torch
from own_models import Fitting, exported, not_exported
from torch import Tensor, nn

from s2mlp_deploy import api
from s2mlp_deploy.errors import SourceError


class Deciding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > 0:
            return x + 1
        return x


class Counting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[: int(x.sum())]


@pytest.mark.parametrize(("module", "code"), [(Deciding(), "if x.mean() > 0:"), (Counting(), "int(x.sum())")])
def test_control_flow_on_values_names_the_line_and_what_to_change(out, module, code):
    error = not_exported(module, torch.ones(2, 3), out)
    assert f"{type(module).__name__} decides by the values of tensors" in error.problem
    assert f"{Path(__file__).name}:" in error.where
    assert code in error.where
    assert "torch.where" in error.fix


class Selecting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0]


def test_a_shape_that_depends_on_values_names_the_line_and_what_to_return_instead(out):
    error = not_exported(Selecting(), torch.ones(2, 3), out)
    assert "depends on the values" in error.problem
    assert "return x[x > 0]" in error.where
    assert "mask" in error.fix


def test_an_output_that_is_no_tensor_is_refused_and_none_is_left_out(out):
    class Returning(nn.Module):
        def __init__(self, extra: object) -> None:
            super().__init__()
            self.extra = extra

        def forward(self, x: Tensor) -> dict[str, object]:
            return {"a": x + 1, "extra": self.extra, "z": x * 2}

    assert "returns 5" in not_exported(Returning(5), torch.ones(2, 3), out).problem
    manifest = exported(Returning(None), torch.ones(2, 3), out)
    assert [info.name for info in manifest.outputs] == ["a", "z"]


def test_what_is_drawn_at_random_is_noted(out):
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn_like(x)

    manifest = api.export(api.from_module(Noisy(), torch.ones(2, 3)), out).manifest
    (note,) = manifest.notes
    assert "randn_like" in note
    assert f"({Path(__file__).name}:" in note


def test_torchscript_is_refused_and_wrappers_are_taken_off(out):
    with pytest.raises(SourceError, match="TorchScript") as caught:
        api.from_module(torch.jit.script(nn.Linear(2, 2)), torch.zeros(2, 2))
    assert "scripted" in caught.value.fix
    inner = nn.Linear(2, 2)
    for wrapped in (torch.compile(inner), nn.DataParallel(inner), torch.compile(nn.DataParallel(inner))):
        assert api.from_module(wrapped, torch.zeros(2, 2)).module is inner


@pytest.mark.parametrize(
    ("inputs", "says", "described"),
    [
        (torch.zeros(2, 5), "mat1 and mat2", "float32 [2, 5]"),
        # torch.export lets this one pass; the module's own run does not.
        (torch.zeros(2, 4, dtype=torch.int64), "Long and Float", "example inputs that fit"),
        ((torch.zeros(2, 4), torch.zeros(2, 2), torch.zeros(1)), "positional arguments", "float32 [1]"),
    ],
)
def test_example_inputs_that_do_not_fit_are_told_from_a_module_that_cannot_be_captured(out, inputs, says, described):
    error = not_exported(Fitting(), inputs, out)
    assert "does not run on its example inputs" in error.problem
    assert says in error.problem
    assert described in error.fix
    if says == "mat1 and mat2":
        assert "y = self.layer(x)" in error.where


class WritesInput(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        image[:, 0] = 0
        return image * 2


class WritesBuffer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return x * self.seen


def test_a_forward_that_writes_into_its_input_is_refused_and_the_example_is_whole(out):
    example = torch.ones(2, 3)
    error = not_exported(WritesInput(), example, out)
    assert "'image'" in error.problem
    assert "clone" in error.fix
    assert torch.equal(example, torch.ones(2, 3))


def test_a_forward_that_writes_into_a_buffer_is_refused_with_the_buffer_and_the_buffer_is_whole(out):
    module = WritesBuffer()
    error = not_exported(module, torch.ones(2, 3), out)
    assert "'seen'" in error.problem
    assert "no state between runs" in error.problem
    assert "if self.training" in error.fix
    assert module.seen == 0


class AlwaysDropping(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5)


def test_dropout_that_is_on_in_evaluation_mode_is_refused_with_its_line(out):
    error = not_exported(AlwaysDropping(), torch.ones(2, 3), out)
    assert "dropout is on" in error.problem
    assert "nn.functional.dropout(x, 0.5)" in error.where
    assert "self.training" in error.fix


class OnGpu(torch.nn.Parameter):
    """A parameter that says it is on a GPU; there need be none."""

    @property
    def device(self) -> torch.device:
        return torch.device("cuda:0")


class LinearOnGpu(torch.nn.Linear):
    """Leaves the GPU as a plain layer."""

    def __init__(self) -> None:
        super().__init__(2, 2, bias=False)
        self.weight = OnGpu(torch.zeros(2, 2))

    def cpu(self) -> torch.nn.Module:
        return torch.nn.Linear(2, 2)


def test_a_module_on_a_gpu_is_refused_with_the_way_to_the_cpu():
    with pytest.raises(SourceError, match=r"on cuda:0[\s\S]*captured on the CPU[\s\S]*module\.cpu\(\)"):
        api.from_module(LinearOnGpu(), torch.ones(2, 2))


def test_the_module_of_a_factory_on_a_gpu_is_moved_to_the_cpu(monkeypatch, caplog):
    monkeypatch.setattr(sys.modules[__name__], "cuda_factory", lambda: (LinearOnGpu(), torch.ones(2, 2)), raising=False)
    with caplog.at_level(logging.WARNING, "s2mlp_deploy"):
        source = api.load(f"{__name__}:cuda_factory")
    assert str(source.module.weight.device) == "cpu"
    assert "on cuda:0; it is moved to the CPU" in caplog.text
