"""What `nvidia-smi` prints, read."""

from __future__ import annotations

from s2mlp_deploy import gpu


def test_the_lines_of_nvidia_smi_become_gpus():
    text = "NVIDIA H100 80GB HBM3, 9.0, 580.65.06, 81559\nNVIDIA GeForce RTX 5090, 12.0, 580.65.06, 32607\n"
    first, second = gpu.parse_gpus(text)
    assert first == gpu.Gpu("NVIDIA H100 80GB HBM3", "sm90", "580.65.06", 81559)
    assert second.capability == "sm120"


def test_what_is_no_line_of_a_gpu_is_none():
    text = (
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n\na, b, c, d\nx, [N/A], 1, 2\n"
    )
    assert gpu.parse_gpus(text) == ()


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
