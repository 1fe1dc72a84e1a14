"""JSON and kernels that lie beside other files, in the user's caches, or in a folder that a command goes on with."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import report_samples
from fuzzing import Reader
from mutating import json_text

from s2mlp_deploy.api import tune_state
from s2mlp_deploy.artifact.ownership import own_sidecar
from s2mlp_deploy.bench.remembered import Found, memory_file, recall
from s2mlp_deploy.engines.optimized import OPTIMIZED_SUFFIX, OptimizedRecord, Traits, check_optimized
from s2mlp_deploy.engines.record import build_again, check_runs_here, read_engine, read_sidecar
from s2mlp_deploy.engines.sidecar import check_replaceable, sidecar_of
from s2mlp_deploy.engines.tensorrt.runtime_cache import RuntimeCache
from s2mlp_deploy.evidence.store import encode
from s2mlp_deploy.files import to_json
from s2mlp_deploy.locks import _holder_of
from s2mlp_deploy.preprocess import load_sidecar
from s2mlp_deploy.serving.batch.output import STATE, Question, check_output

_QUESTION = Question("photos", "a" * 64, 2, 2, "m", "model.fp32.onnx", "b" * 64, "onnxruntime", None, 5, False)


def _preprocessing(data: bytes, folder: Path) -> None:
    path = folder / "net.json"
    path.write_bytes(data)
    load_sidecar(path)


def _engine(data: bytes, folder: Path) -> None:
    engine = folder / "model.fp32.tensorrt-rtx.sm86.engine"
    engine.write_bytes(b"plan")
    sidecar_of(engine).write_bytes(data)
    own_sidecar(sidecar_of(engine))
    record = read_sidecar(engine)
    build_again(engine, record)
    check_replaceable(engine, engine)
    check_runs_here(engine, record, version=record.version, capability="sm89")
    read_engine(engine)


def _optimized(data: bytes, folder: Path) -> None:
    path = folder / f"model.fp32{OPTIMIZED_SUFFIX}"
    path.write_bytes(b"graph")
    sidecar_of(path).write_bytes(data)
    check_optimized(path, "1.32.0")


class _Config:
    """Where TensorRT-RTX keeps kernels: of this cache it wants nothing."""

    def create_runtime_cache(self) -> _Config:
        return self

    def deserialize(self, data: bytes) -> bool:
        return not data

    def set_runtime_cache(self, cache: Any) -> None:
        assert cache is self

    def serialize(self) -> bytes:
        return b""


def _kernels(data: bytes, folder: Path) -> None:
    engine = folder / "a.engine"
    Path(f"{engine}.runtime-cache").write_bytes(data)
    RuntimeCache(_Config(), engine).save()


def _in_cache(folder: Path) -> None:
    os.environ["XDG_CACHE_HOME"] = str(folder)


def _memory(data: bytes, folder: Path) -> None:
    _in_cache(folder)
    memory_file().parent.mkdir()
    memory_file().write_bytes(data)
    recall("some", "fp32", ("onnxruntime", "openvino"), machine=report_samples.MACHINE)


def _tuning(data: bytes, folder: Path) -> None:
    (folder / "state.json").write_bytes(data)
    tune_state._read(folder, "key")


def _batch(data: bytes, folder: Path) -> None:
    (folder / STATE).write_bytes(data)
    check_output(folder, _QUESTION)


def _lock(data: bytes, folder: Path) -> None:
    (folder / ".lock").write_bytes(data)
    _holder_of(folder / ".lock")


READERS = (
    Reader("sidecars/preprocessing", _preprocessing, json_text, largest=65_536),
    Reader("sidecars/engine", _engine, json_text),
    Reader("sidecars/optimized", _optimized, json_text),
    Reader("sidecars/kernels", _kernels),
    Reader("sidecars/memory", _memory, json_text),
    Reader("sidecars/tuning", _tuning, json_text),
    Reader("sidecars/batch", _batch, json_text),
    Reader("sidecars/lock", _lock, json_text),
)


def seeds() -> dict[str, dict[str, bytes]]:
    """By reader and name the files to begin with."""
    from s2mlp_deploy.bench.remembered import _Entry, _Memory, machine_key

    found = (Found("fp32", "openvino", "channels-first", "gather", 0.8),)
    entry = _Entry(machine_key(report_samples.MACHINE), "some", "2026-11-27T21:55:07Z", found)
    traits = Traits("x86_64", ("avx2", "fma"), "1.32.0")
    described = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "size": [224, 224], "classes": ["cat", "dog"]}
    timm = {
        "architecture": "s2mlp_deep",
        "pretrained_cfg": {"input_size": [3, 224, 224], "mean": [0, 0, 0], "std": [1, 1, 1]},
    }
    state = tune_state.TuneState(
        "key", 2.0, {"a": report_samples.tune().trials[0]}, noise={"int8": 30.0}, shapes=((1, 3),)
    )
    lock = {"host": "here", "pid": 7, "command": "export", "since": "2026-11-27T21:55:07+00:00"}
    return {
        "sidecars/preprocessing": {"plain": to_json(described), "timm": to_json(timm)},
        "sidecars/engine": {"rtx": encode(report_samples.build())},
        "sidecars/optimized": {
            "cpu": to_json(OptimizedRecord("model.fp32.onnx", "a" * 64, "x", "b" * 64, 5, traits, 0.5)),
        },
        "sidecars/kernels": {"some": b"kernels"},
        "sidecars/memory": {"one": to_json(_Memory(entries=(entry,)))},
        "sidecars/tuning": {"begun": to_json(tune_state._Document(tune_state._VERSION, state))},
        "sidecars/batch": {"begun": to_json(asdict(_QUESTION))},
        "sidecars/lock": {"held": to_json(lock)},
    }
