"""Where the time goes: what ONNX Runtime writes is read, attributed as far as names tell, and summed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from plain_artifact import write_plain

from s2mlp_deploy.artifact import NETWORK, module_of
from s2mlp_deploy.bench.candidates import jobs_of
from s2mlp_deploy.bench.options import BenchOptions
from s2mlp_deploy.bench.profile import profile_of, read_profile
from s2mlp_deploy.bench.run import measure
from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.evidence.profile import UNATTRIBUTED, NodeTime, Profile


def node(name: str, op: str, index: int, microseconds: int) -> dict[str, Any]:
    args = {"op_name": op, "node_index": str(index)}
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": microseconds, "ts": 1, "args": args}


def run(*nodes: dict[str, Any], microseconds: int) -> list[dict[str, Any]]:
    return [*nodes, {"cat": "Session", "name": "model_run", "dur": microseconds, "args": {}}]


def test_the_median_of_the_runs_that_count_is_taken():
    events = [{"cat": "Session", "name": "model_loading_uri", "dur": 9, "args": {}}]
    for fc1, total in ((900, 5000), (100, 300), (110, 310), (120, 900)):
        events += run(node("fc1/MatMul", "MatMul", 0, fc1), node("BiasGelu", "BiasGelu", 7, 50), microseconds=total)
    profile = read_profile(json.dumps(events).encode(), warmup=1)
    assert (profile.runs, profile.run_ms) == (3, 0.31)
    assert profile.nodes == (
        NodeTime("fc1/MatMul", "MatMul", "fc1", 0.11),
        NodeTime("BiasGelu", "BiasGelu", "", 0.05),
    )


def test_fused_nodes_of_one_name_are_told_apart_and_loops_are_summed():
    events = []
    for _ in range(2):
        body = [node("loop/Add", "Add", 3, 10) for _ in range(4)]
        events += run(node("BiasGelu", "BiasGelu", 1, 20), node("BiasGelu", "BiasGelu", 2, 30), *body, microseconds=200)
    # A branch that is not taken every time.
    events += run(node("then/Mul", "Mul", 9, 30), microseconds=1)
    profile = read_profile(json.dumps(events).encode(), warmup=0)
    by_name = {(item.name, item.op): item.ms for item in profile.nodes}
    assert len(profile.nodes) == 4
    assert by_name["then/Mul", "Mul"] == pytest.approx(0.01)
    assert by_name["loop/Add", "Add"] == pytest.approx(0.08 / 3)


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'[{"cat": 3}]', b'[{"cat": "Session", "name": "model_run"}]'])
def test_what_is_no_profile_of_enough_runs_is_refused(document: bytes):
    with pytest.raises(ValueError):  # noqa: PT011 - msgspec's own and ours.
        read_profile(document, warmup=1)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("stages.0.mlp.fc1/MatMul", "stages.0.mlp.fc1"),
        ("stages.0.mixer.shifts.1/Shift/Slice_7", "stages.0.mixer.shifts.1"),
        ("stages.0.proj/Conv.out_nchwc", "stages.0.proj"),
        ("/ReduceMean", NETWORK),
        ("/ReduceMean/MatMul", NETWORK),
        ("/ReduceMean_1.out/QuantizeLinear", NETWORK),
        ("/Conv2d_1a_3x3/Conv", "Conv2d_1a_3x3"),
        ("/stages.0/mlp/fc1/MatMul", "stages.0.mlp.fc1"),
        ("/layer1/layer1.0/layer1.0.1/conv/Conv", "layer1.0.1.conv"),
        ("BiasGelu", ""),
        ("Squeeze_token_5", ""),
        ("", ""),
    ],
)
def test_modules_are_read_off_names(name: str, module: str):
    assert module_of(name) == module


def test_shares_are_summed_by_module_and_operator():
    profile = Profile(
        3,
        9.0,
        (
            NodeTime("a.0.x/MatMul", "MatMul", "a.0.x", 3.0),
            NodeTime("a.0.y/Add", "Add", "a.0.y", 1.0),
            NodeTime("a.1.x/Gemm", "QGemm", "a.1.x", 2.0),
            NodeTime("BiasGelu", "BiasGelu", "", 0.5),
        ),
    )
    assert (profile.ms, profile.matrix_ms) == (6.5, 5.0)
    assert [(share.name, share.nodes, share.ms, share.matrix_ms) for share in profile.by_module(2)] == [
        ("a.0", 2, 4.0, 3.0),
        ("a.1", 1, 2.0, 2.0),
        (UNATTRIBUTED, 1, 0.5, 0.0),
    ]
    assert [share.name for share in profile.by_module()] == ["a.0.x", "a.1.x", "a.0.y", UNATTRIBUTED]
    assert [share.name for share in profile.by_operator()] == ["MatMul", "QGemm", "Add", "BiasGelu"]
    assert (profile.depth_of(10), profile.depth_of(3), profile.depth_of(1)) == (3, 2, 1)
    assert Profile(1, 1.0, ()).depth_of(5) == 1


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> BenchOptions:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("s2mlp_deploy.bench.options.ROUND_MS", 1.0)
    return BenchOptions(launches=1, rounds=1, warmup=0.0, per_module=True)


def test_a_real_profile_names_the_modules(quick: BenchOptions, tmp_path: Path):
    write_plain(tmp_path / "art")
    (result,) = measure(jobs_of([tmp_path / "art"], [], []), quick).results
    assert result.profile is not None
    assert result.profile.runs == 20
    assert {"fc1", "fc2", "pool"} <= {share.name for share in result.profile.by_module()}
    assert 0 < result.profile.matrix_ms < result.profile.ms
    # The profile is ONNX Runtime's own file, in a folder that is gone.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["art"]


def test_a_crash_while_nodes_are_timed_fails_nothing_else(
    quick: BenchOptions, perceptron: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    from s2mlp_deploy.bench import process

    fault = (
        "import os; from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine; "
        "OnnxRuntimeEngine.end_profile = lambda self: os.abort(); "
    )
    monkeypatch.setattr(process, "PROGRAM", fault + process.PROGRAM)
    (result,) = measure(jobs_of([perceptron()], [], []), quick).results
    assert result.latency is not None
    assert result.profile is None
    assert any("its nodes could not be timed" in warning for warning in result.warnings)


@pytest.mark.parametrize(
    ("name", "op", "module"),
    [
        ("fc1/MatMul", "MatMul", "fc1"),
        ("a.0.fc1/MatMul + a.0.act/Relu_1", "MatMul", "a.0"),
        ("a.0/Add_2\x1fa.1/Mul_10 [profile 1]", "Add+Mul", "a"),
        ("{ForeignNode[a.0.norm/LayerNormalization...a.0.fc/MatMul_3]}", "MatMul", "a.0"),
        ("Reformatting CopyNode for Input Tensor 0 to fc1/MatMul", "Reformat", ""),
        ("__myl_MulAdd_myl0_3", "(kernel)", ""),
        # As engines of 10.x that others have published name them.
        ("a.0.fc1/MatMul_1_myl0_559", "MatMul", "a.0.fc1"),
        ("a.0.v/MatMul+a.0.k/MatMul+a.0.q/MatMul_myl0_55", "MatMul", "a.0"),
        ("__mye1041_0_myl0_0", "(kernel)", ""),
        ("exit^bb^signal^1_myl0_7", "(kernel)", ""),
        ("PWN(PWN(a.0.act/Sigmoid), a.0.act/Mul)", "Sigmoid+Mul", "a.0.act"),
        ("a.0/Conv + PWN(a.0/Relu_2)", "Conv", "a.0"),
        ("a.0/Conv || a.1/Conv_3", "Conv", "a"),
    ],
)
def test_layers_of_tensorrt_are_attributed_as_far_as_their_names_tell(tmp_path: Path, name: str, op: str, module: str):
    layer = {"name": name, "timeMs": 80.0, "averageMs": 2.0, "medianMs": 1.5, "percentage": 100}
    (tmp_path / "profile.json").write_text(json.dumps([{"count": 40}, layer]))
    profile = profile_of(tmp_path / "profile.json")
    (found,) = profile.nodes
    assert (found.op, found.module, found.ms) == (op, module, 1.5)
    assert (profile.runs, profile.run_ms) == (40, 1.5)


def test_profiles_are_told_apart_and_the_first_run_of_several_does_not_count(tmp_path: Path):
    path = tmp_path / "profile.json"
    events = [run(node("fc1/MatMul", "MatMul", 0, time), microseconds=time) for time in (900, 100)]
    path.write_text(json.dumps(events[0] + events[1]))
    assert profile_of(path).nodes[0].ms == 0.1
    path.write_text(json.dumps(events[0]))
    assert profile_of(path).nodes[0].ms == 0.9
    # Older releases of TensorRT have no median.
    path.write_text(json.dumps([{"count": 1}, {"name": "fc1/MatMul", "averageMs": 2.0}]))
    assert profile_of(path).nodes[0].ms == 2.0


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "[3]", '[{"count": "x"}]', '[{"count": 1}, {"name": "a"}]', '[{"count": 1}, 3]', "[" * 99999],
)
def test_what_is_no_profile_is_refused_by_name(tmp_path: Path, text: str):
    (tmp_path / "profile.json").write_text(text)
    for name in ("profile.json", "none.json"):
        with pytest.raises(ArtifactError, match="no profile of ONNX Runtime, OpenVINO or TensorRT"):
            profile_of(tmp_path / name)
