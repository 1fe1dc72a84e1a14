"""Adding files of other precisions to an artifact: what they hold, and the same bytes every time."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("torch")
import torch
from tiny_network import onnx_bytes, options

from s2mlp_deploy import api
from s2mlp_deploy.artifact import CALIBRATION_CACHE, METADATA_KEY, read_manifest, verify_file
from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
from s2mlp_deploy.errors import DataError, InputError
from s2mlp_deploy.evidence.modules import ModulesReport
from s2mlp_deploy.evidence.store import read_evidence
from s2mlp_deploy.precision.accuracy import WORST, OutputMetric
from s2mlp_deploy.precision.carried import has_reduced_range
from s2mlp_deploy.processor import processor


def test_every_precision_is_added_described_and_scored(artifact, images):
    fp32 = (artifact / "model.fp32.onnx").read_bytes()
    result = api.quantize(artifact, options(images, "fp16", "int8", "fp8"))
    manifest = read_manifest(artifact)
    assert manifest == result.manifest
    assert [file.precision for file in manifest.files] == ["fp32", "fp16", "int8", "int8-trt", "fp8-trt"]
    for record in manifest.files:
        verify_file(artifact, record)
    assert (artifact / "model.fp32.onnx").read_bytes() == fp32
    assert manifest.calibration.samples == 40
    assert manifest.calibration.files == tuple(f"model.{p}.onnx" for p in ("fp16", "int8", "int8-trt", "fp8-trt"))
    assert {item.file for item in manifest.precision_exceptions} == set(manifest.calibration.files)
    accuracy = result.accuracy
    assert accuracy.metric == "top-1 accuracy"
    assert accuracy.images == 40
    assert [row.precision for row in accuracy.rows] == ["fp32", "fp16", "int8", "int8-trt", "fp8-trt"]
    sqnr = {row.precision: row.sqnr for row in accuracy.rows}
    assert sqnr["fp32"] is None
    assert sqnr["fp16"] > 45
    assert sqnr["fp16"] > sqnr["int8"] > 15
    assert sqnr["int8-trt"] > 15
    assert sqnr["fp8-trt"] > 10
    assert set(accuracy.sqnr) == {"int8", "int8-trt", "fp8-trt"}
    assert all(row.bytes == (artifact / row.file).stat().st_size for row in accuracy.rows)
    saved = json.loads(next((artifact / "evidence").glob("accuracy-*.json")).read_text())
    assert [row["file"] for row in saved["rows"]] == [row.file for row in accuracy.rows]
    assert all(len(row["worst"]) == WORST for row in saved["rows"][1:])
    names = {path.relative_to(images).as_posix() for path in images.rglob("*.png")}
    assert {image["name"] for row in saved["rows"][1:] for image in row["worst"]} <= names
    assert saved["rows"][1]["worst"][0]["thumbnail"].startswith("data:image/png;base64,")
    ranges = json.loads((artifact / "evidence" / "calibration.json").read_text())["activations"]
    assert {"uint8", "int8", "float8e4m3fn"} == set(ranges[0]["ranges"])
    assert sum(ranges[0]["counts"]) == 40 * 3 * 8 * 8
    assert "model.int8-trt.onnx" in (artifact / "report.html").read_text()
    modules = {item.record.file: item.record for item in read_evidence(artifact).of(ModulesReport)}
    assert {record.path: record.sha256 for record in manifest.files} == {
        file: record.file_sha256 for file, record in modules.items()
    }
    whole, small = (
        {module.path: module for module in modules[f"model.{precision}.onnx"].modules} for precision in ("fp32", "int8")
    )
    fc1 = "stages.0.blocks.0.mlp.fc1"
    assert whole[fc1].computes == {"fp32": 1}
    assert small[fc1].computes == {"int8": 1}
    assert whole[fc1].weights["fp32"] > 3 * small[fc1].weights["int8"] > 0


def test_the_same_inputs_give_the_same_bytes_whatever_is_made_beside(artifact, untouched, captured, images, tmp_path):
    api.quantize(artifact, options(images, "fp16", "int8"))
    once = onnx_bytes(artifact)
    api.quantize(artifact, options(images, "fp16", "int8"))
    assert onnx_bytes(artifact) == once, "with the cache"
    (artifact / CALIBRATION_CACHE).unlink()
    api.quantize(artifact, options(images, "int8"))
    api.quantize(artifact, options(images, "fp16"))
    assert onnx_bytes(artifact) == once, "one by one and without the cache"
    api.export(captured, tmp_path / "exported", precision=options(images, "int8", "fp16"))
    assert onnx_bytes(tmp_path / "exported") == once, "by export"
    assert (tmp_path / "exported" / CALIBRATION_CACHE).is_file()


def test_a_lone_file_says_what_it_is(artifact, images):
    api.quantize(artifact, options(images, "fp16", "int8", method="entropy"))
    for precision, method in (("fp16", "maxima"), ("int8", "entropy"), ("int8-trt", "entropy")):
        name = f"model.{precision}.onnx"
        told = json.loads(OnnxRuntimeEngine(artifact / name).metadata[METADATA_KEY])
        assert told["precision"] == precision
        assert told["calibration"]["files"] == [name]
        assert told["calibration"]["method"] == method
        assert {item["file"] for item in told["precision_exceptions"]} == {name}
    told = json.loads(OnnxRuntimeEngine(artifact / "model.fp32.onnx").metadata[METADATA_KEY])
    assert told["calibration"] is None


def test_float16_alone_measures_on_noise_where_there_is_no_data(captured, tmp_path, caplog):
    manifest = api.export(captured, tmp_path / "a", precision=api.PrecisionOptions(precisions=("fp16",))).manifest
    assert manifest.calibration.data == "seeded noise"
    assert "noise" in caplog.text
    assert not (tmp_path / "a" / CALIBRATION_CACHE).exists()


@pytest.mark.parametrize("method", ["entropy", "percentile", "mse"])
def test_every_method_works_and_differs(artifact, images, method):
    api.quantize(artifact, options(images, method="minmax"))
    minmax = (artifact / "model.int8.onnx").read_bytes()
    result = api.quantize(artifact, options(images, method=method))
    assert (artifact / "model.int8.onnx").read_bytes() != minmax
    assert result.manifest.calibration.method == method
    assert result.accuracy.rows[1].sqnr > 10


def test_half_io_gives_half_inputs_and_outputs(artifact, images):
    api.quantize(artifact, options(images, "fp16", "int8", half_io=True))
    for precision, dtype in (("fp16", "float16"), ("int8-trt", "float16"), ("int8", "float32")):
        engine = OnnxRuntimeEngine(artifact / f"model.{precision}.onnx")
        assert {info.dtype for info in (*engine.inputs, *engine.outputs)} == {dtype}


def test_parity_rounds_the_inputs_of_half_files_alone(artifact, captured, images):
    api.quantize(artifact, options(images, "fp16", half_io=True))
    files = [artifact / "model.fp16.onnx", artifact / "model.fp32.onnx"]
    alone = api.parity(captured, files[:1])[0]
    half, full = api.parity(captured, files)
    assert alone.outputs == half.outputs
    assert half.passed
    assert full.passed
    assert 0 < half.outputs[0].metrics.max_abs < 0.05
    assert full.outputs[0].metrics.max_abs < 1e-5, "the reference saw what float32 files see"


def batches():
    """Forty images as five batches."""
    random = np.random.default_rng(1)
    return [random.random((8, 3, 8, 8), np.float32) for _ in range(5)]


def test_a_generator_serves_for_ranges_and_scores(artifact, tmp_path):
    other = shutil.copytree(artifact, tmp_path / "other")
    result = api.quantize(artifact, options(({"input": batch} for batch in batches()), "int8"))
    assert result.accuracy.images == 40
    assert result.manifest.calibration.samples == 40
    assert result.manifest.calibration.data == "40 samples of a Python generator"
    array = api.quantize(other, options(np.concatenate(batches()), "int8"))
    assert array.manifest.calibration.sha256 == result.manifest.calibration.sha256
    assert [row.sqnr for row in array.accuracy.rows] == [row.sqnr for row in result.accuracy.rows]


class Dense:
    """A network whose output is a map."""

    @staticmethod
    def source():
        import torch

        torch.manual_seed(0)
        layers = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(16, 8, 1))
        return api.from_module(layers.eval(), (torch.rand(2, 3, 8, 8),), name="dense")


def test_maps_are_quantized_without_a_score_unless_there_is_a_metric(tmp_path, caplog):
    api.export(api.capture(Dense.source()), tmp_path / "dense")
    result = api.quantize(tmp_path / "dense", options(iter(batches()), "fp16", "int8"))
    assert "not scored" in caplog.text
    assert (result.accuracy.metric, result.accuracy.output, result.accuracy.images) == ("", "", 40)
    assert [row.score for row in result.accuracy.rows] == [None] * 4
    # How near a file is to float32 needs no labels.
    for row in result.accuracy.rows[1:]:
        (map_,), (on_noise,) = row.outputs, row.on_noise
        assert map_.metrics.elements == 40 * 8 * 8 * 8
        assert on_noise.metrics.elements == 16 * 8 * 8 * 8
        assert row.sqnr == map_.metrics.sqnr > 15
        # Ranges that were measured on something else clip noise.
        assert 3 < on_noise.metrics.sqnr < map_.metrics.sqnr
    assert [file.precision for file in result.manifest.files] == ["fp32", "fp16", "int8", "int8-trt"]
    saved = json.loads(next((tmp_path / "dense" / "evidence").glob("accuracy-*.json")).read_text())
    assert saved["rows"][2]["outputs"][0]["metrics"]["sqnr"] == result.accuracy.rows[2].sqnr
    for asked in ({"max_drop": 1.0}, {"eval_data": batches()}):
        with pytest.raises(DataError, match="no list of scores"):
            api.quantize(tmp_path / "dense", options(iter(batches()), **asked))
    result = api.quantize(tmp_path / "dense", options(iter(batches()), metric=lambda engine: 50.0))
    assert [row.score for row in result.accuracy.rows] == [50.0] * 3


class TwoHeads(torch.nn.Module):
    """A map and two lists of scores."""

    def __init__(self):
        super().__init__()
        self.body, self.a, self.b = torch.nn.Conv2d(3, 16, 3), torch.nn.Linear(16, 4), torch.nn.Linear(16, 6)

    def forward(self, x):
        maps = torch.relu(self.body(x))
        return maps, self.a(maps.mean((2, 3))), self.b(maps.mean((2, 3)))


def test_the_first_list_of_scores_is_scored_or_the_one_that_is_named(tmp_path):
    torch.manual_seed(0)
    module = api.from_module(TwoHeads().eval(), (torch.rand(2, 3, 8, 8),), name="heads")
    names = [info.name for info in api.export(module, tmp_path / "heads").manifest.outputs]
    data = list(batches())
    first = api.quantize(tmp_path / "heads", options(iter(data), "fp16")).accuracy
    assert first.output == names[1]
    assert [output.name for output in first.rows[1].outputs] == names
    assert [output.ranks is not None for output in first.rows[1].outputs] == [False, True, True]
    chosen = api.quantize(tmp_path / "heads", options(iter(data), "fp16", score_output=names[2])).accuracy
    assert chosen.output == names[2]
    assert chosen.rows[1].sqnr == chosen.rows[1].outputs[2].metrics.sqnr != first.rows[1].sqnr
    with pytest.raises(DataError, match=f"the output {names[0]} is .* no list of scores"):
        api.quantize(tmp_path / "heads", options(iter(data), "fp16", score_output=names[0]))
    with pytest.raises(InputError, match=r"no output 'logits'") as caught:
        api.quantize(tmp_path / "heads", options(iter(data), "fp16", score_output="logits"))
    assert names[0] in caught.value.fix
    # A metric gets all of them, unless one is chosen.
    seen = []
    for output in (None, names[0]):
        metric = OutputMetric("boxes", lambda outputs, labels: seen.append((outputs, labels)) or 50.0)
        told = api.quantize(tmp_path / "heads", options(iter(data), "fp16", score_output=output, metric=metric))
        assert (told.accuracy.metric, told.accuracy.rows[1].score) == ("boxes", 50.0)
    assert list(seen[0][0]) == names
    assert seen[-1][0].shape == (40, 16, 6, 6)
    assert seen[-1][1] is None


class Masked(torch.nn.Module):
    """Attention with a causal mask of -inf."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.full((16, 16), float("-inf")).triu(1))
        self.query, self.head = torch.nn.Linear(32, 32), torch.nn.Linear(32, 10)

    def forward(self, x):
        query = self.query(x)
        return self.head(torch.softmax(query @ query.transpose(1, 2) + self.mask, -1) @ query).mean(1)


