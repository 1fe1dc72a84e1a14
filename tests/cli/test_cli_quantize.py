"""``quantize`` and ``export --precision`` on the command line: what they print, and every bad input."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_speed
import nano_artifact
import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")
import tiny_network  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from s2mlp_deploy.artifact import CALIBRATION_CACHE, read_manifest, verify_file  # noqa: E402
from s2mlp_deploy.evidence.accuracy import AccuracyReport  # noqa: E402
from s2mlp_deploy.files import sha256_of, to_json  # noqa: E402
from s2mlp_deploy.gpu import gpus  # noqa: E402

SETTINGS = ("dims=8", "depths=1", "patches=2", "image_size=8,8", "classes=3")
TINY = ("s2mlpv2_nano", *(part for setting in SETTINGS for part in ("--set", setting)))


def put_images(root, count=12, classes=3, content=None):
    random = np.random.default_rng(0)
    for index in range(count):
        path = root / str(index % classes) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (8, 8, 3), np.uint8) if content is None else content
        Image.fromarray(pixels).save(path)
    return root


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return put_images(tmp_path_factory.mktemp("images") / "data ü")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    from s2mlp_deploy import api
    from s2mlp_deploy.cli.options import parse_settings

    path = tmp_path_factory.mktemp("original") / "artifact"
    api.export(TINY[0], path, overrides=parse_settings(list(SETTINGS)))
    return path


@pytest.fixture
def artifact(original, tmp_path):
    return shutil.copytree(original, tmp_path / "an artifact")


@pytest.fixture
def no_quantize(refused, artifact):
    """Runs a quantize that must be refused and leave the artifact as it was, to the byte."""

    def run(*arguments, directory=artifact):
        before = nano_artifact.snapshot(directory)
        text = refused("quantize", directory, *arguments)
        assert nano_artifact.snapshot(directory) == before, "the artifact was changed"
        return text

    return run


def test_quantize_adds_files_and_prints_the_scores(cli, artifact, images):
    result = cli("quantize", artifact, "--data", images, "--precision", "fp16", "--precision", "int8")
    assert result.code == 0, result.err
    for said in ("top-1 accuracy", "model.fp32.onnx", "model.fp16.onnx", "model.int8.onnx", "model.int8-trt.onnx"):
        assert said in result.out
    for record in read_manifest(artifact).files:
        verify_file(artifact, record)


def test_json_is_one_document(cli, artifact, images):
    result = cli("quantize", artifact, "--data", images, "--json")
    assert result.code == 0, result.err
    told = json.loads(result.out)
    assert [file["precision"] for file in told["manifest"]["files"]] == ["fp32", "int8", "int8-trt"]
    assert told["accuracy"]["images"] == 12


def test_export_with_a_precision_is_quantize_in_one_go(cli, artifact, images, tmp_path):
    out = tmp_path / "at once"
    precisions = ("--precision", "int8", "--precision", "fp32")
    result = cli("export", *TINY, "-o", out, *precisions, "--calibration-data", images, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["accuracy"]["images"] == 12
    assert cli("quantize", artifact, "--data", images).code == 0
    for name in ("model.fp32.onnx", "model.int8.onnx", "model.int8-trt.onnx"):
        assert (out / name).read_bytes() == (artifact / name).read_bytes()


# Speed


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
    assert cli("export", *TINY, "-o", tmp_path / "slow", *given).code == 1
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
    text = refused("export", *TINY, "-o", tmp_path / "new", "--min-speedup", "2")
    assert "--min-speedup is given, and no file that is asked for uses it" in text


# Data


def test_no_data_at_all(no_quantize, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "empty" in no_quantize("--data", tmp_path / "empty")
    assert "nothing" in no_quantize("--data", tmp_path / "nothing")
    assert "--data" in no_quantize()


def test_too_few_images(no_quantize, tmp_path):
    text = no_quantize("--data", put_images(tmp_path / "few", 3))
    assert "only 3" in text
    assert "at least 8" in text


def test_a_wrong_number_of_channels_is_told(no_quantize, tmp_path):
    np.save(tmp_path / "grey.npy", np.random.default_rng(0).normal(size=(12, 1, 8, 8)).astype(np.float32))
    text = no_quantize("--data", tmp_path / "grey.npy")
    assert "[1, 8, 8]" in text
    assert "[3, 8, 8]" in text


def test_labels_beyond_the_classes(no_quantize, tmp_path):
    text = no_quantize("--data", put_images(tmp_path / "many", 15, 5))
    assert "the label 4, and the model has 3 classes" in text


def test_classes_of_other_names(refused, original, images, tmp_path):
    manifest = json.loads((original / "manifest.json").read_text())
    directory = shutil.copytree(original, tmp_path / "named")
    (directory / "manifest.json").write_bytes(to_json(manifest | {"classes": ["cat", "dog", "hen"]}))
    data = put_images(tmp_path / "cows")
    (data / "0").rename(data / "cow")
    before = nano_artifact.snapshot(directory)
    assert "cow" in refused("quantize", directory, "--data", data)
    assert nano_artifact.snapshot(directory) == before


def test_black_images_have_no_range(no_quantize, tmp_path):
    text = no_quantize("--data", put_images(tmp_path / "black", content=np.zeros((8, 8, 3), np.uint8)))
    assert "all 12 samples are equal" in text
    # Also where the files differ: in their size, here.
    for index, path in enumerate(sorted((tmp_path / "black").rglob("*.png"))):
        Image.new("RGB", (20 + index, 30)).save(path)
    assert "all 12 samples are equal" in no_quantize("--data", tmp_path / "black")


def test_the_first_tensor_that_is_not_finite_is_named(no_quantize, cli, images, tmp_path):
    from s2mlp_deploy import api
    from s2mlp_deploy.cli.options import parse_settings

    weights = dict(api.load(TINY[0], overrides=parse_settings(list(SETTINGS))).module.state_dict())
    name = next(key for key in weights if key.endswith("mlp.fc1.weight") and "stages.0" in key)
    # The weights are finite; their products are not.
    weights[name] = torch.full_like(weights[name], 3e38)
    save_file(weights, tmp_path / "w.safetensors")
    directory = tmp_path / "hot"
    assert cli("export", *TINY, "--checkpoint", tmp_path / "w.safetensors", "-o", directory).code == 0
    text = no_quantize("--data", images, directory=directory)
    assert "is NaN or infinite on the calibration data, the first tensor that is" in text
    assert "stages.0.blocks.0.mlp.fc1/Gemm" in text


# Graphs

ELEMENTWISE = """
import torch

