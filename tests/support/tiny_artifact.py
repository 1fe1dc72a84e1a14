"""A tiny artifact that needs no torch, and ways to interrupt whoever writes one."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from s2mlp_deploy.artifact import ArtifactWriter, Manifest, SourceInfo, TensorInfo


def make_manifest(**changes) -> Manifest:
    values = {
        "name": "tiny",
        "source": SourceInfo("tiny", {"dims": [4]}, seed=0),
        "preprocessing": None,
        "classes": ("no", "yes"),
        "inputs": (TensorInfo("input", "float32", ("batch", 3)),),
        "outputs": (TensorInfo("logits", "float32", ("batch", 2)),),
        "opset": 20,
        "shifts": (),
        "tools": {"onnx": "1"},
    }
    return Manifest(**(values | changes))


def write_tiny(directory: Path, content: bytes = b"graph", *, force: bool = False, **changes) -> Manifest:
    with ArtifactWriter(directory, force=force) as writer:
        (writer.staging / "model.fp32.onnx").write_bytes(content)
        return writer.commit(make_manifest(**changes), {"model.fp32.onnx": ("fp32", 7)})


class CrashError(Exception):
    """Something nobody expected."""


def write_half(directory: Path, error: type[BaseException] = CrashError, *, force: bool = False) -> None:
    with ArtifactWriter(directory, force=force) as writer:
        (writer.staging / "model.fp32.onnx").write_bytes(b"half")
        raise error


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writing past ``size`` bytes fails with an OSError, as on a full disk (Python ignores SIGXFSZ)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def add_tiny(directory: Path, files: dict[str, bytes], **changes) -> Manifest:
    with ArtifactWriter(directory, force=True) as writer:
        for name, content in files.items():
            (writer.staging / name).write_bytes(content)
        facts = {name: (name.split(".")[1], 3) for name in files}
        return writer.add(lambda manifest: replace(manifest, **changes), facts)
