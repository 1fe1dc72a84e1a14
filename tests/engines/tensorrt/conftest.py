"""What engines are built from."""

from __future__ import annotations

import nano_artifact
import onnx_graphs as og
import pytest


@pytest.fixture
def artifact(tmp_path):
    pytest.importorskip("torch")
    return nano_artifact.copy_to(tmp_path / "artifact")


@pytest.fixture
def graph(tmp_path):
    """A small graph of ours: it builds in milliseconds."""
    return og.save(og.perceptron(metadata={"precision": "fp32", "name": "small"}), tmp_path / "model.fp32.onnx")
