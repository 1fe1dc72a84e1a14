"""What `nvidia-smi` prints, read."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pytest

from s2mlp_deploy import gpu

H100 = gpu.Gpu("NVIDIA H100 80GB HBM3", "sm90", "580.65.06", 81559, "GPU-11111111-2222-3333-4444-555555555555")
T4 = gpu.Gpu("Tesla T4", "sm75", "580.65.06", 15360, "GPU-11aaaaaa-2222-3333-4444-555555555555")
SPARK = gpu.Gpu("NVIDIA GB10", "sm121", "580.95.05", None, "GPU-22222222-2222-3333-4444-555555555555")


def test_the_lines_of_nvidia_smi_become_gpus():
    text = "".join(
        f"{item.name}, {capability}, {item.driver}, {item.memory or '[N/A]'}, {item.uuid}\n"
        for item, capability in ((H100, "9.0"), (SPARK, "12.1"))
    )
    assert gpu.parse_gpus(text) == (H100, SPARK)


def test_what_is_no_line_of_a_gpu_is_none():
    text = (
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n\na, b, c, d, e\n"
        "x, [N/A], 1, 2, GPU-1\n"
    )
    assert gpu.parse_gpus(text) == ()


@pytest.mark.parametrize(
    ("environment", "left"),
    [
        ({}, (H100, T4, SPARK)),
        ({"CUDA_VISIBLE_DEVICES": ""}, ()),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, ()),
        ({"CUDA_VISIBLE_DEVICES": "GPU-22"}, (SPARK,)),
        ({"CUDA_VISIBLE_DEVICES": f"{SPARK.uuid}, {H100.uuid}"}, (SPARK, H100)),
        # The beginning of two of them names none, and ends the list.
        ({"CUDA_VISIBLE_DEVICES": "GPU-22,GPU-11,GPU-111"}, (SPARK,)),
        ({"CUDA_VISIBLE_DEVICES": "2,0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, (SPARK, H100)),
        ({"CUDA_VISIBLE_DEVICES": "1,9,0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, (T4,)),
        # By speed: only CUDA knows which is the first.
        ({"CUDA_VISIBLE_DEVICES": "0"}, (H100, T4, SPARK)),
        ({"CUDA_VISIBLE_DEVICES": "9"}, ()),
        ({"CUDA_VISIBLE_DEVICES": "MIG-1111"}, (H100, T4, SPARK)),
    ],
)
def test_gpus_that_cuda_does_not_see_are_none(environment, left):
    assert gpu.visible_gpus((H100, T4, SPARK), environment) == left


def test_among_equal_gpus_a_number_says_which():
    twins = tuple(replace(T4, uuid=f"GPU-{number}") for number in range(3))
    assert gpu.visible_gpus(twins, {"CUDA_VISIBLE_DEVICES": "2,1"}) == (twins[2], twins[1])


def test_a_tool_that_fails_means_no_gpu(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho broken\nexit 9\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    gpu.gpus.cache_clear()
    try:
        assert gpu.gpus() == ()
    finally:
        gpu.gpus.cache_clear()


@pytest.mark.parametrize(("visible", "found"), [("", ()), (T4.uuid, (T4,))])
def test_the_environment_of_the_process_counts(monkeypatch, tmp_path, visible, found):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho '{T4.name}, 7.5, {T4.driver}, {T4.memory}, {T4.uuid}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpu.gpus.cache_clear()
    try:
        assert gpu.gpus() == found
    finally:
        gpu.gpus.cache_clear()


def test_a_driver_that_takes_long_to_start_is_waited_for(monkeypatch):
    line = f"{T4.name}, 7.5, {T4.driver}, {T4.memory}, {T4.uuid}"

    def start(command, *, timeout, **_):
        if timeout < 15:  # As eight GPUs without a persistence daemon need.
            raise subprocess.TimeoutExpired(command, timeout)
        return SimpleNamespace(stdout=line)

    monkeypatch.setattr(gpu.shutil, "which", lambda _: "nvidia-smi")
    monkeypatch.setattr(gpu.subprocess, "run", start)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpu.gpus.cache_clear()
    try:
        assert gpu.gpus() == (T4,)
    finally:
        gpu.gpus.cache_clear()
