"""What ``quantize`` says of the time that its files take."""

from __future__ import annotations

import json
import shlex

import fake_speed
import pytest
from tiny_network import SMALLER_SOURCE

from s2mlp_deploy.artifact import read_manifest, verify_file
from s2mlp_deploy.gpu import gpus

pytest.importorskip("torch")


def test_what_was_made_is_timed_and_what_is_printed_to_do_can_be_done(cli, artifact, images, speed):
    speed(ratios={"int8": 1.4}, profile=fake_speed.PRODUCTS, processor=fake_speed.WITHOUT_VNNI)
    result = cli("quantize", artifact, "--data", images)
    assert result.code == 0, result.err
    assert "SLOWER  model.int8.onnx on onnxruntime: 1.40 times as slow" in result.out
    assert "Speed not measured: model.int8-trt.onnx" in result.out
    assert f"s2mlp-deploy parity s2mlpv2_nano '{artifact}' --data '{images}'" in result.out
    assert (artifact / "evidence" / "bench-speed-onnxruntime.json").is_file()
    exact, _ = (shlex.split(line) for line in result.out.splitlines() if line.startswith("    s2mlp-deploy"))
    assert exact[-1] == "--reduce-range"
    again = cli(*exact[1:])
    assert again.code == 0, again.err
    assert "--reduce-range" not in again.out


def test_a_file_that_is_too_slow_is_written_and_told(cli, artifact, images, speed, tmp_path):
    speed(ratios={"int8": 1.4})
    result = cli("quantize", artifact, "--data", images, "--min-speedup", "1.5", "--json")
    assert result.code == 1
    assert "model.int8.onnx on onnxruntime: 1.40 times as slow as float32 (1.33 to 1.47), where 1.5 was" in result.text
    assert len(json.loads(result.out)["speed"]["failures"]) == 1
    verify_file(artifact, read_manifest(artifact).file("int8"))
    given = ("--precision", "int8", "--calibration-data", images, "--min-speedup", "1.5")
    assert cli("export", *SMALLER_SOURCE, "-o", tmp_path / "slow", *given).code == 1
    verify_file(tmp_path / "slow", read_manifest(tmp_path / "slow").file("int8"))


def test_nothing_is_timed_where_that_is_not_wanted(cli, artifact, images, no_quantize, monkeypatch):
    monkeypatch.setattr("s2mlp_deploy.bench.speed.measure_speed", None)
    result = cli("quantize", artifact, "--data", images, "--no-speed-check")
    assert result.code == 0, result.err
    assert "times as fast" not in result.out
    text = no_quantize("--data", images, "--no-speed-check", "--min-speedup", "2")
    assert "--min-speedup: --no-speed-check measures nothing" in text
    for wrong in ("0", "-1", "nan"):
        assert f"--min-speedup is {wrong}" in no_quantize("--data", images, "--min-speedup", wrong)


@pytest.mark.skipif(bool(gpus()), reason="this machine has a GPU")
def test_a_floor_that_nothing_here_can_measure_is_refused(refused, no_quantize, images, tmp_path):
    text = no_quantize("--data", images, "--precision", "fp16,fp8", "--min-speedup", "2")
    assert "model.fp16.onnx cannot be measured: it is for a GPU, and there is none here" in text
    assert "model.fp8-trt.onnx cannot be measured: it is for TensorRT, and there is no NVIDIA GPU here" in text
    text = refused("export", *SMALLER_SOURCE, "-o", tmp_path / "new", "--min-speedup", "2")
    assert "--min-speedup is given, and no file that is asked for uses it" in text
