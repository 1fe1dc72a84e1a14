"""Whether a file is slower is judged by the interval, and why is read off the profile."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_speed import PRODUCTS, VNNI, WITHOUT_VNNI, speed_report

from s2mlp_deploy.evidence.bench import Ratio
from s2mlp_deploy.evidence.profile import NodeTime, Profile
from s2mlp_deploy.evidence.speed import SpeedCheck, causes, misses, speed_in_words, time_over

FILES = ("model.fp32.onnx", "model.int8.onnx", "model.fp16.onnx")


def profile(**milliseconds: float) -> Profile:
    return Profile(20, 1.0, tuple(NodeTime(op, op, "", ms) for op, ms in milliseconds.items()))


def timed(value: float, low: float, high: float):
    (_, result) = speed_report(FILES[:2], {}).results
    ratio = Ratio("fp32", value, low, high)
    return replace(result, ratio=ratio, cpu_ratio=ratio)


@pytest.mark.parametrize(
    ("ratio", "speedup", "missed", "words"),
    [
        ((1.1, 1.05, 1.2), 1.0, True, "1.10 times as slow as float32 (1.05 to 1.20)"),
        ((1.1, 0.98, 1.2), 1.0, False, "no difference measured (0.98 to 1.20 times as slow as float32)"),
        ((0.5, 0.4, 0.625), 2.4, False, "2.00 times as fast as float32 (1.60 to 2.50)"),
        ((0.5, 0.4, 0.625), 2.6, True, "2.00 times as fast as float32 (1.60 to 2.50)"),
    ],
)
def test_only_the_whole_interval_decides(ratio, speedup, missed, words):
    result = timed(*ratio)
    assert misses(result, speedup) is missed
    assert speed_in_words(result) == words


def test_processor_time_counts_for_one_thread_and_the_clock_elsewhere():
    wall = Ratio("fp32", 2.0, 1.9, 2.1)
    result = replace(timed(0.5, 0.4, 0.6), ratio=wall)
    assert time_over(result) == result.cpu_ratio
    for change in ({"threads": 2}, {"engine": "onnxruntime:cuda"}):
        assert time_over(replace(result, candidate=replace(result.candidate, **change))) == wall
    assert not misses(replace(result, ratio=None, cpu_ratio=None), 1.0)


def test_a_file_on_what_it_is_not_made_for_misses_nothing():
    report = speed_report(FILES, {"int8": 1.5, "fp16": 1.5})
    check = SpeedCheck((report,), elsewhere=("model.fp16.onnx",))
    assert [result.candidate.precision for result in check.slower] == ["int8", "fp16"]
    assert [result.candidate.precision for result in check.missed(1.0)] == ["int8"]
    assert check.missed(0.5) == ()


@pytest.mark.parametrize(
    ("precision", "processor", "times", "baseline", "kinds"),
    [
        ("int8", VNNI, {"QGemm": 6, "QuantizeLinear": 1.4, "Gelu": 2.6}, PRODUCTS, ["unknown"]),
        ("int8", WITHOUT_VNNI, {"QGemm": 6, "Gelu": 4}, PRODUCTS, ["no-vnni"]),
        ("int8", VNNI, {"MatMul": 6, "DequantizeLinear": 3, "Gelu": 1}, PRODUCTS, ["dequantized", "between"]),
        ("int8", VNNI, {"QGemm": 8.6, "MatMul": 1.4}, PRODUCTS, ["unknown"]),
        ("int8", VNNI, {"QGemm": 6, "Gelu": 4}, profile(MatMul=3, Slice=7), ["small"]),
        ("fp16", WITHOUT_VNNI, {"Gemm": 6, "Cast": 4}, PRODUCTS, ["half"]),
    ],
)
def test_causes_are_read_off_the_profile(precision, processor, times, baseline, kinds):
    plain, other = speed_report((FILES[0], f"model.{precision}.onnx"), {}).results
    found = causes(replace(other, profile=profile(**times)), replace(plain, profile=baseline), processor)
    assert [cause.kind for cause in found] == kinds


def test_causes_name_their_share_and_nothing_is_said_without_a_profile():
    plain, other = speed_report(FILES[:2], {}).results
    assert causes(other, plain, WITHOUT_VNNI) == ()
    (cause,) = causes(replace(other, profile=profile(MatMul=6, QGemm=4)), plain, VNNI)
    assert cause.words == "products and convolutions in float32 (1 of them) take 60 % of the time"
    (cause,) = causes(replace(other, profile=profile(QGemm=7, Gelu=3)), plain, VNNI)
    assert cause.words == "no known cause stands out: QGemm takes most, 70 %"
