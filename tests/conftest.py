"""Fixtures that every room's tests share."""

from __future__ import annotations

import gc
import logging
import os
from pathlib import Path

import hypothesis
import pytest

# A machine that is busy with something else draws examples slowly and is no failure.
hypothesis.settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("unhurried")
ROOT = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    """Looks for garbage less often: torch makes and drops so many objects that it takes a tenth of a capture."""
    gc.set_threshold(20_000, 20, 50)


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
def user_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads what was tuned on this machine, or leaves anything in the caches of who runs it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / f"cache-{os.urandom(4).hex()}"))


@pytest.fixture(autouse=True)
def package_logging() -> None:
    """The command line keeps the package's warnings to itself, for the life of a process: not in the next test.

    pytest records a logger that does not propagate through a handler of its own, so nothing but ours is taken away.
    """
    logger = logging.getLogger("s2mlp_deploy")
    logger.handlers[:] = [handler for handler in logger.handlers if type(handler).__name__ != "_Warnings"]
    logger.propagate = True
    # Others' quantizers are told to be quiet through the root, and so would be our warnings in whatever comes next.
    logging.getLogger().setLevel(logging.WARNING)
