"""Times per node by OpenVINO: measured, attributed by what each node was made of, kept and read again."""

from __future__ import annotations

import json
from pathlib import Path

import nano_artifact
import numpy as np
import pytest

from s2mlp_deploy.bench.profile import profile_of, read_profile
from s2mlp_deploy.evidence.profile import MATRIX_OPS, UNATTRIBUTED

pytest.importorskip("openvino")
from s2mlp_deploy.engines.openvino.counters import WARMUP
from s2mlp_deploy.engines.openvino.runtime import OpenVinoEngine


def counted(*nodes: tuple[str, str, list[str], float]) -> bytes:
    told = [
        {"name": name, "op": op, "kernel": "k", "precision": "f32", "made_of": parts, "ms": ms}
        for name, op, parts, ms in nodes
    ]
    return json.dumps({"openvino": "2026.4.1", "runs": [3.0, 1.0, 2.0], "nodes": told}).encode()


def test_a_fused_node_counts_for_what_its_parts_have_in_common_and_others_for_no_module():
    profile = read_profile(
        counted(
            ("a.fc1/MatMul", "FullyConnected", ["a.fc1/MatMul", "Multiply_81", "a.act/Gelu"], 0.5),
            ("a.fc2/MatMul", "FullyConnected", ["a.fc2/MatMul", "a.fc2/Add"], 0.25),
            ("x_abcd_acdb_y", "Reorder", [], 0.125),
            ("Convert_9", "Convert", ["Convert_9"], 0.125),
        ),
        warmup=7,
    )
    assert (profile.runs, profile.run_ms) == (3, 2.0)
    assert {share.name: share.ms for share in profile.by_module()} == {"a": 0.5, "a.fc2": 0.25, UNATTRIBUTED: 0.25}
    assert profile.matrix_ms == 0.75


def test_the_digit_networks_time_is_counted_by_module(tmp_path: Path):
    engine = OpenVinoEngine(nano_artifact.read_only() / "model.fp32.onnx", threads=1, profile_to=tmp_path)
    for _ in range(WARMUP + 4):
        engine.run({"input": np.zeros((1, 3, 32, 32), np.float32)})
    profile = profile_of(engine.end_profile())
    assert profile.runs == 4
    modules = {share.name: share for share in profile.by_module(2)}
    assert {"stages.0", "stages.1"} <= set(modules)
    # OpenVINO calls the last node after the output, which is no module.
    assert not {"logits", "input"} & set(modules)
    # Nodes are counted, not milliseconds: on a busy machine a pause falls on any of them.
    assert sum(share.nodes for name, share in modules.items() if name != UNATTRIBUTED) > 0.7 * len(profile.nodes)
    matrices = [node for node in profile.nodes if node.op in MATRIX_OPS]
    assert len(matrices) > 30
    assert sum(node.module.startswith("stages.") for node in matrices) > 0.9 * len(matrices)
    assert 0 < profile.matrix_ms < profile.ms


def test_runs_that_do_not_count_alone_are_no_profile(tmp_path: Path):
    engine = OpenVinoEngine(nano_artifact.read_only() / "model.fp32.onnx", threads=1, profile_to=tmp_path)
    engine.run({"input": np.zeros((1, 3, 32, 32), np.float32)})
    with pytest.raises(ValueError, match="no run of it counts"):
        read_profile(engine.end_profile().read_bytes(), warmup=0)
