"""Adding files of other precisions to an artifact: same bytes every time, nothing lost, nothing half-written."""

from __future__ import annotations

import contextlib
import json
import logging
import resource
import shutil
from dataclasses import replace

import nano_artifact
import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("torch")
import torch
from PIL import Image

from s2mlp_deploy import api
from s2mlp_deploy.api import evidence, exporting, quantizing
from s2mlp_deploy.api.evidence import save_scores
from s2mlp_deploy.artifact import CALIBRATION_CACHE, METADATA_KEY, read_manifest, verify_file
from s2mlp_deploy.calibration import observe
from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
from s2mlp_deploy.errors import CheckFailedError, DataError, InputError, OutputError, QuantizationError
from s2mlp_deploy.evidence.accuracy import AccuracyReport
from s2mlp_deploy.evidence.store import read_record
from s2mlp_deploy.precision import convert
from s2mlp_deploy.processor import processor

TINY = {"dims": (8, 8), "depths": (1, 1), "patches": (2, 2), "image_size": (8, 8), "classes": 3}
FILES = {"fp16": 1, "int8": 2, "fp8": 1}


@pytest.fixture(scope="module")
def captured():
    import torch

    source = api.load("s2mlpv2_nano", overrides=TINY, seed=1)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for parameter in source.module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return api.capture(source)


