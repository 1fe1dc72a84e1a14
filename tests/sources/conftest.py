"""Factories in files, and what they import."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch):
    """What factories import, and where from, does not outlive a test."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if "pytest" in file and "site-packages" not in file:
            del sys.modules[name]


@pytest.fixture
def write(tmp_path):
    """Writes Python files and returns the reference ``net.py:make`` of the first."""

    def run(text: str, name: str = "net.py") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("import torch\nfrom torch import nn\n" + textwrap.dedent(text))
        return f"{path}:make"

    return run


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"
