"""How fast new files are, in the terminal: every slow one with why and a command; where all is well, nothing more."""

from __future__ import annotations

import io

import pytest
from fake_speed import VNNI, WITHOUT_VNNI, speed_report
from rich.console import Console

from s2mlp_deploy.evidence.profile import NodeTime, Profile
from s2mlp_deploy.evidence.speed import SpeedCheck
from s2mlp_deploy.report.speed import print_speed

FP32, INT8, FP16 = "model.fp32.onnx", "model.int8.onnx", "model.fp16.onnx"
SLOW = Profile(20, 1.0, (NodeTime("fc1", "QGemm", "", 0.5), NodeTime("q", "QuantizeLinear", "", 0.5)))


def printed(check: SpeedCheck, *, data: str | None = "my data", reduced: bool = False) -> str:
    console = Console(file=io.StringIO(), width=200)
    print_speed(console, check, "my out", data=data, reduced=reduced)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_what_is_fast_has_a_row_and_no_more():
    text = printed(SpeedCheck((speed_report((FP32, INT8), {}),), unmeasured={"model.int8-trt.onnx": "no GPU here"}))
    assert "2.00 times as fast" in text
    assert "0.500 (0.475 to 0.525)" in text
    assert "SLOW" not in text
    assert "s2mlp-deploy" not in text
    assert text.rstrip().endswith("Speed not measured: model.int8-trt.onnx (no GPU here).")


@pytest.mark.parametrize(
    ("processor", "data", "reduced", "command"),
    [
        (WITHOUT_VNNI, "my data", False, "s2mlp-deploy quantize 'my out' --data 'my data' --reduce-range"),
        (WITHOUT_VNNI, "my data", True, "s2mlp-deploy bench 'my out/model.int8.onnx' --per-module"),
        (VNNI, "my data", False, "s2mlp-deploy bench 'my out/model.int8.onnx' --per-module"),
    ],
)
def test_a_slow_file_has_a_reason_and_a_command(processor, data, reduced, command):
    report = speed_report((FP32, INT8), {"int8": 1.6}, profile=SLOW, processor=processor)
    text = printed(SpeedCheck((report,)), data=data, reduced=reduced)
    assert f"SLOWER  {INT8} on onnxruntime: 1.60 times as slow as float32 (1.52 to 1.68)" in text
    assert command in text
    assert ("VNNI" in text) is (processor is WITHOUT_VNNI and not reduced)


def test_a_file_that_misses_its_floor_is_told_and_a_doubt_with_it():
    report = speed_report((FP32, INT8), {"int8": 0.8})
    failure = f"{INT8} on onnxruntime: 1.25 times as fast as float32 (1.19 to 1.32), where 2 was asked for"
    text = printed(SpeedCheck((report,), failures=(failure,)))
    assert f"TOO SLOW  {failure.partition(',')[0]}" in text
    # Also where nothing is known of it, or what is known was done: the command that fails sends its reader here.
    nothing = Profile(20, 1.0, (NodeTime("fc1", "QGemm", "", 1.0),))
    done = speed_report((FP32, INT8), {"int8": 0.8}, profile=nothing, processor=WITHOUT_VNNI)
    for found, reduced in ((report, False), (done, True)):
        text = printed(SpeedCheck((found,), failures=(failure,)), reduced=reduced)
        assert "no known cause stands out" in text
        assert "s2mlp-deploy bench 'my out/model.int8.onnx' --per-module" in text


def test_float16_on_a_processor_is_sent_to_a_gpu():
    report = speed_report((FP32, FP16), {"fp16": 1.3}, profile=SLOW)
    text = printed(SpeedCheck((report,), elsewhere=(FP16,)), data=None)
    assert "computes float16 in float32" in text
    assert "s2mlp-deploy build 'my out' --target sm89" in text
    assert f"{FP16} is made for a GPU" in text
