"""A file of another precision is judged by what its own making measured of it, where that is known."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import onnx_ir as ir
import pytest

pytest.importorskip("torch")
from tiny_network import options

from s2mlp_deploy import api
from s2mlp_deploy.api import judging
from s2mlp_deploy.evidence.parity import ParityReport, Tolerances
from s2mlp_deploy.evidence.store import save_record
from s2mlp_deploy.files import sha256_of
from s2mlp_deploy.graph.operators import array_of
from s2mlp_deploy.parity.tolerances import default_tolerances

FP32, INT8 = "model.fp32.onnx", "model.int8.onnx"


@pytest.fixture(scope="module")
def quantized(untouched, images, tmp_path_factory):
    path = shutil.copytree(untouched, tmp_path_factory.mktemp("judged") / "artifact")
    # No layer need be kept for so wide a budget: it is what the evidence says.
    api.quantize(path, options(images, "fp16", "int8", max_drop=90.0))
    return path


@pytest.fixture
def mutable(quantized, tmp_path):
    return shutil.copytree(quantized, tmp_path / "artifact")


def figures(directory):
    return {
        row["file"]: row
        for row in json.loads(next((directory / "evidence").glob("accuracy-*.json")).read_text())["rows"]
    }


def test_sound_files_hold_by_their_own_figures_on_noise_and_on_data(mutable, captured, images):
    made = figures(mutable)
    for data, kind, margin in (
        (None, "on_noise", 6 + 15 * (2 / 16) ** 0.5),
        (images, "outputs", 6 + 15 * (2 / 40) ** 0.5),
    ):
        reports = {report.file: report for report in api.parity(captured, [mutable], data=data)}
        assert [report.file for report in reports.values() if report.failures] == []
        assert reports["model.fp32.onnx"].limits == "those of fp32 in general"
        for name in ("model.fp16.onnx", INT8, "model.int8-trt.onnx"):
            (output,) = reports[name].outputs
            expected = made[name][kind][0]["metrics"]["sqnr"] - margin
            assert output.tolerances.min_sqnr == pytest.approx(max(expected, 6.0)), name
            assert "its own figures" in reports[name].limits
    # The budget goes before agreement, on data alone.
    assert "its accuracy budget of 90 points" in reports[INT8].limits
    assert output.tolerances.max_drop > 90
    assert "of accuracy lost (its own figures" in (mutable / "report.html").read_text()


def test_figures_of_other_bytes_are_not_its_own(mutable, captured):
    graph = ir.load(mutable / INT8)
    graph.doc_string = "changed"
    ir.save(graph, mutable / INT8)
    (report,) = api.parity(captured, [mutable / INT8])
    assert report.limits == "those of int8 in general"
    assert report.outputs[0].tolerances == default_tolerances("int8", images=16)


def test_an_engine_has_the_figures_of_the_file_that_it_was_built_from(quantized, monkeypatch):
    row = next(row for row in figures(quantized).values() if row["precision"] == "int8-trt")
    sha256 = sha256_of(quantized / row["file"])
    monkeypatch.setattr(judging, "read_engine", lambda path: SimpleNamespace(onnx_sha256=sha256))
    _, found, _ = judging.made_figures(quantized / "model.int8-trt.tensorrt.sm89.engine", "of the engine itself")
    assert found.sqnr == row["sqnr"]


def test_a_file_that_tune_made_has_the_figures_of_the_one_it_was_compared_with(mutable):
    made, tuned = figures(mutable)[INT8], mutable / "model.int8-tuned.onnx"
    how = {"on_pixels": False, "images": 16, "on_noise": True}
    judge = judging.Judging([made["on_noise"][0]["name"]])
    rests_on = ((FP32, sha256_of(mutable / FP32)), (INT8, sha256_of(mutable / INT8)))
    compared = ParityReport(FP32, "openvino (CPU)", tuned.name, "int8", "noise", 1, ())
    compared = replace(compared, file_sha256="ab", rests_on=rests_on)
    assert judge.of_file(tuned, "ab", "int8", **how)[1] == "those of int8 in general"
    save_record(mutable, compared)
    found, basis = judge.of_file(tuned, "ab", "int8", **how)
    (limits,) = found.values()
    assert basis.startswith(f"the figures of {INT8}, which it was compared with: ")
    assert "when that was made" in basis
    assert judge.of_file(tuned, "of other bytes", "int8", **how)[1] == "those of int8 in general"
    assert limits.min_sqnr == pytest.approx(max(made["on_noise"][0]["metrics"]["sqnr"] - 6 - 15 * (2 / 16) ** 0.5, 6.0))
    save_record(mutable, replace(compared, failures=("it differs",)))
    assert judge.of_file(tuned, "ab", "int8", **how)[1] == "those of int8 in general"


def test_the_callers_limits_go_first(quantized, captured):
    limits = Tolerances(1.0, 1.0, 0.5, 0.1)
    (report,) = api.parity(captured, [quantized / INT8], tolerances=limits)
    assert (report.limits, report.outputs[0].tolerances) == ("the caller's", limits)
    (report,) = api.parity(captured, [quantized / INT8], atol=0.5, rtol={"": 0.25})
    found = report.outputs[0].tolerances
    assert (found.atol, found.rtol) == (0.5, 0.25)
    assert found.min_sqnr is not None


def test_a_wrong_weight_scale_is_found_by_the_files_own_figures_alone(mutable, captured, images):
    """Under a file whose hash the evidence knows: what is left where nothing can be proven of the constants."""
    graph = ir.load(mutable / INT8)
    scales = [
        node.inputs[1]
        for node in graph.graph.all_nodes()
        if node.op_type == "DequantizeLinear" and (array := array_of(node.inputs[0])) is not None and array.ndim > 1
    ]
    scale = scales[0]
    scale.const_value = ir.tensor(array_of(scale) * 1.5, name=scale.name)
    ir.save(graph, mutable / INT8)
    (evidence,) = (mutable / "evidence").glob("accuracy-*.json")
    told = json.loads(evidence.read_text())
    told["sha256"][INT8] = sha256_of(mutable / INT8)
    evidence.write_text(json.dumps(told))
    (report,) = api.parity(captured, [mutable / INT8], data=images)
    assert any("SQNR" in failure for failure in report.failures)
