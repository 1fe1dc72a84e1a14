"""Parity through the API: what is compared with what, by which limits, and what is refused first."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nano_artifact
import pytest
import torch
from onnx import TensorProto, helper, load, save
from torch import Tensor, nn

from s2mlp_deploy import api
from s2mlp_deploy.artifact import METADATA_KEY
from s2mlp_deploy.errors import ArtifactError, InputError
from s2mlp_deploy.evidence.parity import ParityReport, Tolerances
from s2mlp_deploy.evidence.store import decode
from s2mlp_deploy.parity.tolerances import TOLERANCES


class SumAndDifference(nn.Module):
    """Two inputs of one shape, two outputs of one shape: nothing but a name tells them apart."""

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        return {"sum": left + right, "difference": left - right}


def graph(
    path: Path,
    inputs: tuple[str, ...] = ("left", "right"),
    outputs: tuple[str, ...] = ("sum", "difference"),
    *,
    left: str = "left",
    right: str = "right",
    sum_: str = "sum",
    difference: str = "difference",
    precision: str | None = None,
) -> Path:
    """The same by hand, with inputs and outputs of any name and in any order."""
    nodes = [
        helper.make_node("Add", [left, right], [sum_]),
        helper.make_node("Sub", [left, right], [difference]),
        *(helper.make_node("Abs", [left], [name]) for name in outputs if name not in (sum_, difference)),
    ]
    values = (
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 3]) for n in names]
        for names in (inputs, outputs)
    )
    model = helper.make_model(
        helper.make_graph(nodes, "g", *values), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    if precision is not None:
        helper.set_model_props(model, {METADATA_KEY: json.dumps({"precision": precision})})
    save(model, path)
    return path


@pytest.fixture(scope="module")
def source():
    return api.from_module(SumAndDifference(), (torch.randn(2, 3), torch.randn(2, 3)))


@pytest.mark.parametrize(
    "names",
    [
        {},
        {"inputs": ("right", "left")},
        {"outputs": ("difference", "sum")},
        {"inputs": ("right", "left"), "outputs": ("difference", "sum")},
        {"inputs": ("x", "y"), "outputs": ("p", "q"), "left": "x", "right": "y", "sum_": "p", "difference": "q"},
    ],
    ids=["as they are", "inputs reversed", "outputs reversed", "both reversed", "other names"],
)
def test_tensors_are_matched_by_name_and_by_position_only_where_names_differ(source, tmp_path, names):
    (report,) = api.parity(source, [graph(tmp_path / "model.onnx", **names)])
    assert report.passed, report.failures
    assert [output.metrics.max_abs for output in report.outputs] == [0, 0]


def test_names_in_the_order_of_another_file_are_matched_too(source, tmp_path):
    files = [graph(tmp_path / "a.onnx"), graph(tmp_path / "b.onnx", ("right", "left"), ("difference", "sum"))]
    reports = api.parity(source, files)
    assert [report.failures for report in reports] == [(), ()]
    assert [[output.name for output in report.outputs] for report in reports] == [["sum", "difference"]] * 2


def test_a_file_that_swaps_its_inputs_is_found_out(source, tmp_path):
    (report,) = api.parity(source, [graph(tmp_path / "model.onnx", left="right", right="left")])
    assert {failure.split(":")[0] for failure in report.failures} == {"output 'difference'"}


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (
            {"inputs": ("left", "right", "extra")},
            r"number of inputs differs: the model .* has 2 inputs \(left, right\), "
            r".*model.onnx has 3 inputs \(left, right, extra\)",
        ),
        (
            {"outputs": ("sum", "difference", "size")},
            r"number of outputs differs: .*2 outputs \(sum, difference\), "
            r".*3 outputs \(sum, difference, size\)",
        ),
        ({"outputs": ("sum",)}, r"number of outputs differs: .*2 outputs.* has 1 output \(sum\)"),
    ],
)
def test_a_count_that_does_not_fit_names_both_sides(source, tmp_path, names, says):
    with pytest.raises(InputError, match=says) as caught:
        api.parity(source, [graph(tmp_path / "model.onnx", **names)])
    assert caught.value.fix


def test_precision_is_what_the_file_says_and_not_its_name(source, tmp_path):
    files = [
        graph(tmp_path / "model.int8.onnx", precision="fp16"),
        graph(tmp_path / "resnet.v2.onnx"),
        graph(tmp_path / "a.onnx", precision="int8-trt"),
    ]
    reports = api.parity(source, files)
    assert [report.precision for report in reports] == ["fp16", "fp32", "int8-trt"]
    limits = [report.outputs[0].tolerances for report in reports]
    assert limits == [TOLERANCES["fp16"], TOLERANCES["fp32"], TOLERANCES["int8"]]


def test_limits_are_given_for_all_outputs_or_for_one(source, tmp_path):
    file = graph(tmp_path / "model.onnx", precision="fp16")
    (report,) = api.parity(source, [file], atol={"sum": 0.5}, rtol=0.25)
    assert [(o.tolerances.atol, o.tolerances.rtol) for o in report.outputs] == [(0.5, 0.25), (1e-3, 0.25)]
    assert {o.tolerances.min_cosine for o in report.outputs} == {TOLERANCES["fp16"].min_cosine}
    own = Tolerances(atol=1.0, rtol=2.0, min_cosine=0.5, min_top1_agreement=0.5)
    (report,) = api.parity(source, [file], tolerances=own, atol=0.25)
    assert {o.tolerances for o in report.outputs} == {Tolerances(0.25, 2.0, 0.5, 0.5)}


def test_a_limit_for_an_output_that_is_not_there_is_refused_before_anything_is_loaded(tmp_path):
    with pytest.raises(InputError, match=r"atol is given for logits, which is no output\n.*sum, difference"):
        api.parity("no_such_model", [graph(tmp_path / "model.onnx")], atol={"logits": 1.0})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"checkpoint": "x.safetensors"}, "checkpoint can no longer change"),
        ({"preprocess": "x.json"}, "preprocess can no longer change"),
        ({"overrides": {"classes": 3}}, "overrides can no longer change"),
        ({"checkpoint": "x", "overrides": {"a": 1}}, "checkpoint and overrides can no longer change"),
    ],
)
def test_options_that_a_loaded_source_cannot_honour_are_refused(source, tmp_path, options, says):
    with pytest.raises(InputError, match=says):
        api.parity(source, [graph(tmp_path / "model.onnx")], **options)


def test_nothing_given_is_nothing_refused(source, tmp_path):
    (report,) = api.parity(source, [graph(tmp_path / "model.onnx")], overrides={}, checkpoint=None)
    assert report.passed


@pytest.mark.parametrize("options", [{"batch": 0}, {"samples": 0}])
def test_sizes_below_one_are_refused(tmp_path, options):
    with pytest.raises(InputError, match="at least 1"):
        api.parity("no_such_model", [graph(tmp_path / "model.onnx")], **options)


def test_files_are_refused_before_a_model_is_loaded(tmp_path):
    with pytest.raises(InputError, match="no files"):
        api.parity("no_such_model", [])
    with pytest.raises(ArtifactError, match="no such file"):
        api.parity("no_such_model", [tmp_path / "none.onnx"])


def test_reports_are_returned_and_saved_into_the_artifact(tmp_path):
    artifact = nano_artifact.copy_to(tmp_path / "artifact")
    renamed = artifact / "copy.of.model.onnx"
    shutil.copy(artifact / "model.fp32.onnx", renamed)
    (report,) = api.parity(nano_artifact.captured(), [renamed], samples=2, batch=2)
    assert report.precision == "fp32"
    saved = artifact / "evidence" / "parity-copy.of.model.json"
    assert decode(saved.read_bytes(), ParityReport) == report
    assert "copy.of.model.onnx" in (artifact / "report.html").read_text()


def test_a_file_beside_no_manifest_leaves_nothing_behind(source, tmp_path):
    file = graph(tmp_path / "model.onnx")
    api.parity(source, [file])
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_damaged_description_is_none(source, tmp_path):
    file = graph(tmp_path / "model.onnx", precision="int8")
    model = load(file)
    model.metadata_props[0].value = "{"
    save(model, file)
    (report,) = api.parity(source, [file])
    assert report.precision == "fp32"
