"""What runtimes write of an engine and of a run: layers, times and profiles, and layers that parity saved."""

from __future__ import annotations

import hashlib
import io
import random
from pathlib import Path

import msgspec
import numpy as np
import report_samples
from fuzzing import Reader
from mutating import json_text, with_length
from rich.console import Console

from s2mlp_deploy.api.diffing_layers import diff_layers
from s2mlp_deploy.api.inspecting_layers import inspect_json
from s2mlp_deploy.api.saved_layers import rejudge_layers
from s2mlp_deploy.bench.profile import profile_of
from s2mlp_deploy.engines.tensorrt.inspector import inspected
from s2mlp_deploy.evidence.engine_layers import EngineLayers, RunTimes
from s2mlp_deploy.evidence.profile import Profile
from s2mlp_deploy.report.engine_difference import print_engine_difference
from s2mlp_deploy.report.engine_layers import print_layers, print_times
from s2mlp_deploy.report.profile import print_profile

_FILES = Path(__file__).parents[1] / "engines" / "tensorrt" / "layer_files"
_ORT = b"""[{"cat": "Session", "pid": 1, "tid": 2, "dur": 90, "ts": 3, "ph": "X", "name": "model_run", "args": {}},
{"cat": "Node", "pid": 1, "tid": 2, "dur": 50, "ts": 3, "ph": "X", "name": "fc1/MatMul_kernel_time",
 "args": {"op_name": "MatMul", "node_index": "3", "provider": "CPUExecutionProvider"}},
{"cat": "Session", "dur": 80, "name": "model_run", "args": {}},
{"cat": "Node", "dur": 40, "name": "fc1/MatMul_kernel_time", "args": {"op_name": "MatMul", "node_index": "3"}}]"""
_OPENVINO = b"""{"openvino": "2026.4", "runs": [1.5, 1.25], "nodes": [{"name": "fc1/MatMul", "op": "FullyConnected",
 "kernel": "brgemm_avx2", "precision": "f32", "made_of": ["fc1/MatMul", "fc1/Add"], "ms": 0.75}]}"""


def _any(data: bytes, folder: Path) -> None:
    path = folder / "layers.json"
    path.write_bytes(data)
    inspected(data.decode("utf-8", "replace"))
    found = inspect_json(path)
    console = Console(file=io.StringIO(), width=80)
    if isinstance(found, EngineLayers):
        print_layers(console, found)
        print_engine_difference(console, diff_layers(path, path))
        inspect_json(path, profile=_FILES / "profile-10.json")
    elif isinstance(found, RunTimes):
        print_times(console, found)
    elif isinstance(found, Profile):
        print_profile(console, "profile", found)


def _profile(data: bytes, folder: Path) -> None:
    path = folder / "profile.json"
    path.write_bytes(data)
    print_profile(Console(file=io.StringIO(), width=80), "profile", profile_of(path))
    inspect_json(_FILES / "objects-10.json", profile=path)


def _saved(data: bytes, folder: Path) -> None:
    """The index of saved layers in a line, then its tensors, whose hash is put where ``HASH`` stands."""
    index, _, tensors = data.partition(b"\n")
    (folder / "tensors-00000.safetensors").write_bytes(tensors)
    (folder / "layers.json").write_bytes(index.replace(b"HASH", hashlib.sha256(tensors).hexdigest().encode()))
    rejudge_layers(folder, atol=1e-3)


def _index_or_tensors(data: bytes, rng: random.Random) -> bytes:
    index, _, tensors = data.partition(b"\n")
    if rng.random() < 0.4:
        return index + b"\n" + with_length(json_text)(tensors, rng)
    return json_text(index, rng) + b"\n" + tensors


READERS = (
    Reader("layers/engine", _any, json_text),
    Reader("layers/profile", _profile, json_text),
    Reader("layers/saved", _saved, _index_or_tensors),
)


def seeds() -> dict[str, dict[str, bytes]]:
    """By reader and name the files to begin with."""
    names = ("layer-info", "names-10", "objects-10", "objects-11", "times")
    made = {name: (_FILES / f"{name}.json").read_bytes() for name in names}
    profiles = {name: (_FILES / f"{name}.json").read_bytes() for name in ("profile-10", "profile-11")}
    return {
        "layers/engine": made,
        "layers/profile": profiles | {"onnxruntime": _ORT, "openvino": _OPENVINO},
        "layers/saved": {"index": saved_index()},
    }


def saved_index() -> bytes:
    """What parity keeps of two layers."""
    from safetensors.numpy import save

    from s2mlp_deploy.api.saved_layers import KIND
    from s2mlp_deploy.evidence.store import document_of

    report = report_samples.layers(report_samples.layer("head"), report_samples.layer("logits", kind="output"))
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    paths = [f"0/{name}/0/{side}" for name in ("head", "logits") for side in ("reference", "candidate", "own")]
    index = {"kind": KIND.name, "schema_version": KIND.version, "reports": [document_of(report)]}
    index["tensors"] = {"tensors-00000.safetensors": "HASH"}
    return msgspec.json.encode(index) + b"\n" + save(dict.fromkeys(paths, array))
