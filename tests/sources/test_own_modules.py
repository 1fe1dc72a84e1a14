"""Modules of any mode, interface and size: artifacts of them compute the same."""

from __future__ import annotations

import logging

import numpy as np
import onnxruntime
import pytest
import torch
from own_models import Fitting, exported, not_exported, program, refused, run_onnx
from torch import Tensor, nn

from s2mlp_deploy import api
from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
from s2mlp_deploy.errors import ExportError, InputError


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.norm(self.layer(x)))


def test_a_training_module_is_said_exported_in_evaluation_mode_and_left_as_it_was(out, caplog):
    module = Dropping().train()
    module.norm.eval()
    modes = {name: child.training for name, child in module.named_modules()}
    with caplog.at_level(logging.WARNING):
        source = api.from_module(module, torch.zeros(2, 8))
    assert "Dropping is in training mode; it is exported in evaluation mode" in caplog.text
    api.export(source, out)
    assert {name: child.training for name, child in module.named_modules()} == modes
    session = onnxruntime.InferenceSession(out / "model.fp32.onnx")
    x = torch.randn(3, 8)
    with torch.no_grad():
        expected = module.eval()(x)
    first, second = (session.run(None, {"x": x.numpy()})[0] for _ in range(2))
    assert np.array_equal(first, second)
    np.testing.assert_allclose(first, expected.numpy(), atol=1e-5)


class Several(nn.Module):
    def forward(self, left: Tensor, right: dict[str, Tensor], more: tuple[Tensor, ...]) -> dict[str, object]:
        total = left + right["a"] * right["b"]
        return {"total": total, "parts": [more[0] - left, (more[1] * 2,)], "same": total * 1}


def test_structures_of_inputs_and_outputs_keep_their_names_and_values(out):
    def some() -> Tensor:
        return torch.randn(2, 3)

    manifest = exported(Several(), (some(), {"a": some(), "b": some()}, (some(), some())), out)
    assert [info.name for info in manifest.inputs] == ["left", "right_a", "right_b", "more_0", "more_1"]
    assert [info.name for info in manifest.outputs] == ["total", "parts_0", "parts_1_0", "same"]
    assert all(info.shape[0] == "batch" for info in manifest.inputs)


def test_any_number_of_positional_arguments(out):
    class Adding(nn.Module):
        def forward(self, first: Tensor, *others: Tensor) -> Tensor:
            return first + sum(others)

    manifest = exported(Adding(), (torch.ones(2, 3), torch.ones(2, 3), torch.ones(2, 3)), out)
    assert len(manifest.inputs) == 3
    assert all(info.shape == ("batch", 3) for info in manifest.inputs)


def test_whole_numbers_go_in(out):
    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(7, 4)

        def forward(self, ids: Tensor, scale: Tensor) -> Tensor:
            return self.table(ids).mean(1) * scale

    manifest = exported(Looking(), (torch.arange(6).reshape(2, 3), torch.ones(2, 1)), out)
    assert [info.dtype for info in manifest.inputs] == ["int64", "float32"]


def test_a_saved_program_goes_the_same_way_as_its_module(tmp_path, out):
    module = Dropping().eval()
    reference = program(module, tmp_path / "net.pt2", dynamic_shapes=({0: torch.export.Dim("n", min=1)},))
    manifest = api.export(reference, out).manifest
    assert manifest.inputs[0].shape[0] != 2
    assert manifest.source.checkpoint == "net.pt2"
    (report,) = api.parity(reference, [out / "model.fp32.onnx"], samples=3)
    assert report.passed
    (report,) = api.parity(api.from_module(module, torch.zeros(2, 8)), [out / "model.fp32.onnx"], samples=3)
    assert report.passed


def test_a_program_saved_in_training_mode_is_refused(tmp_path, out):
    reference = program(nn.Dropout(0.5).train(), tmp_path / "net.pt2")
    with pytest.raises(ExportError, match="dropout is on"):
        api.export(reference, out)
    assert not out.exists()


def test_programs_that_cannot_be_used_say_why(tmp_path):
    assert "no such file" in refused(str(tmp_path / "nothing.pt2")).problem
    (tmp_path / "text.pt2").write_text("hello")
    assert "not a program" in refused(str(tmp_path / "text.pt2")).problem
    reference = program(nn.Linear(8, 2), tmp_path / "net.pt2")
    assert "inside" in refused(reference, overrides={"width": "3"}).problem
    assert "inside" in refused(reference, checkpoint=tmp_path / "w.pt").problem
    saved = torch.export.export(Fitting(), (torch.zeros(2, 4),), {"scale": torch.ones(2)})
    torch.export.save(saved, tmp_path / "keyword.pt2")
    assert "keyword arguments: scale" in refused(str(tmp_path / "keyword.pt2")).problem


class Convolving(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        return self.layer(image)


def test_the_batch_is_free_although_the_example_has_one_image(out):
    module = Convolving().eval()
    manifest = exported(module, torch.randn(1, 3, 6, 6), out)
    assert manifest.inputs[0].shape == ("batch", 3, 6, 6)
    for size in (1, 3):
        x = torch.randn(size, 3, 6, 6)
        np.testing.assert_allclose(run_onnx(out, x), module(x).detach().numpy(), atol=1e-5)


def test_a_fixed_batch_is_noted_in_the_manifest_with_the_reason(out):
    class Single(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image.reshape(1, 3, 36) * 2

    manifest = exported(Single(), torch.randn(1, 3, 6, 6), out)
    assert manifest.inputs[0].shape == (1, 3, 6, 6)
    assert len(manifest.notes) == 1
    assert "the batch is fixed" in manifest.notes[0]
    assert "Single" in manifest.notes[0]


def test_a_smallest_size_is_no_reason_to_refuse_a_free_height_but_is_noted(out):
    class Large(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image.roll(1, 2) * 2 if image.shape[2] > 10 else image

    module = Large().eval()
    manifest = exported(module, torch.randn(1, 3, 16, 16), out, dynamic=("batch", "height", "width"))
    assert manifest.inputs[0].shape == ("batch", 3, "height", "width")
    assert manifest.notes == ("the height of image is at least 11",)
    (limit,) = manifest.limits
    assert (limit.input, limit.axis, limit.min) == ("image", 2, 11)
    with pytest.raises(InputError, match="at least 11, and it was given 10"):
        OnnxRuntimeEngine(out / "model.fp32.onnx").run({"image": np.zeros((2, 3, 10, 21), np.float32)})
    x = torch.randn(2, 3, 12, 21)
    np.testing.assert_allclose(run_onnx(out, x), module(x).detach().numpy(), atol=1e-5)


def test_a_module_that_fixes_its_height_is_refused_where_a_free_one_was_asked_for(out):
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3 * 36, 2)

        def forward(self, image: Tensor) -> Tensor:
            return self.layer(image.flatten(1))

    error = not_exported(Flat(), torch.randn(2, 3, 6, 6), out, dynamic=("batch", "height"))
    assert "height" in error.problem
    assert error.fix