@pytest.fixture(scope="module")
def untouched(captured, tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "artifact"
    api.export(captured, path)
    return path


@pytest.fixture
def artifact(untouched, tmp_path):
    return shutil.copytree(untouched, tmp_path / "artifact")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Forty images of three classes."""
    root, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for index in range(40):
        path = root / str(index % 3) / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    return root


def options(data, *precisions, **changes) -> api.PrecisionOptions:
    return api.PrecisionOptions(precisions=precisions or ("int8",), data=data, threads=1, **changes)


def onnx_bytes(directory) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.glob("*.onnx")}


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
    saved = json.loads((artifact / "evidence" / "accuracy.json").read_text())
    assert [row["file"] for row in saved["rows"]] == [row.file for row in accuracy.rows]
    assert all(len(row["worst"]) == 8 for row in saved["rows"][1:])
    assert saved["rows"][1]["worst"][0]["thumbnail"].startswith("data:image/png;base64,")
    ranges = json.loads((artifact / "evidence" / "calibration.json").read_text())["activations"]
    assert {"uint8", "int8", "float8e4m3fn"} == set(ranges[0]["ranges"])
    assert sum(ranges[0]["counts"]) == 40 * 3 * 8 * 8
    assert "model.int8-trt.onnx" in (artifact / "report.html").read_text()


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


def test_one_label_for_a_batch_is_refused(artifact):
    before = onnx_bytes(artifact)
    with pytest.raises(DataError, match="one label for a whole batch"):
        api.quantize(artifact, options(((batch, 0) for batch in batches()), "int8"))
    assert onnx_bytes(artifact) == before


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
    assert result.accuracy is None
    assert "not scored" in caplog.text
    assert [file.precision for file in result.manifest.files] == ["fp32", "fp16", "int8", "int8-trt"]
    assert not (tmp_path / "dense" / "evidence" / "accuracy.json").exists()
    for asked in ({"max_drop": 1.0}, {"eval_data": batches()}):
        with pytest.raises(DataError, match="no list of scores"):
            api.quantize(tmp_path / "dense", options(iter(batches()), **asked))
    result = api.quantize(tmp_path / "dense", options(iter(batches()), metric=lambda engine: 50.0))
    assert [row.score for row in result.accuracy.rows] == [50.0] * 3


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


# Cache and resuming


class Interrupting:
    """A progress that stops after so many samples."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.seen: list[int] = []

    def __call__(self, what: str, done: int, _total: int | None) -> None:
        if what == "calibrating":
            self.seen.append(done)
            if done >= self.after:
                raise KeyboardInterrupt


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(convert, "batch_for", lambda values: 4)


def test_an_interrupted_calibration_goes_on_where_it_was(artifact, images, small_batches, monkeypatch, tmp_path):
    once = api.quantize(artifact, options(images)).manifest
    expected = onnx_bytes(artifact)
    with np.load(artifact / CALIBRATION_CACHE) as stored:
        counts = stored["counts"]
    for precision in ("int8", "int8-trt"):
        (artifact / f"model.{precision}.onnx").unlink()
    (artifact / CALIBRATION_CACHE).unlink()
    before = nano_artifact.snapshot(artifact)
    with pytest.raises(KeyboardInterrupt):
        api.quantize(artifact, options(images), progress=Interrupting(12))
    cache = (artifact / CALIBRATION_CACHE).read_bytes()
    assert nano_artifact.snapshot(artifact) == before | {CALIBRATION_CACHE: cache}
    updates = []
    update = observe.Observer.update
    monkeypatch.setattr(
        observe.Observer, "update", lambda self, seen, feeds: updates.append(seen.samples) or update(self, seen, feeds)
    )
    again = api.quantize(artifact, options(images)).manifest
    assert updates == list(range(12, 40, 4))
    assert onnx_bytes(artifact) == expected
    assert again.files == once.files
    with np.load(artifact / CALIBRATION_CACHE) as stored:
        np.testing.assert_array_equal(stored["counts"], counts)
    api.quantize(artifact, options(images, method="mse"))
    assert len(updates) == 7, "a complete cache is not measured again"


def test_an_interrupt_within_a_batch_counts_none_of_it(artifact, images, small_batches, monkeypatch):
    api.quantize(artifact, options(images))
    expected = onnx_bytes(artifact)
    (artifact / CALIBRATION_CACHE).unlink()
    from s2mlp_deploy.calibration.histogram import Histogram

    update, calls = Histogram.update, []

    def interrupted(self, values):
        calls.append(1)
        if len(calls) == 20:
            raise KeyboardInterrupt
        update(self, values)

    with monkeypatch.context() as patch:
        patch.setattr(Histogram, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            api.quantize(artifact, options(images))
    with np.load(artifact / CALIBRATION_CACHE) as stored:
        # Of the second batch some histograms had been counted.
        assert int(stored["samples"]) == 4
    api.quantize(artifact, options(images))
    assert onnx_bytes(artifact) == expected


def test_other_data_is_measured_anew(artifact, images):
    api.quantize(artifact, options(images))
    first = (artifact / "model.int8.onnx").read_bytes()
    result = api.quantize(artifact, options(images, samples=16))
    assert result.manifest.calibration.samples == 16
    assert (artifact / "model.int8.onnx").read_bytes() != first


def test_a_cache_without_histograms_is_not_enough_for_int8(artifact, images):
    api.quantize(artifact, options(images, "fp16"))
    api.quantize(artifact, options(images, "int8"))
    assert (artifact / "model.int8.onnx").is_file()


def test_broken_images_are_reported_and_counted_with_and_without_the_cache(artifact, images, tmp_path, caplog):
    data = shutil.copytree(images, tmp_path / "data")
    (data / "1" / "broken.png").write_bytes(b"no image")
    for _ in range(2):
        caplog.clear()
        result = api.quantize(artifact, options(data))
        assert result.manifest.calibration.skipped == 1
        assert result.manifest.calibration.samples == 40
        files = onnx_bytes(artifact)
    assert onnx_bytes(artifact) == files
    (artifact / CALIBRATION_CACHE).unlink()
    with caplog.at_level(logging.WARNING):
        api.quantize(artifact, options(data))
    assert "1 broken images were skipped" in caplog.text


def test_duplicates_are_reported(artifact, images, tmp_path, caplog):
    data = shutil.copytree(images, tmp_path / "data")
    shutil.copy(data / "0" / "0.png", data / "0" / "again.png")
    result = api.quantize(artifact, options(data))
    assert result.manifest.calibration.duplicates == 1
    assert "1 of 41 samples are duplicates" in caplog.text


def test_a_cache_of_another_graph_is_refused_and_kept(artifact, images, tmp_path):
    api.quantize(artifact, options(images))
    other = tmp_path / "other"
    other_capture = api.capture(api.load("s2mlpv2_nano", overrides=TINY, seed=2))
    api.export(other_capture, other)
    cache = artifact / CALIBRATION_CACHE
    before, kept = nano_artifact.snapshot(other), cache.read_bytes()
    with pytest.raises(QuantizationError, match="another graph"):
        api.quantize(other, options(images, cache=cache))
    assert nano_artifact.snapshot(other) == before
    assert cache.read_bytes() == kept
    # One that a forced export finds in its place is of the artifact that it replaces.
    shutil.copy(cache, other / CALIBRATION_CACHE)
    api.export(other_capture, other, force=True, precision=options(images))
    assert (other / CALIBRATION_CACHE).read_bytes() != kept


# Scores and budgets


def closeness(artifact):
    """A metric: 100 less the relative error of the scores, in percent."""
    reference = OnnxRuntimeEngine(artifact / "model.fp32.onnx", threads=1)
    feeds = np.random.default_rng(5).uniform(-1.7, 2.2, (64, 3, 8, 8)).astype(np.float32)
    (expected,) = reference.run({"input": feeds}).values()

    def relative_error(engine) -> float:
        (found,) = engine.run({engine.inputs[0].name: feeds}).values()
        return 100.0 - 100 * float(np.linalg.norm(found - expected) / np.linalg.norm(expected))

    return relative_error


def test_a_budget_keeps_layers_and_lists_its_trials(artifact, images):
    metric = closeness(artifact)
    plain = {row.precision: row.score for row in api.quantize(artifact, options(images, metric=metric)).accuracy.rows}
    budget = (100 - min(plain["int8"], plain["int8-trt"])) * 0.7
    result = api.quantize(artifact, options(images, max_drop=budget, metric=metric))
    assert result.accuracy.metric == "relative_error"
    kept = []
    for precision in ("int8", "int8-trt"):
        search = result.accuracy.searches[precision]
        assert search.drop <= budget
        told = {
            item.layer
            for item in result.manifest.precision_exceptions
            if item.file == f"model.{precision}.onnx" and item.reason == "kept by the accuracy budget"
        }
        assert told == {layer.layer for layer in search.kept}
        kept += search.kept
        assert set(search.sqnr) == set(result.accuracy.sqnr[precision])
        (row,) = (row for row in result.accuracy.rows if row.precision == precision)
        assert row.score == pytest.approx(search.score)
    assert kept
    assert all(layer.gain > 0 for layer in kept)


def test_a_budget_that_cannot_be_kept_leaves_all_but_the_cache_as_it_was(artifact, images):
    before = nano_artifact.snapshot(artifact)
    with pytest.raises(CheckFailedError):
        api.quantize(artifact, options(images, max_drop=1e-6, metric=closeness(artifact)))
    after = nano_artifact.snapshot(artifact)
    # What was measured is good for another try.
    assert after.pop(CALIBRATION_CACHE)
    assert after == before


def test_labels_beyond_the_classes_are_refused_before_anything_is_measured(artifact, tmp_path):
    random = np.random.default_rng(0)
    path = tmp_path / "data.npz"
    np.savez(path, input=random.normal(size=(12, 3, 8, 8)).astype(np.float32), labels=np.arange(12))
    before = nano_artifact.snapshot(artifact)
    with pytest.raises(DataError, match="the label 11, and the model has 3 classes"):
        api.quantize(artifact, options(path))
    assert nano_artifact.snapshot(artifact) == before


def test_without_labels_agreement_is_the_score(artifact):
    data = np.random.default_rng(0).normal(size=(12, 3, 8, 8)).astype(np.float32)
    accuracy = api.quantize(artifact, options(data, "fp16")).accuracy
    assert accuracy.metric == "top-1 agreement with fp32"
    assert accuracy.rows[0].score == 100.0
    assert accuracy.rows[1].score == accuracy.rows[1].agreement


def test_scores_may_come_from_other_data(artifact, images):
    data = np.random.default_rng(0).normal(size=(12, 3, 8, 8)).astype(np.float32)
    result = api.quantize(artifact, options(data, "int8", eval_data=images, eval_samples=9))
    assert result.accuracy.metric == "top-1 accuracy"
    assert result.accuracy.images == 9
    assert result.manifest.calibration.samples == 12


# Refused


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"precisions": ("int4",)}, "int4"),
        ({"precisions": ("fp32",)}, "fp32 is there already"),
        ({"method": "average"}, "average"),
        ({"max_drop": -0.1}, "--max-drop"),
        ({"max_drop": 101.0}, "--max-drop"),
        ({"max_drop": float("nan")}, "--max-drop"),
        ({"samples": 0}, "--samples"),
        ({"eval_samples": 0}, "--eval-samples"),
        ({"data": None}, "data"),
    ],
)
def test_options_that_cannot_be_are_refused_before_the_artifact_is_looked_at(tmp_path, changes, says):
    given = replace(options("nothing"), **changes)
    with pytest.raises(InputError, match=says):
        api.quantize(tmp_path / "no artifact", given)


