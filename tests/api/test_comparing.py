"""Parity through the API: what is compared with what, by which limits, and what is refused first."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nano_artifact
import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, load, numpy_helper, save
from torch import Tensor, nn

from s2mlp_deploy import api
from s2mlp_deploy.api import comparing, preparing
from s2mlp_deploy.artifact import METADATA_KEY
from s2mlp_deploy.errors import ArtifactError, InputError
from s2mlp_deploy.evidence.parity import ParityReport, Tolerances
from s2mlp_deploy.evidence.store import decode
from s2mlp_deploy.parity.tolerances import TOLERANCES, default_tolerances


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
    types: str = "",
) -> Path:
    """The same by hand, with inputs and outputs of any name and in any order.

    Args:
        precision: What the file says of itself.
        types: A type that some value in it has besides float32.
    """
    nodes = [
        helper.make_node("Add", [left, right], [sum_]),
        helper.make_node("Sub", [left, right], [difference]),
        *(helper.make_node("Abs", [left], [name]) for name in outputs if name not in (sum_, difference)),
    ]
    if types:
        nodes.append(helper.make_node("Cast", [left], ["other"], to=TensorProto.DataType.Value(types)))
    if types == "INT8":
        nodes[-1] = helper.make_node("QuantizeLinear", [left, "scale", "zero"], ["other"])
        nodes = [
            helper.make_node("Constant", [], ["scale"], value_float=1.0),
            helper.make_node("Constant", [], ["zero"], value=helper.make_tensor("zero", TensorProto.INT8, [], [0])),
            *nodes,
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
    assert all("output 'difference'" in failure for failure in report.failures)
    assert {failure.split(":")[0] for failure in report.failures} == {"output 'difference'", "on batch 1", "on batch 3"}


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


def test_precision_is_what_the_file_says_where_its_types_bear_it_out_and_never_its_name(source, tmp_path):
    files = [
        graph(tmp_path / "model.int8.onnx", precision="fp16", types="FLOAT16"),
        graph(tmp_path / "resnet.v2.onnx"),
        graph(tmp_path / "a.onnx", precision="int8-trt", types="INT8"),
        graph(tmp_path / "model.fp16.onnx", precision="int8"),
        graph(tmp_path / "b.onnx", types="INT8"),
    ]
    *reports, renamed, silent = api.parity(source, files)
    assert [report.precision for report in reports] == ["fp16", "fp32", "int8-trt"]
    assert (renamed.precision, silent.precision) == ("fp32", "int8")
    limits = [report.outputs[0].tolerances for report in reports]
    assert limits == [default_tolerances(name, images=16) for name in ("fp16", "fp32", "int8")]
    assert [report.limits for report in reports] == [f"those of {n} in general" for n in ("fp16", "fp32", "int8")]


def test_limits_are_given_for_all_outputs_or_for_one(source, tmp_path):
    file = graph(tmp_path / "model.onnx", precision="fp16", types="FLOAT16")
    (report,) = api.parity(source, [file], atol={"sum": 0.5}, rtol=0.25)
    assert [(o.tolerances.atol, o.tolerances.rtol) for o in report.outputs] == [(0.5, 0.25), (1e-3, 0.25)]
    assert {o.tolerances.min_cosine for o in report.outputs} == {TOLERANCES["fp16"].min_cosine}
    own = Tolerances(atol=1.0, rtol=2.0, min_cosine=0.5, min_top1_agreement=0.5)
    (report,) = api.parity(source, [file], tolerances=own, atol=0.25)
    assert {o.tolerances for o in report.outputs} == {Tolerances(0.25, 2.0, 0.5, 0.5)}


def test_a_limit_for_an_output_that_is_not_there_is_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("s2mlp_deploy.api.preparing.load_source", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(InputError, match=r"atol is given for logits, which is no output\n.*sum, difference"):
        api.parity("s2mlpv2_nano", [graph(tmp_path / "model.onnx")], atol={"logits": 1.0})


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
    saved = artifact / "evidence" / f"parity-{report.label}.json"
    assert saved.name.startswith("parity-copy.of.model-noise-")
    assert report.weights is not None
    assert (report.weights.checkpoint, report.weights.seed) == (nano_artifact.weights().name, None)
    assert decode(saved.read_bytes(), ParityReport) == report
    assert "copy.of.model.onnx" in (artifact / "report.html").read_text()


def test_a_file_beside_no_manifest_leaves_nothing_behind(source, tmp_path):
    file = graph(tmp_path / "model.onnx")
    api.parity(source, [file])
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_damaged_description_is_refused(source, tmp_path):
    file = graph(tmp_path / "model.onnx", precision="int8")
    model = load(file)
    model.metadata_props[0].value = "{"
    save(model, file)
    with pytest.raises(ArtifactError, match="description is damaged"):
        api.parity(source, [file])


def test_zeros_and_other_batches_are_tried_besides_the_data(tmp_path):
    """A file without the epsilon agrees on noise and is NaN on a black image."""

    class Scaled(nn.Module):
        def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
            return {"sum": left + right, "difference": left / (left.abs() + 1e-9) * 0 + left - right}

    def with_division(path: Path) -> Path:
        model = load(graph(path))
        graph_ = model.graph
        graph_.node[1].output[0] = "plain"
        graph_.node.extend(
            [
                helper.make_node("Abs", ["left"], ["size"]),
                helper.make_node("Div", ["left", "size"], ["one"]),
                helper.make_node("Sub", ["one", "one"], ["nothing"]),
                helper.make_node("Add", ["plain", "nothing"], ["difference"]),
            ]
        )
        save(model, path)
        return path

    source = api.from_module(Scaled(), (torch.randn(2, 3), torch.randn(2, 3)))
    (report,) = api.parity(source, [with_division(tmp_path / "model.onnx")])
    assert report.tried == ("zeros", "ones", "one hot pixel", "large values", "batch 1", "batch 3")
    assert [failure.split(":")[0] for failure in report.failures] == ["on zeros", "on one hot pixel"]
    assert "NaN or infinite, where the source's are finite" in report.failures[0]


def test_images_that_tell_nothing_apart_are_told(source, tmp_path):
    file = graph(tmp_path / "model.onnx")
    (black,) = api.parity(
        source, [file], data={"left": np.zeros((9, 3), np.float32), "right": np.ones((9, 3), np.float32)}
    )
    assert black.passed
    assert "one value throughout" in black.notes[0]
    row = np.arange(3, dtype=np.float32)
    (alike,) = api.parity(source, [file], data={"left": np.tile(row, (9, 1)), "right": np.tile(row, (9, 1))})
    assert alike.notes == ("all 9 samples are alike, so that the figures are those of one",)


class Deciding(nn.Module):
    """The number of the largest value."""

    def forward(self, x: Tensor) -> Tensor:
        return x.argmax(1)


def test_whole_numbers_are_compared_as_such(tmp_path):
    """A class that is three numbers off is another class, in five thousand too."""
    source = api.from_module(Deciding(), (torch.randn(2, 5000),))
    api.export(source, tmp_path / "out")
    file = tmp_path / "out" / "model.fp32.onnx"
    (sound,) = api.parity(source, [file], batch=4)
    assert sound.passed
    model = load(file)
    output = model.graph.output[0].name
    model.graph.node[-1].output[0] = "before"
    model.graph.initializer.append(helper.make_tensor("three", TensorProto.INT64, [], [3]))
    model.graph.node.append(helper.make_node("Sub", ["before", "three"], [output]))
    save(model, tmp_path / "off.onnx")
    (off,) = api.parity(source, [tmp_path / "off.onnx"])
    assert off.failures[0] == "output 'output': 16 of 16 whole numbers differ"


def test_a_file_that_is_replaced_meanwhile_is_not_certified(source, tmp_path, monkeypatch):
    file = graph(tmp_path / "model.onnx")
    other = graph(tmp_path / "other.onnx", left="right", right="left")

    def compare(*arguments, **options):
        shutil.copy(other, file)
        return original(*arguments, **options)

    original = comparing.compare
    monkeypatch.setattr(comparing, "compare", compare)
    with pytest.raises(ArtifactError, match="was replaced while it was compared"):
        api.parity(source, [file])


def test_other_weights_than_those_of_the_export_prove_nothing(tmp_path):
    artifact = nano_artifact.copy_to(tmp_path / "nano")
    before = {path.name: path.read_bytes() for path in (artifact / "evidence").glob("*")}
    file, name = artifact / "model.fp32.onnx", nano_artifact.weights().name
    # Not found where nobody named it, so random ones are not taken in their place; nor are those of a loaded source.
    with pytest.raises(InputError, match=rf"the artifact's weights are not found: {name}") as raised:
        api.parity("s2mlpv2_nano", [file])
    assert f"--checkpoint PATH, the place of {name}" in raised.value.fix
    random = api.load("s2mlpv2_nano")
    with pytest.raises(InputError, match=r"other weights, those of .*safetensors, .* random ones \(seed 0\)") as raised:
        api.parity(random, [file])
    assert f"--checkpoint PATH, the place of {name}" in raised.value.fix
    # Once they are beside the artifact, the command is enough.
    (tmp_path / name).write_bytes(nano_artifact.weights().read_bytes())
    with pytest.raises(InputError, match="other weights") as raised:
        api.parity(random, [file])
    assert raised.value.fix == f"s2mlp-deploy parity s2mlpv2_nano {artifact}"
    assert {path.name: path.read_bytes() for path in (artifact / "evidence").glob("*")} == before


def test_an_artifact_is_compared_with_what_it_was_exported_from(tmp_path, monkeypatch):
    """Its checkpoint, settings, preprocessing, class names and seed: only the source is named."""
    artifact = nano_artifact.copy_to(tmp_path / "nano")
    # Neither the sidecar beside the checkpoint nor its folder is needed.
    (tmp_path / nano_artifact.weights().name).write_bytes(nano_artifact.weights().read_bytes())
    seen = []
    original = preparing.load_source

    def load(*arguments, **options):
        seen.append(original(*arguments, **options))
        return seen[-1]

    monkeypatch.setattr(preparing, "load_source", load)
    (report,) = api.parity("s2mlpv2_nano", [artifact])
    assert report.passed, report.failures
    manifest = api.read_manifest(artifact)
    (source,) = seen
    assert source.preprocessing.to_dict() == manifest.preprocessing
    assert source.classes == manifest.classes
    assert source.info.checkpoint_sha256 == manifest.source.checkpoint_sha256


def test_settings_and_seed_are_those_of_the_export(tmp_path):
    settings = {"dims": [8], "depths": [1], "patches": [4], "classes": "7"}
    api.export("s2mlpv2_nano", tmp_path / "out", overrides=settings, seed=3)
    (report,) = api.parity("s2mlpv2_nano", [tmp_path / "out"])
    assert report.passed, report.failures
    with pytest.raises(InputError, match=r"random ones \(seed 3\), than .* random ones \(seed 4\)"):
        api.parity("s2mlpv2_nano", [tmp_path / "out"], seed=4)


def test_shifts_and_constants_of_a_sound_artifact_are_proven(tmp_path):
    artifact = nano_artifact.copy_to(tmp_path / "nano")
    (report,) = api.parity("s2mlpv2_nano", [artifact / "model.fp32.onnx"], checkpoint=nano_artifact.weights())
    assert report.passed
    assert report.proof is not None
    assert report.proof.shifts == len(api.read_manifest(artifact).shifts) > 0
    assert report.proof.constants > 10


def test_an_exchanged_weight_is_named(tmp_path):
    artifact = nano_artifact.copy_to(tmp_path / "nano")
    file = artifact / "model.fp32.onnx"
    model = load(file)
    weight = next(item for item in model.graph.initializer if item.name.endswith("norm1.weight"))
    array = numpy_helper.to_array(weight).copy()
    array[0] *= 1.00001
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    save(model, file)
    (report,) = api.parity("s2mlpv2_nano", [file], checkpoint=nano_artifact.weights())
    assert report.failures == (f"the constant {weight.name} is another than the original",)


def test_an_artifact_stands_for_its_files(tmp_path):
    artifact = nano_artifact.copy_to(tmp_path / "nano")
    reports = api.parity("s2mlpv2_nano", [artifact], checkpoint=nano_artifact.weights())
    assert [report.file for report in reports] == [record.path for record in api.read_manifest(artifact).files]
    with pytest.raises(ArtifactError, match="not an artifact"):
        api.parity("s2mlpv2_nano", [tmp_path])
