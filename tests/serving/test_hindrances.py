"""What makes a service slow: each cause alone, and none where there is none."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import onnx_graphs
import pytest
from image_artifact import write_image_artifact
from onnx_graphs import FLOAT, constant, node, value
from report_samples import calibration

from s2mlp_deploy.evidence.machine import Machine, this_machine
from s2mlp_deploy.evidence.store import save_record
from s2mlp_deploy.evidence.tune import EngineSettings
from s2mlp_deploy.processor import Processor
from s2mlp_deploy.serving.hindrances import _TOLD, hindrances, tell_once
from s2mlp_deploy.serving.plan import RunPlan

VNNI = Processor("x86_64", "Some Processor", ("avx2", "avx512_vnni"))
EIGHT = Machine(VNNI, physical_cores=8, logical_cores=16, allowed_cores=16)


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    root = tmp_path_factory.mktemp("artifact") / "a"
    write_image_artifact(root)
    return RunPlan(root, "model.fp32.onnx", "fp32", "onnxruntime", EngineSettings(), "rule", "", "holds")


def kinds(plan, machine=EIGHT, **options):
    return [item.kind for item in hindrances(plan, machine=machine, **options)]


def test_a_machine_of_its_own_has_none(plan):
    assert kinds(plan) == []


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/a", "sys/fs/cgroup/a/cpu.max": "150000 100000"},
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/c",
            "sys/fs/cgroup/cpu/c/cpu.cfs_quota_us": "150000",
            "sys/fs/cgroup/cpu/c/cpu.cfs_period_us": "100000",
        },
    ],
    ids=["version 2", "version 1"],
)
def test_a_control_group_that_grants_less_than_the_pool_takes(plan, tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    machine = replace(this_machine(tmp_path), physical_cores=4, logical_cores=8, allowed_cores=8)
    found = hindrances(plan, machine=machine)
    assert [item.kind for item in found] == ["cpu-limit", "spinning"]
    assert "4 threads" in found[0].problem
    assert "grants 1.5" in found[0].problem
    assert found[0].fix == "--threads 1"
    assert found[1].fix == "--no-spin"
    one = replace(plan, settings=EngineSettings(threads=1))
    assert hindrances(one, machine=machine) == ()


def test_cores_that_the_process_may_not_use(plan):
    pinned = replace(EIGHT, allowed_cores=2)
    (limit, spinning) = hindrances(plan, machine=pinned)
    assert "may run on 2" in limit.problem
    assert "other threads need" in spinning.problem
    quiet = replace(plan, settings=EngineSettings(threads=2, spin=False))
    assert kinds(quiet, pinned) == []


def test_sessions_share_the_cores(plan):
    (limit, _) = hindrances(plan, sessions=4, machine=EIGHT)
    assert "32 threads (4 sessions of 8)" in limit.problem
    assert limit.fix == "--threads 4"


def test_a_quota_counts_the_time_of_threads_that_spin(plan):
    assert kinds(plan, replace(EIGHT, cpu_quota=8.0)) == ["spinning"]
    assert kinds(replace(plan, engine="openvino"), replace(EIGHT, cpu_quota=8.0)) == []


@pytest.mark.parametrize("engine", ["tensorrt-rtx", "onnxruntime:cuda", "openvino:GPU"])
def test_a_gpu_has_none_of_these(plan, engine):
    assert kinds(replace(plan, engine=engine, precision="int8"), replace(EIGHT, cpu_quota=0.5)) == []


@pytest.mark.parametrize(
    ("precision", "instructions", "found"),
    [
        ("int8", ("avx2",), ["int8"]),
        ("int8-trt", ("avx2",), ["int8"]),
        ("fp16", ("avx2",), []),
        ("int8", ("avx_vnni",), []),
    ],
)
def test_int8_without_vnni(plan, precision, instructions, found):
    machine = replace(EIGHT, processor=Processor("x86_64", "Old", instructions))
    assert kinds(replace(plan, precision=precision), machine) == found
    for measured in ("tune", "bench"):  # Nobody need measure it again.
        assert kinds(replace(plan, precision=precision, basis=measured), machine) == []


def test_subnormal_weights_and_activations(plan, tmp_path):
    weights = np.float32([[1.0, 0.0, -1e-39], [2e-45, -1.2e-38, np.inf]])
    made = onnx_graphs.model(
        [node("MatMul", ["x", "w"], ["y"], "fc")],
        [value("x", FLOAT, [1, 2])],
        [value("y", FLOAT, [1, 3])],
        [constant("w", weights)],
    )
    onnx_graphs.save(made, tmp_path / "model.fp32.onnx")
    slow = replace(plan, directory=tmp_path)
    (found,) = hindrances(slow, machine=EIGHT)
    assert found.kind == "denormals"
    assert found.problem.startswith("2 weights")
    save_record(tmp_path, replace(calibration(), subnormal=1234))
    assert "1,234 values of activations" in hindrances(slow, machine=EIGHT)[1].problem
    assert kinds(replace(slow, settings=EngineSettings(flush_denormals=True))) == []


def test_each_is_told_once(plan, caplog):
    found = hindrances(plan, machine=replace(EIGHT, cpu_quota=1.25))
    assert len(found) == 2
    _TOLD.difference_update({f"{item.problem}: {item.fix}" for item in found})
    with caplog.at_level(logging.WARNING):
        tell_once(found)
        tell_once(found)
    assert len(caplog.messages) == 2