def test_an_opset_without_float16_scales_is_refused_early(captured, tmp_path, images):
    source = api.load("s2mlpv2_nano", overrides=TINY)
    with pytest.raises(InputError, match="opset 18"):
        api.export(source, tmp_path / "a", opset=18, precision=options(images))
    assert not (tmp_path / "a").exists()


def test_export_refuses_missing_data_before_it_captures(tmp_path, monkeypatch):
    def fail(*_args, **_options):
        pytest.fail("captured first")

    monkeypatch.setattr(exporting, "capture", fail)
    source = api.load("s2mlpv2_nano", overrides=TINY)
    with pytest.raises(DataError, match="does not exist"):
        api.export(source, tmp_path / "a", precision=options(tmp_path / "nowhere"))
    assert not (tmp_path / "a").exists()


def test_an_exclusion_of_nothing_is_refused_before_anything_is_measured(artifact, images, monkeypatch):
    monkeypatch.setattr(observe.Observer, "update", lambda *_args: pytest.fail("measured first"))
    with pytest.raises(InputError, match="--exclude 'decoder' excludes nothing"):
        api.quantize(artifact, options(images, exclude=("decoder",)))
    # It is in the graph, and never quantized.
    with pytest.raises(InputError, match="--exclude-op LayerNormalization excludes nothing"):
        api.quantize(artifact, options(images, exclude_ops=("LayerNormalization",)))


