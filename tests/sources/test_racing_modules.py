"""Modules whose eager result is undefined: the functional meaning is exported, and said."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from own_models import not_exported, program, run_onnx
from PIL import Image
from torch import Tensor, nn

from s2mlp_deploy import api


class Racing(nn.Module):
    """A classifier with the shift of public code. The layer makes a copy, so the input itself stays whole."""

    def __init__(self, channels: int = 3, classes: int = 2) -> None:
        super().__init__()
        self.layer = nn.Linear(channels, 8)
        self.head = nn.Linear(8, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = self.layer(image.permute(0, 2, 3, 1))
        x[:, 1:, :, :4] = x[:, :-1, :, :4]  # down
        x[:, :, 1:, 4:] = x[:, :, :-1, 4:]  # right
        return self.head((x * x).mean((1, 2)))


def racing() -> nn.Module:
    torch.manual_seed(0)
    return Racing().eval()


def test_a_race_is_exported_with_its_functional_meaning_and_recorded(out, caplog):
    module = racing()
    source = api.from_module(module, torch.randn(2, 3, 6, 6))
    with caplog.at_level(logging.WARNING):
        manifest = api.export(source, out).manifest
    assert "functional meaning is exported" in caplog.text
    assert [hazard.kind for hazard in manifest.hazards] == ["race", "race"]
    lines = Path(__file__).read_text().splitlines()
    for hazard in manifest.hazards:
        name, _, number = hazard.where.partition(":")
        assert name == Path(__file__).name
        assert hazard.code == lines[int(number) - 1].strip()
        assert hazard.writes == 1
        # Of the 5 rows (or columns) that are written, 4 are read as well: 2 images, 6 of the other axis, 4 channels.
        assert hazard.elements == 2 * 4 * 6 * 4
        assert hazard.eager_deviation["1"] > 0
    assert sum(len(shift.spec.groups) for shift in manifest.shifts) >= 2
    x = torch.randn(3, 3, 6, 6)
    y = module.layer(x.permute(0, 2, 3, 1))
    meant = y.clone()
    meant[:, 1:, :, :4] = y[:, :-1, :, :4]
    meant[:, :, 1:, 4:] = y[:, :, :-1, 4:]
    expected = module.head((meant * meant).mean((1, 2))).detach().numpy()
    np.testing.assert_allclose(run_onnx(out, x), expected, atol=1e-5)
    (report,) = api.parity(source, [out / "model.fp32.onnx"], samples=4)
    assert report.passed
    assert "functional meaning" in report.reference
    assert report.eager[0].metrics.max_abs > 1e-4


def test_a_race_can_be_refused(out):
    error = not_exported(racing(), torch.randn(2, 3, 6, 6), out, on_hazard="error")
    assert "eager PyTorch does not define" in error.problem
    assert "x[:, 1:, :, :4] = x[:, :-1, :, :4]" in error.where
    assert error.where.startswith("2 places, the first: ")
    assert error.where.endswith("; all: inspect")
    assert "clone" in error.fix


def test_labelled_images_give_the_accuracy_of_both_meanings(out, tmp_path):
    description = tmp_path / "image.json"
    description.write_text('{"size": [8, 8], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "classes": ["a", "b"]}')
    generator = np.random.default_rng(0)
    for index in range(12):
        folder = tmp_path / "data" / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    source = api.from_module(racing(), torch.randn(2, 3, 8, 8), preprocess=description)
    api.export(source, out)
    (report,) = api.parity(source, [out / "model.fp32.onnx"], data=tmp_path / "data")
    assert report.images == 12
    ranks, eager = report.outputs[0].ranks, report.eager[0].ranks
    assert ranks.reference_accuracy == ranks.candidate_accuracy
    assert eager.reference_accuracy == ranks.reference_accuracy
    assert eager.candidate_accuracy is not None


def test_a_cloned_right_hand_side_is_told_and_never_refused(out, caplog):
    class Cloned(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x * 1
            x[:, 1:] = x[:, :-1].clone()
            return x

    source = api.from_module(Cloned(), torch.randn(2, 4, 4))
    with caplog.at_level(logging.WARNING):
        manifest = api.export(source, out, on_hazard="error").manifest
    assert [(hazard.kind, hazard.eager_deviation) for hazard in manifest.hazards] == [("compiler", None)]
    assert "Inductor" in caplog.text
    (report,) = api.parity(source, [out / "model.fp32.onnx"], samples=2)
    assert report.passed
    assert report.eager == ()


def test_a_program_saved_with_a_race_in_it_has_its_functional_meaning(tmp_path, out):
    module = racing()
    example = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        reference = program(module, tmp_path / "net.pt2", (example,))
    api.export(reference, out)
    (report,) = api.parity(api.from_module(module, example), [out / "model.fp32.onnx"], samples=2)
    assert report.passed
