"""Every benchmark can be started, and the parts of the GPU benchmark that need no GPU."""

from __future__ import annotations

import json
import os
import runpy
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
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


@pytest.fixture
def gpu_kit(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_kit

    return gpu_kit


@pytest.mark.skipif(bool(gpus()), reason="this machine has a GPU")
def test_without_a_gpu_no_table_is_written(tmp_path):
    output = tmp_path / "results"
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu.py"), str(tmp_path), "--output", str(output)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "needs an NVIDIA GPU" in done.stderr
    assert not output.exists()


def test_the_bytes_that_shifts_move_are_counted(gpu_kit):
    import torch

    from s2mlp_deploy.shift.op import shift
    from s2mlp_deploy.shift.spec import ShiftSpec

    spec = ShiftSpec.equal_groups(4, [(1, 0), (-1, 0), (0, 1), (0, -1)], axes=(1, 2), channel_axis=3)
    example = torch.zeros(1, 5, 6, 4)
    assert gpu_kit.shifted_elements(lambda x: shift(shift(x, spec) + 1, spec), example) == 2 * example.numel()
    assert gpu_kit.shifted_elements(lambda x: x + 1, example) == 0


def result(form: str = "gather", milliseconds: float = 2.5, precision: str = "fp16", difference: float = 1e-3) -> dict:
    names = {"kind": "result", "part": "torch", "model": "net", "batch": 8, "engine": "engine", "form": form}
    counts = {"flops": 1e11, "shifted": 2.5e7}
    return {**names, **counts, "precision": precision, "milliseconds": milliseconds, "difference": difference}


def test_the_table_says_tax_and_share(gpu_benchmark):
    ceilings = {"fp16": 1e14, "copy": 1e12}
    rows = [result(gpu_benchmark.NONE, 2.0), result(), result(precision="int8-trt")]
    lines = gpu_benchmark.table(gpu_benchmark.results_of(rows), ceilings)
    plain, shifted, quantized = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:])
    assert plain == ["net", "8", "engine", "fp16", "no shift", "2.000", "", "", "50%", "1.0e-03"]
    assert shifted == ["net", "8", "engine", "fp16", "gather", "2.500", "+25.0%", "0.100 ms", "40%", "1.0e-03"]
    # Without the same precision without shifts there is no tax, without its ceiling no share.
    assert quantized == ["net", "8", "engine", "int8-trt", "gather", "2.500", "", "0.100 ms", "", "1.0e-03"]


@pytest.mark.parametrize(
    ("precision", "difference", "fails"),
    [("fp32", 5e-5, False), ("fp32", 5e-4, True), ("fp16", 5e-4, False), ("fp16", float("nan"), True)],
)
def test_a_difference_is_judged_by_its_precision(gpu_benchmark, precision, difference, fails):
    assert bool(gpu_benchmark.wrong([result(precision=precision, difference=difference)])) == fails


FACT = '{"kind": "fact", "text": "it is warm"}'