class Curve(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.gelu(x).mean((2, 3))

def curve():
    return Curve().eval(), torch.zeros(2, 3, 8, 8)
"""


def test_a_model_with_nothing_to_quantize(no_quantize, cli, refused, tmp_path):
    (tmp_path / "curve.py").write_text(ELEMENTWISE)
    data = tmp_path / "data.npy"
    np.save(data, np.random.default_rng(0).normal(size=(12, 3, 8, 8)).astype(np.float32))
    source, directory = f"{tmp_path / 'curve.py'}:curve", tmp_path / "curve"
    exported = cli("export", source, "-o", directory)
    assert exported.code == 0, exported.err
    assert "no GEMM or convolution" in no_quantize("--data", data, directory=directory)
    out = tmp_path / "never"
    assert "no GEMM or convolution" in refused(
        "export", source, "-o", out, "--precision", "int8", "--calibration-data", data
    )
    assert not out.exists()
    # float16 needs no products.
    assert cli("quantize", directory, "--data", data, "--precision", "fp16").code == 0


def test_a_file_that_is_quantized_already(no_quantize, artifact, cli, images):
    assert cli("quantize", artifact, "--data", images).code == 0
    shutil.copy(artifact / "model.int8.onnx", artifact / "model.fp32.onnx")
    manifest = json.loads((artifact / "manifest.json").read_text())
    manifest["files"][0]["sha256"] = sha256_of(artifact / "model.fp32.onnx")
    (artifact / "manifest.json").write_bytes(to_json(manifest))
    text = no_quantize("--data", images)
    assert "quantized already" in text


def test_a_changed_float32_file_and_no_artifact(no_quantize, artifact, images, tmp_path):
    model = onnx.load(artifact / "model.fp32.onnx")
    model.doc_string = "changed"
    onnx.save(model, artifact / "model.fp32.onnx")
    assert "not the one its manifest describes" in no_quantize("--data", images)
    (tmp_path / "nothing").mkdir()
    assert "not an artifact" in no_quantize("--data", images, directory=tmp_path / "nothing")


def test_a_cache_of_another_graph_or_of_nothing(no_quantize, cli, artifact, images, tmp_path):
    other = tmp_path / "other"
    assert cli("export", *TINY, "--seed", 9, "-o", other, "--precision", "int8", "--calibration-data", images).code == 0
    text = no_quantize("--data", images, "--calibration-cache", other / CALIBRATION_CACHE)
    assert "another graph" in text
    assert "--calibration-cache" in text
    (tmp_path / "broken.npz").write_bytes(b"broken")
    assert "not a calibration cache" in no_quantize("--data", images, "--calibration-cache", tmp_path / "broken.npz")


# Options


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--precision", "int4"), ("int4", "int8 or fp8")),
        (("--precision", "fp32"), ("fp32 is there already",)),
        (("--method", "average"), ("average", "minmax, entropy, percentile or mse")),
        (("--max-drop", "-1"), ("--max-drop is -1", "0 to 100")),
        (("--max-drop", "101"), ("--max-drop is 101", "0 to 100")),
        (("--max-drop", "nan"), ("--max-drop is nan", "0 to 100")),
        (("--max-drop", "much"), ("--max-drop",)),
        (("--samples", "0"), ("--samples",)),
        (("--eval-samples", "-3"), ("--eval-samples",)),
        (("--eval-data", "no such place"), ("no such place",)),
        (("--seed", "-1"), ("--seed",)),
    ],
)
def test_options_that_cannot_be(no_quantize, images, arguments, says):
    text = no_quantize("--data", images, *arguments)
    assert all(said in text for said in says)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--precision", "int8"), ("need data", "--calibration-data")),
        (("--precision", "fp8"), ("need data", "--calibration-data")),
        (("--precision", "int4"), ("int4", "int8 or fp8")),
        (("--precision", "int8", "--opset", "18", "--calibration-data", "x"), ("opset 18", "--opset 19")),
        (("--precision", "int8", "--calibration-data", "no such place"), ("no such place",)),
        (("--method", "average"), ("average",)),
    ],
)
def test_exports_that_cannot_be_leave_nothing(refused, tmp_path, arguments, says):
    place = tmp_path / "place"
    place.mkdir()
    text = refused("export", *TINY, "-o", place / "deep" / "artifact", *arguments)
    assert all(said in text for said in says)
    assert list(place.iterdir()) == []


def test_a_budget_that_cannot_be_kept_is_a_failed_check(cli, images, tmp_path):
    from s2mlp_deploy import api
    from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine

    artifact = tmp_path / "artifact"
    api.export(TINY[0], artifact, overrides=tiny_network.TINY)
    # Images between two classes, labelled so that float32 is always right; any rounding makes some of them wrong.
    feeds = np.random.default_rng(0).uniform(-1, 1, (20_000, 3, 8, 8)).astype(np.float32)
    (scores,) = OnnxRuntimeEngine(artifact / "model.fp32.onnx").run({"input": feeds}).values()
    first = np.sort(scores, axis=1)
    close = np.argsort(first[:, -1] - first[:, -2])[:300]
    np.savez(tmp_path / "close.npz", input=feeds[close], labels=scores[close].argmax(axis=1))
    before = nano_artifact.snapshot(artifact)
    result = cli("quantize", artifact, "--data", images, "--eval-data", tmp_path / "close.npz", "--max-drop", "0")
    after = nano_artifact.snapshot(artifact)
    assert result.code == 1, result.err
    assert "no graph with a quantized layer was found within 0 points" in result.text
    assert "--max-drop" in result.text
    # What was measured is good for another try.
    assert after.pop(CALIBRATION_CACHE)
    assert after == before


# Killed

CHILD = """
import sys
from s2mlp_deploy import api
from s2mlp_deploy.precision import convert
convert.batch_for = lambda values: 1
print("ready", flush=True)
while True:
    api.quantize(sys.argv[1], api.PrecisionOptions(precisions=["fp16", "int8"], data=sys.argv[2], threads=1,
                                                   method=sys.argv[3]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_an_artifact_stays_valid_whenever_quantize_is_ended(artifact, images, sent):
    from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine

    env = os.environ | {"PYTHONPATH": nano_artifact.PACKAGE_ROOT, "OMP_NUM_THREADS": "1"}
    chance = np.random.default_rng(0)
    for turn in range(12):
        arguments = [artifact, images, ("minmax", "mse")[turn % 2]]
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, *map(str, arguments)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert child.stdout.readline() == b"ready\n"
        time.sleep(float(chance.uniform(0, 4)))
        child.send_signal(sent)
        child.wait()
        for record in read_manifest(artifact).files:
            OnnxRuntimeEngine(verify_file(artifact, record))
    from s2mlp_deploy import api

    api.quantize(artifact, api.PrecisionOptions(precisions=["int8"], data=images))
    assert list(artifact.rglob(".*")) == [], "what was abandoned stays"


def test_a_file_that_loses_tens_of_points_ends_with_1_without_a_budget(cli, artifact, images, monkeypatch):
    monkeypatch.setattr(AccuracyReport, "drop", lambda self, row: 35.5 if row.precision == "int8" else 0.0)
    result = cli("quantize", artifact, "--data", images)
    assert result.code == 1
    assert "model.int8.onnx (35.5)" in result.text
    assert "--max-drop" in result.text
    assert "Written into" in result.out


# Floors and metrics

CLOSENESS = """
import numpy as np

def spread(outputs, labels):
    assert labels.shape == outputs.shape[:1]
    return float(np.ptp(outputs))
"""


def test_a_file_below_a_floor_ends_with_1_and_is_named(cli, artifact, images, tmp_path):
    (tmp_path / "limits.json").write_text('{"int8-trt": {"min_cosine": 1}, "min_cosine": 0.5}')
    limits = ("--limits", tmp_path / "limits.json")
    result = cli("quantize", artifact, "--data", images, *limits, "--json")
    assert result.code == 1
    assert "model.int8-trt.onnx: output 'logits': cosine 0." in result.text
    assert "model.int8.onnx" not in result.text
    # It was written, and its evidence says the same.
    rows = json.loads(result.out)["accuracy"]["rows"]
    assert [bool(row["failures"]) for row in rows] == [False, False, True]
    assert rows == json.loads(next((artifact / "evidence").glob("accuracy-*.json")).read_text())["rows"]
    assert rows[1]["outputs"][0]["metrics"]["sqnr"] == rows[1]["sqnr"] > 10
    assert "cosine 0." in (artifact / "report.html").read_text()
    result = cli("quantize", artifact, "--data", images, "--min-top1", "100")
    assert result.code == 1
    assert "model.int8.onnx: top-1" in result.text
    assert "< 100 %" in result.text
    assert cli("quantize", artifact, "--data", images, *limits, "--min-cosine", "0.5").code == 0


def test_a_metric_of_ones_own_scores_the_files(cli, artifact, images, tmp_path, no_quantize):
    (tmp_path / "own.py").write_text(CLOSENESS)
    metric = ("--metric", f"{tmp_path / 'own.py'}:spread")
    result = cli("quantize", artifact, "--data", images, *metric, "--score-output", "logits", "--json")
    assert result.code == 0, result.err
    told = json.loads(result.out)["accuracy"]
    assert (told["metric"], told["output"]) == ("spread", "logits")
    assert 0 < told["rows"][0]["score"] == pytest.approx(told["rows"][1]["score"], rel=0.2)
    assert "no output 'boxes'" in no_quantize("--data", images, "--score-output", "boxes")
    assert "has no function 'spred'" in no_quantize("--data", images, "--metric", f"{tmp_path / 'own.py'}:spred")
    assert "'min_cos' is no limit" in no_quantize("--data", images, "--limits", limits_with(tmp_path, "min_cos"))
    assert "no top-1 score" in no_quantize("--data", images, *metric, "--min-top1", "1")


def limits_with(folder, name):
    (folder / "slip.json").write_text(json.dumps({name: 1}))
    return folder / "slip.json"


@pytest.fixture
def vendor(original, tmp_path, monkeypatch):
    """A folder with a file of somebody's that takes images, and what quantizing it needs."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(original, "made")
    model = onnx.load("made/model.fp32.onnx")
    del model.metadata_props[:]
    onnx.save(model, "vendor.onnx")
    put_images(tmp_path / "images")
    (tmp_path / "pre.json").write_text('{"size": [8, 8], "mean": [0, 0, 0], "std": [1, 1, 1]}')
    return ("quantize", "vendor.onnx", "--data", "images", "--preprocess", "pre.json")


def test_an_onnx_file_becomes_an_artifact_with_quantized_files(cli, refused, vendor):
    result = cli(*vendor, "--output", "out", "--set", "batch=1", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["accuracy"]["rows"]
    manifest = read_manifest(Path("out"))
    assert [record.precision for record in manifest.files] == ["fp32", "int8", "int8-trt"]
    assert manifest.preprocessing["size"] == [8, 8]
    assert manifest.inputs[0].shape[0] == 1
    result = cli("parity", "vendor.onnx", "out", "--data", "images")  # The artifact knows the preprocessing.
    assert result.code == 0, result.err
    # What is quantized is told as such.
    text = refused("quantize", "out/model.int8.onnx", *vendor[2:], "--output", "other")
    assert "computes in int8 already" in text
    assert not Path("other").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--output DIR"),
        (("--output", "made"), "already holds an artifact"),
        (("--output", "out", "--precision", "fp32"), "fp32 is there already"),
        (("--output", "out", "--set", "batch=0"), "--set batch=1"),
        (("--output", "out", "--set", "height=8"), "no free size called 'height'"),
    ],
)
def test_an_onnx_file_is_refused_with_the_way_out(refused, vendor, arguments, said):
    assert said in refused(*vendor, *arguments)
    assert not Path("out").exists()


def test_what_is_of_onnx_files_is_refused_of_artifacts(refused, vendor):
    text = refused("quantize", "made", *vendor[2:], "--output", "out")
    assert "leave --output and --preprocess out" in text
    assert "quantize made is for the artifact" in refused("quantize", "made/model.fp32.onnx", *vendor[2:])
