"""Exporting a user's own module, or being refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from s2mlp_deploy import api
from s2mlp_deploy.errors import ExportError, S2MLPDeployError, SourceError


class Fitting(nn.Module):
    """A layer with an input that may be left out."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        y = self.layer(x)
        return y if scale is None else y * scale


def refused(reference: str, kind: type[S2MLPDeployError] = SourceError, **options) -> S2MLPDeployError:
    with pytest.raises(kind) as caught:
        api.load(reference, **options)
    assert caught.value.exit_code == 2
    assert caught.value.fix
    return caught.value


def exported(module, inputs, place: Path, **options):
    """Exports, checks parity, returns the manifest."""
    source = api.from_module(module, inputs)
    manifest = api.export(source, place, **options).manifest
    (report,) = api.parity(source, [place / "model.fp32.onnx"], samples=4)
    assert report.passed, report.failures
    return manifest


def not_exported(module, inputs, place: Path, kind: type[S2MLPDeployError] = ExportError, **options):
    with pytest.raises(kind) as caught:
        api.export(api.from_module(module, inputs), place, **options)
    assert caught.value.exit_code == 2
    assert caught.value.fix
    assert not place.exists()
    return caught.value


def program(module: nn.Module, path: Path, inputs=None, **options) -> str:
    saved = torch.export.export(module, inputs or (torch.randn(2, 8),), **options)
    torch.export.save(saved, path)
    return str(path)


def run_onnx(place: Path, x: Tensor) -> np.ndarray:
    return onnxruntime.InferenceSession(place / "model.fp32.onnx").run(None, {"image": x.numpy()})[0]
