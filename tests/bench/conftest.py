"""Small files to measure, and engines that crash and hang for real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx_graphs
import pytest
from onnx_graphs import FLOAT, constant, node, value

from s2mlp_deploy.bench import process

# In the worker: what a file's name asks for happens in its first run.
_FAULTS = """
import ctypes, pathlib, sys, time
from s2mlp_deploy.engines import onnxruntime as engines
from s2mlp_deploy.engines.own_thread import flushes_here
def run(engine, path):
    if "crash" in path.name: print("the last words", file=sys.stderr, flush=True); ctypes.string_at(0)
    if "abort" in path.name: import os; os.abort()
    if "leave" in path.name: import os; os._exit(3)
    if "flushes" in path.name and not flushes_here(): import os; os._exit(4)
    if "hang" in path.name: time.sleep(1000)
    if "spin" in path.name:
        while True: pass
    if "chatter" in path.name: print("words of a library")
real = engines.OnnxRuntimeEngine
class Faulty(real):
    def __init__(self, model, **options):
        if "noload" in model.name: ctypes.string_at(0)
        super().__init__(model, **options)
        self.path = model
    def run(self, feeds):
        run(self, self.path)
        return super().run(feeds)
engines.OnnxRuntimeEngine = Faulty
"""


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes workers crash, hang and talk where the file's name says so."""
    monkeypatch.setattr(process, "PROGRAM", f"exec({_FAULTS!r}); {process.PROGRAM}")


@pytest.fixture
def perceptron(tmp_path: Path) -> Callable[..., Path]:
    """Writes a small file."""

    def write(name: str = "a.onnx", batch: str | int = "batch", width: int = 8, **metadata: object) -> Path:
        made = onnx_graphs.model(
            [node("MatMul", ["input", "w"], ["output"])],
            [value("input", FLOAT, [batch, width])],
            [value("output", FLOAT, [batch, 4])],
            [constant("w", [[0.5] * 4] * width, "float32")],
            metadata=metadata or None,
        )
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return onnx_graphs.save(made, path)

    return write
