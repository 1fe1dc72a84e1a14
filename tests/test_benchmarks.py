"""Every benchmark can be started, and the parts of the GPU benchmark that need no GPU."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import nano_artifact
import pytest

from s2mlp_deploy.gpu import gpus

pytest.importorskip("torch")
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.mark.parametrize("script", sorted(path.name for path in BENCHMARKS.glob("*.py")))
def test_a_benchmark_imports_what_it_needs(script, monkeypatch):
    # As Python does it for a script; some import their neighbours.
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    runpy.run_path(str(BENCHMARKS / script), run_name="imported")


@pytest.fixture
def gpu_benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    return gpu


@pytest.mark.skipif(bool(gpus()), reason="this machine has a GPU")
def test_without_a_gpu_no_table_is_written(tmp_path):
    output = tmp_path / "gpu.md"
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu.py"), "--output", str(output)],
        env={"PYTHONPATH": nano_artifact.PACKAGE_ROOT},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "needs an NVIDIA GPU" in done.stderr
    assert not output.exists()


def test_the_bytes_that_shifts_move_are_counted(gpu_benchmark):
    import torch

    from s2mlp_deploy.shift.op import shift
    from s2mlp_deploy.shift.spec import ShiftSpec

    spec = ShiftSpec.equal_groups(4, [(1, 0), (-1, 0), (0, 1), (0, -1)], axes=(1, 2), channel_axis=3)
    example = torch.zeros(1, 5, 6, 4)
    assert gpu_benchmark.shifted_elements(lambda x: shift(shift(x, spec) + 1, spec), example) == 2 * example.numel()
    assert gpu_benchmark.shifted_elements(lambda x: x + 1, example) == 0


def test_the_table_says_tax_and_share(gpu_benchmark):
    ceilings = gpu_benchmark.Ceilings(flops=1e14, bytes=1e12)

    def result(form, milliseconds):
        return gpu_benchmark.Result("net", 8, "engine", form, milliseconds, 1e-3, flops=1e11, shifted=1e8)

    lines = gpu_benchmark.table([result(gpu_benchmark.NONE, 2.0), result("gather", 2.5)], ceilings)
    plain, shifted = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:])
    assert plain == ["net", "8", "engine", "no shift", "2.000", "", "", "50%", "1.0e-03"]
    assert shifted == ["net", "8", "engine", "gather", "2.500", "+25.0%", "0.100 ms", "40%", "1.0e-03"]


def test_a_table_of_peers_has_ratios_and_says_who_is_missing(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import peers

    times = {"a peer": [3.0, 5.0, 4.0], peers.BASE: [2.0, 2.5, 2.0]}
    lines = peers.table({"model": "net", "batch": 8, "times": times, "failed": {"another": "it is not here"}})
    assert lines[0] == "### net, batch 8, 3 rounds"
    assert lines[4:7] == [
        f"| {peers.BASE} | 2.0 | 2.0 | 1.000 | 1.000 |",
        "| a peer | 3.0 | 4.0 | 1.500 | 2.000 |",
        "| another | not measured: it is not here | | | |",
    ]