def test_a_cache_that_cannot_be_used_is_refused_before_anything_is_scored(artifact, images, tmp_path, monkeypatch):
    (tmp_path / "cache.npz").write_bytes(b"no cache")
    monkeypatch.setattr(convert, "Scorer", lambda *_args, **_options: pytest.fail("scored first"))
    with pytest.raises(QuantizationError, match="not a calibration cache"):
        api.quantize(artifact, options(images, cache=tmp_path / "cache.npz"))


def test_a_precision_that_cannot_be_made_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(observe.Observer, "update", lambda *_args: pytest.fail("measured first"))
    layers = torch.nn.Sequential(torch.nn.Conv2d(16, 16, 3), torch.nn.Flatten(), torch.nn.Linear(16 * 36, 4)).eval()
    source = api.from_module(layers, torch.zeros(2, 16, 8, 8))
    data = np.random.default_rng(0).normal(size=(12, 16, 8, 8)).astype(np.float32)
    with pytest.raises(QuantizationError, match="that fp8 would speed up"):
        api.export(source, tmp_path / "out", precision=options(data, "int8", "fp8"))
    assert list(tmp_path.iterdir()) == []


def test_a_budget_finer_than_an_image_is_warned_of(artifact, images, caplog):
    api.quantize(artifact, options(images, max_drop=2.4))
    assert "--max-drop 2.4 is finer than 40 images can tell: each is worth 2.5 points" in caplog.text
    caplog.clear()
    api.quantize(artifact, options(images, max_drop=2.5))
    assert "finer" not in caplog.text


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
    assert result.accuracy.processor == processor()