def test_a_network_with_an_infinite_mask_is_made_in_every_precision(tmp_path):
    torch.manual_seed(0)
    network = Masked().eval()
    data = np.random.default_rng(0).normal(size=(40, 16, 32)).astype(np.float32)
    source = api.from_module(network, torch.zeros(2, 16, 32))
    result = api.export(source, tmp_path / "out", precision=options(data, "fp16", "int8"))
    with torch.no_grad():
        expected = network(torch.from_numpy(data)).numpy()
    for file in ("fp32", "fp16", "int8"):
        engine = OnnxRuntimeEngine(result.file(file), threads=1)
        (found,) = engine.run({engine.inputs[0].name: data}).values()
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        assert error < {"fp32": 1e-5, "fp16": 2e-3, "int8": 0.05}[file], file
    constants = [value.const_value.numpy() for value in ir.load(result.file("fp16")).graph.initializers.values()]
    assert [array.dtype for array in constants if array.dtype.kind == "f" and np.isinf(array).any()] == [np.float16]
    noise = api.export(source, tmp_path / "noise", precision=api.PrecisionOptions(precisions=("fp16",)))
    assert noise.file("fp16").is_file()


def test_excluded_layers_and_reduced_ranges_reach_the_files(artifact, images):
    result = api.quantize(artifact, options(images, exclude=("mlp",), reduce_range=True))
    told = {item.layer for item in result.manifest.precision_exceptions if "--exclude mlp" in item.reason}
    assert told
    assert all("mlp" in layer for layer in told)
    weights = [
        value.const_value.numpy()
        for value in ir.load(artifact / "model.int8.onnx").graph.initializers.values()
        if str(value.name).endswith(".quantized") and value.dtype == ir.DataType.INT8
    ]
    assert max(int(np.abs(array.astype(int)).max()) for array in weights) == 63
    assert has_reduced_range(ir.load(artifact / "model.int8.onnx"))
    assert result.accuracy.processor == processor()
