"""What arguments, files and the loaded model show to be wrong is refused before the model is captured."""

from __future__ import annotations

import io
import re
import sys
import threading
import time

import numpy as np
import pytest
from image_artifact import picture, write_image_artifact
from PIL import Image
from plain_artifact import write_data, write_plain

pytest.importorskip("torch")

MODELS = """
import torch
from torch import nn

class Two(nn.Module):
    def forward(self, image, age):
        return image.mean((2, 3)) + age

class One(nn.Module):
    def forward(self, image):
        return image.mean((2, 3))

def two():
    return Two(), (torch.zeros(2, 3, 8, 8), torch.zeros(2, 3))

def one():
    return One(), torch.zeros(2, 3, 8, 8)

class Map(nn.Module):
    def forward(self, image):
        return image + 1

def maps():
    return Map(), torch.zeros(2, 3, 8, 8)

def tokens():
    return nn.Linear(8, 4), torch.zeros(2, 5, 8)
"""
PREPROCESS = '{"size": [%s, %s], "mean": [0, 0, 0], "std": [1, 1, 1]}'


class StartedError(BaseException):
    """The work began: not caught on the way, as an Exception would be."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("early")
    (folder / "models.py").write_text(MODELS)
    (folder / "8.json").write_text(PREPROCESS % (8, 8))
    (folder / "9.json").write_text(PREPROCESS % (9, 9))
    (folder / "file").write_text("mine")
    for name, count in (("images", 8), ("few", 3), ("empty", 0)):
        (folder / name).mkdir()
        for index in range(count):
            Image.fromarray(picture("red")).save(folder / name / f"{index}.png")
    np.savez(folder / "wrong.npz", image=np.zeros((9, 7), np.float32))
    write_data(folder / "tokens.npy")
    write_plain(folder / "artifact")
    write_image_artifact(folder / "pictures")
    write_image_artifact(folder / "undescribed", preprocessing=None)
    return folder


@pytest.fixture
def early(refused, monkeypatch, place):
    """Runs a command in that place; it must be refused before anything is captured, measured or built."""
    import torch

    from s2mlp_deploy.api import exporting, quantizing
    from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
    from s2mlp_deploy.engines.tensorrt import library

    def started(*_, **__):
        raise StartedError

    monkeypatch.setattr(torch.export, "export", started)
    monkeypatch.setattr(OnnxRuntimeEngine, "run", started)
    monkeypatch.setattr(library, "load", started)
    for module in (exporting, quantizing):
        monkeypatch.setattr(module, "convert", started)
    monkeypatch.chdir(place)
    return refused


ONE, TWO, TOKENS = "models.py:one", "models.py:two", "models.py:tokens"
INT8, EIGHT = ("--precision", "int8"), ("--preprocess", "8.json")


def export(source, *options):
    return ("export", source, "-o", "out", *options)


def data(path):
    return ("--calibration-data", path)


def _name(part):
    return part if isinstance(part, str) else " ".join(part)


BEFORE_LOADING = [
    (export(ONE, *INT8, *data("nowhere")), "does not exist"),
    (export(ONE, *INT8, *data("empty")), "no image"),
    (export(ONE, *INT8, *data("few")), "only 3 samples"),
    (export(ONE, *INT8, *data("images"), "--eval-data", "nowhere"), "does not exist"),
    (export(ONE, *INT8, *data("images"), "--eval-data", "few"), "only 3 samples"),
    (export(ONE, *INT8), "need data"),
    (export(ONE, *INT8, *data("images"), "--exclude-op", "Softmax"), "excludes nothing"),
    (export(ONE, *INT8, *data("images"), "--exclude", "a("), "no regular expression"),
    (export(ONE, *INT8, *data("images"), "--max-drop", "200"), "percentage points"),
    (export(ONE, "--max-drop", "1"), "--max-drop is given"),
    (export(ONE, *INT8, *data("images"), "--calibration-cache", "file/c.npz"), "c.npz cannot be written"),
    (export(ONE, *INT8, *data("images"), "--opset", "18"), "--opset 19"),
    (export(ONE, "--precision", "int7"), "int7"),
    (("export", ONE, "-o", "file"), "is a file"),
    (("export", ONE, "-o", "file/out"), "cannot be written"),
    (("export", ONE, "-o", "artifact"), "already holds an artifact"),
    (export("models.py:one", "--checkpoint", "nothing.pt"), "no such checkpoint"),
    (export("nothing.py:one"), "no such file"),
    (export("s2mlpv2_nan"), "did you mean s2mlpv2_nano"),
    (export(ONE, "--preprocess", "nothing.json"), "cannot be read"),
    (("inspect", "s2mlpv2_nan"), "did you mean s2mlpv2_nano"),
    (("inspect", "nothing.py:one"), "no such file"),
    (("inspect", "nothing.onnx"), "no such ONNX file"),
    (("inspect", ONE, "--checkpoint", "nothing.pt"), "no such checkpoint"),
    (("parity", ONE, "nothing.onnx"), "no such file"),
    (("parity", ONE, "pictures/model.fp32.onnx", "--data", "nowhere"), "does not exist"),
    (("parity", ONE, "pictures/model.fp32.onnx", "--data", "empty"), "no image"),
    (("parity", "s2mlpv2_nan", "pictures/model.fp32.onnx"), "did you mean s2mlpv2_nano"),
    (("quantize", "artifact", "--data", "nowhere"), "does not exist"),
    (("quantize", "artifact", "--data", "tokens.npy", "--eval-data", "nowhere.npy"), "does not exist"),
    (("quantize", "artifact", "--data", "images"), "no preprocessing"),
    (("quantize", "undescribed", "--data", "images"), "no preprocessing"),
    (("quantize", "pictures", "--data", "images", "--eval-data", "wrong.npz"), "shape"),
    (("quantize", "empty", "--data", "images"), "not an artifact"),
    (("build", "nothing.onnx", "--target", "sm89"), "no such ONNX file"),
    (("build", "artifact/model.fp32.onnx", "--target", "sm1"), "sm1"),
    (("build", "file", "--target", "sm89"), "ONNX"),
    (("demo", "--images", "nowhere"), "does not exist"),
    (("demo", "--images", "few"), "only 3 samples"),
    (("demo", "-o", "file"), "file"),
]
ONCE_LOADED = [
    (export(TWO, *INT8, *data("images"), *EIGHT), "2 inputs"),
    (export(TWO, "--with-preprocessing", *EIGHT), "2 inputs"),
    (export(ONE, "--with-preprocessing"), "no preprocessing is configured"),
    (export(ONE, "--with-preprocessing", "--preprocess", "9.json"), "the preprocessing makes"),
    (export(TOKENS, "--with-preprocessing", *EIGHT), "no float image"),
    (export(ONE, *INT8, *data("images")), "no preprocessing"),
    (export(ONE, *INT8, *data("images"), "--preprocess", "9.json"), "shape"),
    (export("models.py:maps", *INT8, *data("images"), *EIGHT, "--max-drop", "1"), "no output is a list of scores"),
    (export("models.py:maps", *INT8, *data("images"), *EIGHT, "--eval-data", "images"), "per image they are [3, 8, 8]"),
    (("parity", TWO, "pictures/model.fp32.onnx"), "number of inputs differs"),
    (("parity", TOKENS, "pictures/model.fp32.onnx"), "the inputs differ"),
    (("parity", ONE, "undescribed/model.fp32.onnx", "--data", "images"), "no preprocessing"),
    (("parity", ONE, "pictures/model.fp32.onnx", "--data", "wrong.npz"), "shape"),
]


@pytest.mark.parametrize(("arguments", "says"), BEFORE_LOADING, ids=_name)
def test_it_is_refused_before_a_model_is_loaded(early, monkeypatch, place, arguments, says):
    from s2mlp_deploy.sources import factory, zoo

    def started(*_, **__):
        raise StartedError

    monkeypatch.setattr(factory, "load_factory", started)
    monkeypatch.setattr(zoo, "load_zoo", started)
    before = sorted(place.rglob("*"))
    assert says in early(*arguments)
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(("arguments", "says"), ONCE_LOADED, ids=_name)
def test_it_is_refused_before_the_model_is_captured(early, place, arguments, says):
    assert says in early(*arguments)
    assert not (place / "out").exists()


def test_the_work_would_have_begun(early):
    with pytest.raises(StartedError):
        early(*export(ONE))


@pytest.mark.parametrize(
    "arguments",
    [
        export(ONE, *INT8, *data("nowhere")),
        ("export", ONE, "-o", "artifact"),
        ("parity", ONE, "nothing.onnx"),
        ("inspect", "nothing.py:one"),
        ("quantize", "artifact", "--data", "nowhere"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_it_is_refused_without_waiting_for_torch(process, place, arguments):
    result = process(*arguments, blocked=("torch", "onnx", "onnx_ir", "onnxscript"), cwd=place)
    assert result.code == 2
    assert "not installed" not in result.err
    assert "fix:" in result.err


def test_a_long_step_is_told_every_few_seconds_where_there_is_no_terminal(monkeypatch):
    from s2mlp_deploy.cli import console

    monkeypatch.setattr(console, "_EVERY", 0.02)
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())

    def twice(line):
        until = time.monotonic() + 30
        while not (seen := re.findall(rf"^{line} \(\d+ s\)\n", stream.getvalue(), re.MULTILINE)[1:]):
            assert time.monotonic() < until, stream.getvalue()
            time.sleep(0.01)
        return seen

    with console.progress() as report:
        report("capturing the model", 0, None)
        assert twice("capturing the model")
        report("calibrating\x1b", 3, 8)
        assert twice(re.escape("calibrating\\x1b, 3 of 8"))
    told = stream.getvalue().splitlines()
    time.sleep(0.1)
    assert stream.getvalue().splitlines() == told


def test_progress_ends_with_its_command_and_survives_a_closed_stderr(monkeypatch):
    from s2mlp_deploy.cli import console

    monkeypatch.setattr(console, "_EVERY", 0.01)
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    with console.progress() as report:
        report("capturing the model", 0, None)
        time.sleep(0.05)
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]
