"""New files are measured on what they are meant for, and what cannot be measured is told."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("onnx")
from fake_speed import fake_speed
from tiny_artifact import add_tiny, write_tiny

from s2mlp_deploy.api import places, refusals, speed
from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.engines.base import EngineStatus
from s2mlp_deploy.engines.cuda import Device
from s2mlp_deploy.errors import BuildError, InputError
from s2mlp_deploy.evidence.bench import BenchReport
from s2mlp_deploy.evidence.store import read_evidence
from s2mlp_deploy.gpu import Gpu
from s2mlp_deploy.precision.options import PrecisionOptions

FP16, INT8, TRT = "model.fp16.onnx", "model.int8.onnx", "model.int8-trt.onnx"
PRECISIONS = ("fp16", "int8", "int8-trt")


@pytest.fixture
def artifact(tmp_path):
    return tmp_path / "artifact"


@pytest.fixture
def check(artifact, monkeypatch):
    """Checks the speed of three files, which take so long beside float32."""

    def run(ratios=None, *, precisions=PRECISIONS, min_speedup=None, inputs=None, shapes=None, **how):
        changes = {} if inputs is None else {"inputs": inputs}
        write_tiny(artifact, force=True, **changes)
        manifest = add_tiny(artifact, {f"model.{name}.onnx": name.encode() for name in precisions})
        run.measure = fake_speed(ratios=ratios or {}, **how)
        monkeypatch.setattr(speed.bench, "measure_speed", run.measure)
        return speed.check_speed(artifact, manifest, precisions, shapes or {}, min_speedup=min_speedup)

    return run


@pytest.fixture
def here(monkeypatch):
    """Says what this machine has."""

    def have(*, gpu=False, cuda=False, tensorrt=False, rtx=False, onnxruntime=True, bindings=True):
        providers = "CUDAExecutionProvider, CPUExecutionProvider" if cuda else "CPUExecutionProvider"
        found = (Gpu("A GPU", "sm89", "1", 1000),) if gpu else ()
        monkeypatch.setattr(places, "gpus", lambda: found)
        status = EngineStatus("onnxruntime", onnxruntime, detail=providers)
        monkeypatch.setattr(places.onnxruntime, "status", lambda: status)
        monkeypatch.setattr(places, "tensorrt_status", lambda: EngineStatus("tensorrt", tensorrt))
        monkeypatch.setattr(places, "rtx_status", lambda: EngineStatus("tensorrt-rtx", rtx))
        monkeypatch.setattr(places, "version_of", lambda _: "13.0" if bindings else None)

    have()
    return have


def test_without_a_gpu_the_processor_runs_what_it_can(here, check, artifact):
    found = check({"int8": 0.6})
    assert check.measure.asked == [("onnxruntime", ["model.fp32.onnx", FP16, INT8], {})]
    assert [result.candidate.precision for result in found.results] == ["fp16", "int8"]
    assert found.elsewhere == (FP16,)
    assert found.unmeasured == {TRT: "it is for TensorRT, and there is no NVIDIA GPU here"}
    assert found.failures == ()
    (saved,) = read_evidence(artifact).of(BenchReport)
    assert saved.name == "bench-speed-onnxruntime.json"
    assert [result.candidate.file for result in saved.record.results] == ["model.fp32.onnx", FP16, INT8]


def test_a_floor_is_for_files_on_what_they_are_made_for(here, check):
    assert check({"fp16": 1.4, "int8": 0.6}, min_speedup=1.5).failures == ()
    found = check({"fp16": 1.4, "int8": 0.7}, min_speedup=1.6)
    said = "1.43 times as fast as float32 (1.36 to 1.50), where 1.6 was asked for"
    assert found.failures == (f"{INT8} on onnxruntime: {said}",)


def test_a_floor_is_not_reached_where_nothing_was_measured(here, check):
    (told,) = check({"fp16": 0.1}, precisions=("fp16",), min_speedup=1.2).failures
    assert told.startswith(f"{FP16} was not measured: it is for a GPU")
    here(gpu=True, onnxruntime=False, tensorrt=True, bindings=False)
    assert check(precisions=("int8", "int8-trt"), min_speedup=1.2).failures == (
        f"{INT8} was not measured: ONNX Runtime is not installed here",
        f"{TRT} was not measured: it is for TensorRT, and cuda-bindings, which runs engines, is not installed here",
    )


def test_a_floor_that_nothing_installed_can_measure_is_refused(here, tmp_path):
    def ask(*precisions):
        options = PrecisionOptions(precisions=precisions, data=None, min_speedup=1.2)
        refusals._check_speedup(options)

    ask("int8")
    with pytest.raises(InputError, match=r"fp16\.onnx cannot be measured: it is for a GPU[\s\S]*--precision int8"):
        ask("fp16")
    here(gpu=True, onnxruntime=False)
    with pytest.raises(InputError, match=r"ONNX Runtime is not installed here; .*TensorRT, which is not[\s\S]*doctor"):
        ask("int8")
    here(gpu=True, onnxruntime=False, tensorrt=True)
    ask("int8")


def test_on_a_gpu_each_file_has_its_engine(here, check, monkeypatch, artifact):
    here(gpu=True, cuda=True, tensorrt=True)
    built = []

    def build(path, *, engine, targets, output, **_):
        built.append((path.name, engine, tuple(targets)))
        Path(output).write_bytes(b"engine")

    monkeypatch.setattr(speed.builder, "build", build)
    found = check({"int8-trt": 0.4}, min_speedup=1.2)
    assert [(engine, names) for engine, names, _ in check.measure.asked] == [
        ("onnxruntime:cuda", ["model.fp32.onnx", FP16]),
        ("onnxruntime", ["model.fp32.onnx", INT8]),
        ("tensorrt", ["model.fp32.engine", "model.int8-trt.engine"]),
    ]
    assert built == [("model.fp32.onnx", "tensorrt", ()), (TRT, "tensorrt", ())]
    assert found.elsewhere == ()
    assert found.unmeasured == {}
    # Of engines that are gone, the graphs are told.
    saved = {item.name: item.record for item in read_evidence(artifact).of(BenchReport)}
    base, other = saved["bench-speed-tensorrt.json"].results
    assert (base.candidate.file, other.candidate.file) == ("model.fp32.onnx", TRT)
    assert other.ratio.over == base.candidate.name
    assert other.candidate.sha256 != base.candidate.sha256


def test_rtx_is_built_for_the_gpu_that_cuda_counts_first(here, check, monkeypatch):
    here(gpu=True, rtx=True)
    monkeypatch.setattr(speed.cuda, "use_device", lambda number: Device(number, "Another GPU", "sm120", "GPU-1"))
    targets = []

    def refuse(path, **given):
        targets.append(given["targets"])
        raise BuildError("the parser refuses it")

    monkeypatch.setattr(speed.builder, "build", refuse)
    found = check(precisions=("int8-trt",), min_speedup=1.0)
    assert targets == [["sm120"]]
    assert found.unmeasured == {TRT: "the parser refuses it"}
    assert found.failures == (f"{TRT} on tensorrt-rtx: the parser refuses it",)


@pytest.mark.parametrize("failed", ["model.fp32.onnx", INT8])
def test_a_file_that_cannot_run_was_not_measured(here, check, failed):
    found = check(precisions=("int8",), failed=failed, min_speedup=1.0)
    (why,) = found.unmeasured.values()
    assert "it was ended by SIGSEGV" in why
    assert ("float32" in why) is (failed != INT8)
    assert found.failures == (f"{INT8} on onnxruntime: {why}",)


def test_what_refuses_to_be_measured_is_no_error(here, check, monkeypatch, artifact):
    here(onnxruntime=False)
    assert check(precisions=("int8",)).unmeasured == {INT8: "ONNX Runtime is not installed here"}
    here()

    def refuse(*_, **__):
        raise InputError("a size is free")

    monkeypatch.setattr("fake_speed.speed_report", refuse)
    found = check(precisions=("int8",))
    assert found.unmeasured == {INT8: "a size is free"}
    assert found.reports == ()
    assert read_evidence(artifact).of(BenchReport) == ()


def test_free_sizes_are_those_of_the_data(here, check):
    inputs = (
        TensorInfo("image", "float32", ("batch", 3, "height", "width")),
        TensorInfo("mask", "float32", ("batch", 4)),
    )
    shapes = {"image": (8, 3, 48, 64), "mask": (8, 4)}
    check(precisions=("int8",), inputs=inputs, shapes=shapes)
    assert check.measure.asked[0][2] == {"image": (1, 3, 48, 64)}
