"""Comparing engines: a right one passes, every kind of wrong one fails with the output's name."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.evidence.parity import ParityReport, Tolerances
from s2mlp_deploy.evidence.store import decode, encode
from s2mlp_deploy.parity.compare import compare
from s2mlp_deploy.parity.tolerances import TOLERANCES, apply_tolerances

FP32 = TOLERANCES["fp32"]


class FakeEngine:
    """Two outputs, ``scores`` [N, 4] and ``features`` [N, 2, 3], computed from the input, then changed."""

    name = "fake"
    inputs = (TensorInfo("input", "float32", ("batch", 6)),)
    outputs = (TensorInfo("scores", "float32", ("batch", 4)), TensorInfo("features", "float32", ("batch", 2, 3)))

    def __init__(self, **changes):
        self.changes = changes
        self.calls = 0

    def run(self, feeds):
        self.calls += 1
        x = feeds["input"]
        results = {"scores": x[:, :4] * 2, "features": x.reshape(-1, 2, 3) + 1}
        results.update({name: change(results[name]) for name, change in self.changes.items()})
        return {name: value for name, value in results.items() if value is not None}


def batches(count=3, size=4, labels=None):
    random = np.random.default_rng(0)
    for _ in range(count):
        yield {"input": random.standard_normal((size, 6)).astype(np.float32)}, labels


def verdict(candidate, limits=FP32, given=None) -> ParityReport:
    compared = compare(FakeEngine(), {"candidate": candidate}, given or batches())
    images, outputs = compared.images, compared.figures
    report = ParityReport("torch", "fake", "model.onnx", "fp32", "noise", images, outputs["candidate"])
    return apply_tolerances(report, limits)


def with_value(index, value):
    def change(array):
        array = array.copy()
        array[index] = value
        return array

    return change


def test_an_engine_that_is_right_passes():
    report = verdict(FakeEngine())
    assert report.passed
    assert report.failures == ()
    assert report.images == 12
    assert [output.name for output in report.outputs] == ["scores", "features"]


def test_rounding_within_the_tolerance_passes():
    assert verdict(FakeEngine(scores=lambda y: y * (1 + 2e-7))).passed


@pytest.mark.parametrize("name", ["scores", "features"])
def test_one_value_that_is_off_fails_and_names_its_output(name):
    report = verdict(FakeEngine(**{name: with_value((0, 1), 1.5)}))
    assert not report.passed
    assert any(failure.startswith(f"output {name!r}: max abs difference") for failure in report.failures)
    assert all(f"output {name!r}" in failure for failure in report.failures)


def test_the_limit_is_atol_plus_rtol_times_the_peak():
    given = [({"input": np.full((1, 6), 2.0, np.float32)}, None)]  # The reference's peak of scores is 4.
    limits = Tolerances(atol=0.5, rtol=0.25, min_cosine=-1, min_top1_agreement=0)
    assert verdict(FakeEngine(scores=with_value((0, 0), 5.5)), limits, given).passed
    report = verdict(FakeEngine(scores=with_value((0, 0), 5.625)), limits, given)
    assert report.failures == ("output 'scores': max abs difference 1.62 > 1.5 (atol 0.5 + rtol 0.25 x peak 4)",)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_value_that_is_not_finite_fails_and_names_its_output(value):
    report = verdict(FakeEngine(features=with_value((0, 1, 2), value)), replace(FP32, atol=1e9, min_cosine=-1))
    assert report.failures == ("output 'features': 3 of 72 values are NaN or infinite",)


def test_a_reference_that_is_not_finite_fails_even_where_the_candidate_is_the_same():
    given = [({"input": np.full((1, 6), np.nan, np.float32)}, None)]
    failures = verdict(FakeEngine(), given=given).failures
    assert "output 'scores': 4 values of the reference are NaN or infinite" in failures
    assert "output 'scores': 4 of 4 values are NaN or infinite" in failures


def test_classes_that_swap_fail_even_where_the_distance_is_allowed():
    report = verdict(
        FakeEngine(scores=lambda y: y[:, ::-1]), replace(FP32, atol=1e9, min_cosine=-1, min_top1_agreement=0.999)
    )
    assert len(report.failures) == 1
    assert report.failures[0].startswith("output 'scores': top-1 agreement 0.")


def test_a_sign_fails_by_its_cosine():
    report = verdict(FakeEngine(features=lambda y: -y), replace(FP32, atol=1e9))
    assert report.failures == ("output 'features': cosine -1.0000000 < 0.99999",)


def test_ranks_are_of_matrices_only():
    report = verdict(FakeEngine())
    assert report.outputs[0].ranks is not None
    assert report.outputs[0].ranks.images == 12
    assert report.outputs[1].ranks is None


def test_labels_give_the_accuracy_of_both():
    labels = np.array([0, 1, 2, 3])
    compared = compare(FakeEngine(), {"c": FakeEngine(scores=lambda y: -y)}, batches(count=1, labels=labels))
    images, outputs = compared.images, compared.figures
    first = next(iter(batches(count=1)))[0]["input"][:, :4]
    assert images == 4
    assert outputs["c"][0].ranks.reference_accuracy == np.mean(first.argmax(1) == labels)
    assert outputs["c"][0].ranks.candidate_accuracy == np.mean(first.argmin(1) == labels)


def test_the_reference_runs_once_for_all_candidates():
    reference = FakeEngine()
    seen = []
    candidates = {"right": FakeEngine(), "wrong": FakeEngine(scores=lambda y: y + 1)}
    compared = compare(reference, candidates, batches(), on_batch=seen.append)
    images, outputs = compared.images, compared.figures
    assert reference.calls == 3
    assert seen == [4, 4, 4]
    assert images == 12
    assert outputs["right"][0].metrics.max_abs == 0
    assert outputs["wrong"][0].metrics.max_abs == pytest.approx(1, rel=1e-5)


def test_a_report_can_be_judged_again_with_other_tolerances():
    strict = verdict(FakeEngine(scores=lambda y: y * 1.01))
    assert not strict.passed
    loose = apply_tolerances(strict, replace(FP32, rtol=0.1))
    assert loose.passed
    assert {output.tolerances.rtol for output in loose.outputs} == {0.1}
    assert apply_tolerances(loose, FP32) == strict


def test_a_saved_report_holds_its_failures_and_limits():
    report = verdict(FakeEngine(scores=lambda y: y + 1))
    document = json.loads(encode(report))
    assert document["failures"][0].startswith("output 'scores': max abs difference 1 >")
    assert document["outputs"][0]["tolerances"]["atol"] == FP32.atol
    assert document["outputs"][1]["ranks"] is None
    assert decode(encode(report), ParityReport) == report


def test_an_output_that_is_missing_is_named():
    with pytest.raises(InputError, match=r"candidate has no output features[\s\S]*its outputs: scores"):
        verdict(FakeEngine(features=lambda _: None))


def test_an_output_of_another_shape_is_named_with_its_file():
    with pytest.raises(InputError, match=r"'scores' has the shape \(4, 3\), not \(4, 4\)[\s\S]*candidate[\s\S]*fix:"):
        verdict(FakeEngine(scores=lambda y: y[:, :3]))


def test_no_inputs_are_no_success():
    with pytest.raises(InputError, match="nothing to compare"):
        verdict(FakeEngine(), given=iter([]))


@pytest.mark.parametrize("value", [math.nan, math.inf, -1e-9])
@pytest.mark.parametrize("name", ["atol", "rtol"])
def test_limits_that_let_anything_or_nothing_pass_are_refused(name, value):
    with pytest.raises(InputError, match=rf"{name} is .*\n.*at least 0"):
        replace(FP32, **{name: value})


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_figures_that_are_themselves_nan_fail():
    # 1e200 squared is infinite in float64, so the cosine cannot be computed.
    huge = [({"input": np.full((1, 6), 1e200)}, None)]
    report = verdict(FakeEngine(), given=huge)
    assert any("the cosine is not finite" in failure for failure in report.failures)


# Through ONNX files


def shift_graph(step: int) -> bytes:
    """A plain ONNX graph that moves columns by ``step`` and keeps the border, written by hand."""
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    def ints(name, *values):
        return numpy_helper.from_array(np.array(values, np.int64), name)

    columns = np.clip(np.arange(5) - step, 0, 4)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["input", "columns"], ["moved"], axis=3)],
        "shift",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["batch", 2, 5, 5])],
        [helper.make_tensor_value_info("moved", onnx.TensorProto.FLOAT, ["batch", 2, 5, 5])],
        [ints("columns", *columns)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


@pytest.mark.parametrize("step", [1, -1])
def test_a_shift_with_the_wrong_sign_fails_and_the_right_one_passes(step):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
    from s2mlp_deploy.shift.op import shift
    from s2mlp_deploy.shift.spec import ShiftSpec

    spec = ShiftSpec.equal_groups(2, [(0, 1)], axes=(2, 3), channel_axis=1, border="edge")
    engine = OnnxRuntimeEngine(shift_graph(step), threads=1)

    class Reference:
        name, inputs, outputs = "torch", engine.inputs, engine.outputs

        def run(self, feeds):
            return {"moved": shift(torch.from_numpy(feeds["input"]), spec).numpy()}

    given = [({"input": np.random.default_rng(0).standard_normal((2, 2, 5, 5)).astype(np.float32)}, None)]
    outputs = compare(Reference(), {"onnx": engine}, given).figures
    report = ParityReport("torch", "onnx", "shift.onnx", "fp32", "noise", 2, outputs["onnx"])
    failures = apply_tolerances(report, FP32).failures
    assert (failures == ()) == (step == 1)
    assert all("output 'moved'" in failure for failure in failures)
