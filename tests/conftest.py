"""Fixtures that every room's tests share."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with data and checkpoints: ``S2MLP_SHARED``, or ``shared`` beside the checkout."""
    path = Path(os.environ.get("S2MLP_SHARED", ROOT.parent / "shared"))
    if not (path / "data").is_dir():
        pytest.skip(f"no shared data at {path}")
    return path


@pytest.fixture(scope="session")
def data_dir(shared_dir: Path) -> Path:
    """ImageNet photographs and CIFAR-10."""
    return shared_dir / "data"


@pytest.fixture(autouse=True)
def package_logging() -> Iterator[None]:
    """The command line keeps the package's warnings to itself, for the life of a process: not beyond the test."""
    logger = logging.getLogger("s2mlp_deploy")
    handlers, propagate, level = list(logger.handlers), logger.propagate, logger.level
    yield
    logger.handlers[:] = handlers
    logger.propagate = propagate
    logger.setLevel(level)