def test_a_part_that_is_cut_off_keeps_what_it_has_and_leaves_nothing_running(gpu_benchmark, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_benchmark, "TOLD_EVERY", 0.2)
    told: list[list[dict]] = []
    # A child of the process, as a compiler is one: it holds the pipe open for as long as it lives.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    script = f"""(exec 3>{pipe}; echo started >&3; sleep 30) &
        echo '{FACT}' >"$0"; printf '{{"kind": "fa' >>"$0"; sleep 30"""
    part = gpu_benchmark.Part("warmth", "measures warmth", 60)
    fact, ended = gpu_benchmark.run_part(part, ["/bin/sh", "-c", script], 0.7, told.append)
    assert told[-1][0] == fact
    assert told[-1][1]["end"] == "still running"
    assert fact == {"part": "warmth", "kind": "fact", "text": "it is warm"}
    assert ended["end"].startswith("cut off")
    said, closed, deadline = b"", False, time.monotonic() + 5
    while not closed and time.monotonic() < deadline:
        try:
            chunk = os.read(reader, 64)
            said, closed = said + chunk, not chunk
        except BlockingIOError:  # Somebody holds it.
            time.sleep(0.02)
    os.close(reader)
    assert said == b"started\n"
    assert closed


def test_a_part_that_crashes_says_why_and_keeps_what_it_has(gpu_benchmark):
    script = f"echo '{FACT}' >\"$0\"; echo noise >&2; echo 'ImportError: no warmth' >&2; exit 3"
    part = gpu_benchmark.Part("warmth", "measures warmth", 60)
    fact, missing, ended = gpu_benchmark.run_part(part, ["/bin/sh", "-c", script], 30)
    assert fact["text"] == "it is warm"
    assert (missing["kind"], missing["text"]) == ("missing", "ImportError: no warmth")
    assert ended["end"] == "ended with status 3"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with the one that started it")
def test_a_run_that_is_killed_leaves_its_record_and_nothing_running(tmp_path):
    pytest.importorskip("onnxruntime")
    runs = {}
    for number in (signal.SIGTERM, signal.SIGKILL):
        kit = tmp_path / number.name
        kit.mkdir()
        (kit / "kit.json").write_text('{"files": [], "engines": []}')
        os.mkfifo(kit / "references.npz")  # The part waits here for somebody who writes.
        command = [sys.executable, str(BENCHMARKS / "gpu.py"), str(kit), "--dry-run", "--parts", "onnxruntime"]
        runs[number] = subprocess.Popen([*command, "--output", str(kit)], stderr=subprocess.DEVNULL)
    for number, running in runs.items():
        kit = tmp_path / number.name
        pipe = soon(lambda kit=kit: os.open(kit / "references.npz", os.O_WRONLY | os.O_NONBLOCK))
        (record,) = soon(lambda kit=kit: json.loads((kit / "gpu.json").read_text())["records"])
        assert (record["part"], record["end"]) == ("onnxruntime", "still running")
        running.send_signal(number)
        # With a status of its own it has ended what it started, and not the system.
        assert running.wait(timeout=10) == (128 + number if number == signal.SIGTERM else -number)
        readers = select.poll()
        readers.register(pipe, 0)
        assert readers.poll(10_000) == [(pipe, select.POLLERR)], "the part still reads"
        os.close(pipe)


def soon(take):
    """What a call returns once what it opens is there."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return take()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def test_every_compiled_network_is_compiled_for_every_batch(gpu_benchmark, monkeypatch):
    import gpu_parts
    import torch

    compiled = []
    real = torch.compile

    def compile_counted(network, **options):
        def backend(graph, _):
            compiled.append(graph)
            return graph.forward

        return real(network, **{**options, "backend": backend})

    monkeypatch.setattr(torch, "compile", compile_counted)
    # Three networks of a class at three batches: torch keeps eight compilations of a class.
    file = {"model": "net", "form": "no shift", "precision": "fp16", "shape": (4,), "macs": 1, "shifted": 0}
    monkeypatch.setattr(gpu_parts, "networks", lambda _: ((file, torch.nn.Sequential(torch.nn.Linear(4, 2))),) * 3)
    bench = SimpleNamespace(dry=True, device="cpu", batches=(1, 2, 3))
    bench.result, bench.milliseconds = lambda *_: {}, lambda run: run()
    assert len(list(gpu_parts.torch_compiled(bench))) == 9
    assert len(compiled) == 9


def test_a_gpu_is_warm_before_it_is_timed(gpu_benchmark, monkeypatch):
    import gpu_bench

    done: list[str] = []
    monkeypatch.setattr(gpu_bench.time, "perf_counter", lambda: 0.03 * done.count("run"))
    gpu_bench.warm_up(lambda: done.append("run"), lambda: done.append("wait"))
    assert done == ["run", "wait"] * gpu_bench.WARMUP
    done.clear()
    monkeypatch.setattr(gpu_bench.time, "perf_counter", lambda: 0.001 * done.count("run"))
    gpu_bench.warm_up(lambda: done.append("run"), lambda: done.append("wait"))
    assert done == ["run", "wait"] * 100


