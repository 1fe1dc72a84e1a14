"""One service for all tests that only ask: two models, one of them in two versions."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from served import serving


@pytest.fixture(scope="session")
def needs() -> None:
    """Skips where the service's packages are not installed."""
    for package in ("onnx", "onnxruntime", "fastapi", "uvicorn", "httptools", "prometheus_client", "httpx", "grpc"):
        pytest.importorskip(package)


@pytest.fixture(scope="session")
def models(needs: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``colours`` classifies images; ``tokens`` has two versions of a perceptron, with the same name."""
    from image_artifact import write_image_artifact
    from plain_artifact import write_plain
    from proven import prove

    place = tmp_path_factory.mktemp("models")
    write_image_artifact(place / "colours")
    for version in (1, 2):
        write_plain(place / "tokens" / str(version), 0)
        prove(place / "tokens" / str(version))
    return place


@pytest.fixture(scope="session")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory):
    """What serves them, with small bounds."""
    place = tmp_path_factory.mktemp("server")
    bounds = (
        "--max-body",
        1,
        "--max-pixels",
        100_000,
        "--threads",
        1,
        "--max-delay",
        1,
        "--reload-every",
        0,
        "--grpc-port",
        0,
    )
    with serving(place, models / "colours", models / "tokens", *bounds) as running:
        yield running


@pytest.fixture(scope="session")
def red() -> bytes:
    """A red image, as a file."""
    stream = io.BytesIO()
    Image.fromarray(np.full((12, 10, 3), (240, 20, 20), np.uint8)).save(stream, "PNG")
    return stream.getvalue()