def test_two_quantizations_at_once_keep_each_others_files(artifact, images):
    def other(what: str, _done: int, _total: int | None) -> None:
        if what == "writing files":
            api.quantize(artifact, options(images, "fp16"))

    api.quantize(artifact, options(images, "int8"), progress=other)
    manifest = read_manifest(artifact)
    assert {file.precision for file in manifest.files} == {"fp32", "fp16", "int8", "int8-trt"}
    assert "model.fp16.onnx" in {item.file for item in manifest.precision_exceptions}
    for record in manifest.files:
        verify_file(artifact, record)


def test_files_of_a_model_that_was_replaced_meanwhile_are_not_added(artifact, images):
    def other(what: str, _done: int, _total: int | None) -> None:
        if what == "writing files":
            api.export(api.load("s2mlpv2_nano", overrides=TINY, seed=5), artifact, force=True)

    with pytest.raises(OutputError, match="replaced meanwhile") as caught:
        api.quantize(artifact, options(images, "int8"), progress=other)
    assert "run quantize again" in str(caught.value)
    manifest = read_manifest(artifact)
    assert [file.precision for file in manifest.files] == ["fp32"]
    verify_file(artifact, manifest.files[0])
    assert [path.name for path in artifact.glob("*.onnx")] == ["model.fp32.onnx"]


def test_a_manifest_that_is_old_by_now_loses_no_scores(artifact, images):
    """The scores are merged by the manifest on the disk: another command may have renewed it since."""
    fp16 = api.quantize(artifact, options(images, "fp16"))
    converted = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantizing, "save_scores", lambda *given: converted.append(given) or fp16.accuracy)
        api.quantize(artifact, options(images, "int8"))
    root, manifest, ranges, measured = converted[0]
    old = replace(manifest, files=tuple(file for file in manifest.files if file.precision != "fp16"))
    saved = save_scores(root, old, ranges, measured)
    assert [row.precision for row in saved.rows] == ["fp32", "int8", "int8-trt", "fp16"]
    assert read_record(artifact, AccuracyReport) == saved


def test_evidence_is_saved_under_the_artifacts_lock(artifact, monkeypatch):
    held = []

    @contextlib.contextmanager
    def lock(directory):
        held.append(directory)
        yield
        held.clear()

    monkeypatch.setattr(evidence, "lock_artifact", lock)
    monkeypatch.setattr(evidence, "save_record", lambda *_: held or pytest.fail("no lock"))
    monkeypatch.setattr(evidence, "write_report", lambda *_: held or pytest.fail("no lock"))
    evidence.save_evidence(artifact, object())
    assert held == []


def test_scores_on_other_samples_of_the_same_number_are_not_mixed(artifact, tmp_path):
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "v.npy", random.standard_normal((12, 3, 8, 8)).astype(np.float32))
    api.quantize(artifact, options(tmp_path / "a" / "v.npy", "int8"))
    rows = api.quantize(artifact, options(tmp_path / "b" / "v.npy", "fp16")).accuracy.rows
    assert [row.precision for row in rows] == ["fp32", "fp16"]


def test_float16_alone_leaves_the_calibration_of_quantized_files(artifact, images):
    first = api.quantize(artifact, options(images, "fp16", "int8")).manifest.calibration
    saved = (artifact / "evidence" / "calibration.json").read_bytes()
    second = api.quantize(artifact, options(images, "fp16", samples=16)).manifest.calibration
    assert second == replace(first, files=("model.int8.onnx", "model.int8-trt.onnx"))
    assert (artifact / "evidence" / "calibration.json").read_bytes() == saved
    told = json.loads(OnnxRuntimeEngine(artifact / "model.fp16.onnx").metadata[METADATA_KEY])
    assert told["calibration"]["samples"] == 16


def test_a_full_disk_while_adding_files_leaves_the_artifact_as_it_was(artifact, images):
    api.quantize(artifact, options(images))
    before = nano_artifact.snapshot(artifact)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(what: str, _done: int, _total: int | None) -> None:
        if what == "writing files":
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))

    try:
        with pytest.raises(OutputError):
            api.quantize(artifact, options(images, method="entropy"), progress=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert nano_artifact.snapshot(artifact) == before
