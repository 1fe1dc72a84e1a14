"""The trained digit network, captured and exported once per test run. Tests that write work on a copy."""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path

import pytest

import s2mlp_deploy

PACKAGE_ROOT = str(Path(s2mlp_deploy.__file__).resolve().parents[1])
"""What a child process needs on its path to import the package under test."""


def weights() -> Path:
    """The digit network's checkpoint; its sidecar JSON lies beside it."""
    from s2mlp_deploy.demo.digits import weights_path

    return weights_path()


@functools.cache
def captured():
    """The digit network as a canonical graph."""
    pytest.importorskip("torch")
    from s2mlp_deploy import api

    return api.capture(api.load("s2mlpv2_nano", checkpoint=weights()))


@functools.cache
def _artifact() -> tuple[Path, tempfile.TemporaryDirectory[str]]:
    from s2mlp_deploy import api

    keeper = tempfile.TemporaryDirectory(prefix="nano-artifact-")
    path = Path(keeper.name) / "artifact"
    api.export(captured(), path)
    return path, keeper


def copy_to(directory: Path) -> Path:
    """A copy of the exported artifact that a test may change, without what other tests measured of it."""
    return Path(shutil.copytree(_artifact()[0], directory, ignore=shutil.ignore_patterns("evidence")))


def read_only() -> Path:
    """The exported artifact itself, for tests that only read."""
    return _artifact()[0]


def snapshot(directory: Path) -> dict[str, bytes]:
    """Every file below a directory with its bytes: what "untouched" means."""
    if not directory.exists():
        return {}
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()
    }