def test_engines_are_built_without_what_draws_reports(gpu_benchmark):
    # A bare machine has neither rich nor jinja2; None in their place is as if they were missing.
    script = f"""
import sys
sys.path.insert(0, {str(BENCHMARKS)!r})
sys.modules.update(dict.fromkeys(("rich", "jinja2", "typer", "PIL", "cuda", "openvino", "torch")))
import gpu_parts
from types import SimpleNamespace
gpu_parts.gpus = lambda: [SimpleNamespace(capability="sm90")]
file = {{"path": "x.onnx", "precision": "fp16", "input": "x", "shape": [3]}}
bench = SimpleNamespace(kit=gpu_parts.Path("none"), contents={{"engines": []}}, batches=(1,), files=lambda: [(file, 0)])
for record in gpu_parts.tensorrt(bench):
    print(record["text"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = [line for line in done.stdout.splitlines() if line.startswith(("tensorrt, x.onnx", "tensorrt-rtx"))]
    assert len(built) == 2
    assert not any("No module named" in line for line in built), built


def test_a_page_names_what_is_wrong_and_what_is_missing(gpu_benchmark, tmp_path):
    records = [
        {"kind": "missing", "part": "tensorrt", "text": "it is not installed"},
        {"kind": "failure", "part": "execution", "text": "1 failed"},
        {"kind": "ceiling", "part": "ceilings", "of": "copy", "per_second": 2e12},
        {"kind": "ceiling", "part": "ceilings", "of": "int8", "per_second": 3e14},
        result(difference=0.5),
    ]
    gpu_benchmark.write(tmp_path, records, "A GPU")
    text = (tmp_path / "gpu.md").read_text()
    for expected in (
        "# Figures of A GPU",
        "tensorrt: it is not installed",
        "1 failed",
        "copy: 2000 GB/s",
        "int8: 300 TOP/s",
        "0.5, and",
    ):
        assert expected in text
    assert json.loads((tmp_path / "gpu.json").read_text()) == {"device": "A GPU", "records": records}


def test_a_run_without_time_says_so_and_makes_no_table(gpu_benchmark, tmp_path):
    (tmp_path / "kit.json").write_text("{}")
    assert gpu_benchmark.main([str(tmp_path), "--output", str(tmp_path / "o"), "--minutes", "0", "--dry-run"]) == 0
    records = json.loads((tmp_path / "o" / "gpu.json").read_text())["records"]
    assert [record["part"] for record in records] == [part.name for part in gpu_benchmark.PARTS]
    assert {record["text"] for record in records} == {"no time was left"}
    assert not (tmp_path / "o" / "gpu.md").exists()


@pytest.mark.parametrize(
    ("arguments", "limits"),
    [
        (["--parts", "tensorrt"], [450]),
        (["--parts", "tensorrt", "ceilings", "--minutes", "8"], [120, 360]),
        ([], [20, 40, 60, 60, 60, 150, 120, 120]),
    ],
)
def test_parts_that_are_chosen_fill_the_time(gpu_benchmark, monkeypatch, tmp_path, arguments, limits):
    (tmp_path / "kit.json").write_text("{}")
    found: list[float] = []
    monkeypatch.setattr(gpu_benchmark, "run_part", lambda part, command, seconds, tell: found.append(seconds) or [])
    gpu_benchmark.main([str(tmp_path), "--output", str(tmp_path / "o"), "--dry-run", *arguments])
    assert [round(seconds) for seconds in found] == limits


def test_every_part_has_code(gpu_benchmark):
    import gpu_parts

    assert list(gpu_parts.RUNS) == [part.name for part in gpu_benchmark.PARTS]


def test_the_gpu_that_is_named_is_the_one_that_ran(gpu_benchmark, monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    seen = []
    monkeypatch.setattr(gpu_benchmark, "gpus", lambda: tuple(seen.append(os.environ["CUDA_DEVICE_ORDER"]) or ()))
    assert gpu_benchmark.main([str(tmp_path)]) == 2
    assert seen == ["PCI_BUS_ID"]


@pytest.mark.parametrize(
    ("status", "said", "kind", "text"),
    [
        (0, "....\n4 passed in 2.1s", "fact", "4 passed"),
        (0, "SKIPPED [4] test.py:45: no NVRTC of the bindings' version\n4 skipped in 0.1s", "missing", "no NVRTC"),
        (5, "SKIPPED [1] test.py:11: could not import 'cuda.bindings'\n1 skipped", "missing", "cuda.bindings"),
        (1, "/usr/bin/python: No module named pytest", "missing", "No module named pytest"),
        (1, "ImportError\nE   ModuleNotFoundError: No module named 'pygments'\n", "missing", "'pygments'"),
        (1, "E   assert 1 == 2\n1 failed, 3 passed", "failure", "assert 1 == 2"),
    ],
)
def test_a_state_machine_that_was_not_tried_did_not_fail(gpu_benchmark, monkeypatch, status, said, kind, text):
    import gpu_parts

    def run(*_, preexec_fn, **__):
        assert preexec_fn is gpu_parts.end_with_parent  # Or it would hold the GPU on where this part is killed.
        return SimpleNamespace(returncode=status, stdout=said)

    monkeypatch.setattr(gpu_parts.subprocess, "run", run)
    (record,) = gpu_parts.execution(SimpleNamespace(dry=False))
    assert record["kind"] == kind
    assert text in record["text"]


def test_why_an_engine_of_another_gpu_is_refused_is_told_in_full(gpu_benchmark, monkeypatch, tmp_path):
    import gpu_parts

    from s2mlp_deploy.engines.tensorrt import library, runtime
    from s2mlp_deploy.errors import ArtifactError

    def refuse(*_):
        raise ArtifactError("it was not built for this machine\n    targets: built for sm80, here is sm90", where="e")

    monkeypatch.setattr(runtime, "TensorRTEngine", refuse)
    monkeypatch.setattr(library, "load", refuse)
    engine = {"path": "e", "flavour": "tensorrt-rtx", "targets": ["sm80"]}
    ours, _ = gpu_parts.foreign(SimpleNamespace(kit=tmp_path), engine)
    assert ours["text"].endswith("this machine targets: built for sm80, here is sm90")


def test_graphs_of_a_kit_share_weights_and_compute_the_same(gpu_kit, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    values = np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)
    shared = gpu_kit.SharedWeights(tmp_path / "weights.bin")
    sizes = []
    for operator in ("Add", "Mul"):
        graph = helper.make_graph(
            [helper.make_node(operator, ["x", "w"], ["y"])],
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [32, 32])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [32, 32])],
            [numpy_helper.from_array(values, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        whole, slim = tmp_path / f"{operator}.onnx", tmp_path / f"{operator}.slim.onnx"
        onnx.save(model, whole)
        shared.add(whole, slim)
        assert slim.stat().st_size < values.nbytes < whole.stat().st_size
        sizes.append(shared.path.stat().st_size)
        found, expected = (
            onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": values})[0]
            for path in (slim, whole)
        )
        np.testing.assert_array_equal(found, expected)
    assert sizes == [values.nbytes, values.nbytes]


@pytest.mark.slow
def test_a_dry_run_goes_through_every_part(gpu_kit, gpu_benchmark, tmp_path):
    kit, output = tmp_path / "kit", tmp_path / "results"
    assert gpu_kit.main([str(kit), "--models", "s2mlpv2_nano", "--forms", "slice-concat"]) == 0
    assert gpu_benchmark.main([str(kit), "--output", str(output), "--dry-run"]) == 0
    records = json.loads((output / "gpu.json").read_text())["records"]
    ends = {record["part"]: record["end"] for record in records if record["kind"] == "part"}
    assert ends == dict.fromkeys((part.name for part in gpu_benchmark.PARTS), "finished")
    measured = {(r.engine, r.precision, r.form) for r in gpu_benchmark.results_of(records)}
    for form in (gpu_benchmark.NONE, "slice-concat"):
        assert {("ONNX Runtime CPU", precision, form) for precision in ("fp32", "fp16", "int8")} <= measured
    for engine in ("torch eager", "torch.compile"):
        assert {(engine, "fp16", form) for form in (gpu_benchmark.NONE, "s2mlp::shift")} <= measured
    assert not (output / "gpu.md").exists()


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
