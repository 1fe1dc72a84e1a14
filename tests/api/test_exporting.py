"""Exporting: options that come too late are refused, and what can be refused is refused before anything is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from PIL import Image
from tiny_network import TINY

from s2mlp_deploy import api
from s2mlp_deploy.api import capturing, exporting, inspecting_sources
from s2mlp_deploy.artifact import TensorInfo, read_manifest
from s2mlp_deploy.errors import DataError, InputError, OutputError, PreprocessingError, S2MLPDeployError
from s2mlp_deploy.preprocess import Preprocessing


@pytest.fixture(scope="module")
def source():
    return api.load("s2mlpv2_nano", overrides=TINY)


@pytest.fixture(scope="module")
def captured(source):
    return api.capture(source)


LOADING = {"checkpoint": "weights.safetensors", "overrides": {"classes": 5}, "preprocess": "p.json", "seed": 0}
CAPTURING = {"opset": 20, "dynamic": ("batch",), "on_hazard": "warn"}


@pytest.mark.parametrize(("name", "value"), [*LOADING.items(), *CAPTURING.items()])
def test_an_option_of_a_step_that_is_done_is_refused_even_at_its_default(captured, tmp_path, name, value):
    with pytest.raises(InputError, match=rf"already, so {name} can no longer change") as caught:
        api.export(captured, tmp_path / "out", **{name: value})
    assert f"give {name} to api.{'load' if name in LOADING else 'capture'}(...)" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_mapping_is_not_given(captured, tmp_path):
    assert api.export(captured, tmp_path / "out", overrides={}).manifest.classes is None
    assert api.inspect_source(captured, overrides={}) == api.inspect_source(captured)


@pytest.mark.parametrize(("name", "value"), LOADING.items())
def test_a_loaded_source_takes_options_of_capturing_only(source, tmp_path, name, value):
    with pytest.raises(InputError, match=f"the source is loaded already, so {name}"):
        api.export(source, tmp_path / "out", **{name: value})


def test_a_loaded_source_is_captured_as_asked(source, tmp_path):
    exported = api.export(source, tmp_path / "out", opset=19, dynamic=(), on_hazard="error")
    shown = exported._repr_mimebundle_()["text/plain"]
    assert "RANDOM (seed 0)" in shown, "a notebook shows what the terminal does"
    assert "model.fp32.onnx" in shown
    assert exported.manifest.opset == 19
    assert exported.manifest.inputs[0].shape[0] == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [("checkpoint", "w.pt"), ("overrides", {"classes": 5}), ("preprocess", "p.json"), ("dynamic", ("batch",))],
)
def test_inspecting_a_captured_source_refuses_them_too(captured, name, value):
    with pytest.raises(InputError, match=f"{name} can no longer change"):
        api.inspect_source(captured, **{name: value})


def test_a_source_is_inspected_by_name_loaded_or_captured(source, captured, monkeypatch):
    by_source = api.inspect_source(source)
    monkeypatch.setattr(inspecting_sources, "analyze", lambda *_, **__: pytest.fail("it was captured already"))
    assert api.inspect_source(captured) == by_source
    assert len(by_source.shifts) == len(captured.analysis.shifts)


def test_the_result_is_what_was_written(captured, tmp_path):
    result = api.export(captured, tmp_path / "out")
    assert result.directory == tmp_path / "out"
    assert result.manifest == read_manifest(tmp_path / "out")
    assert result.accuracy is None
    assert result.report.is_file()
    assert result.file("fp32") == tmp_path / "out" / "model.fp32.onnx"


def options(**changes) -> api.PrecisionOptions:
    return api.PrecisionOptions(**({"precisions": ["int8"], "samples": 8} | changes))


@pytest.fixture
def some(tmp_path) -> None:
    """Arrays in the working directory: enough of them, and too few."""
    for name, count in (("eight.npy", 8), ("few.npy", 7)):
        np.save(tmp_path / name, np.zeros((count, 3, 8, 8), np.float32))


BEFORE_LOADING = {
    "an unknown form": ({"shift_form": "diagonal"}, "diagonal"),
    "an opset that is too old": ({"opset": 9}, "opset"),
    "an unknown axis": ({"dynamic": ("time",)}, "time"),
    "an unknown policy": ({"on_hazard": "ignore"}, "ignore"),
    "free sizes of a graph that resizes": (
        {"with_preprocessing": True, "dynamic": ("height",)},
        "no free height and width",
    ),
    "int8 without data": ({"precision": options()}, "need data to measure ranges on"),
    "data that is not there": ({"precision": options(data="no such folder")}, "does not exist"),
    "data to score on that is not there": (
        {"precision": options(data="eight.npy", eval_data="no such folder")},
        "does not exist",
    ),
    "too little data": ({"precision": options(data="few.npy")}, "only 7 samples, at least 8"),
    "too little data to score on": (
        {"precision": options(data="eight.npy", eval_data="few.npy")},
        "only 7 samples, at least 8",
    ),
    "an unknown precision": ({"precision": options(precisions=["int3"])}, "int3"),
    "an unknown method": ({"precision": options(precisions=["fp16"], method="guess")}, "guess"),
    "a budget of 200 points": ({"precision": options(precisions=["fp16"], max_drop=200)}, "--max-drop is 200"),
    "no samples": ({"precision": options(precisions=["fp16"], samples=0)}, "--samples is 0"),
    "too few samples": ({"precision": options(data="eight.npy", samples=7)}, "--samples is 7"),
    "a precision that needs a newer opset": (
        {"precision": options(data="eight.npy"), "opset": 18},
        "cannot be written in opset 18",
    ),
}


@pytest.mark.parametrize("case", BEFORE_LOADING)
def test_what_the_arguments_alone_decide_is_refused_before_loading(tmp_path, monkeypatch, some, case):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(exporting, "load", lambda *_, **__: pytest.fail("it was loaded"))
    arguments, problem = BEFORE_LOADING[case]
    with pytest.raises(S2MLPDeployError, match=problem):
        api.export("s2mlpv2_nano", tmp_path / "out", **arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["eight.npy", "few.npy"]


def test_noise_fills_a_fixed_batch_of_a_graph_that_preprocesses(source):
    preprocessing = Preprocessing(size=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
    manifest = SimpleNamespace(preprocessing_in_graph=True, inputs=(TensorInfo("image", "uint8", (3, "h", "w", 3)),))
    batches = list(exporting._noise(replace(source, preprocessing=preprocessing), manifest, 0))
    assert [feeds["image"].shape for feeds, _ in batches] == [(3, 8, 8, 3)] * 6


def test_an_output_that_is_taken_is_refused_before_loading(captured, tmp_path, monkeypatch):
    api.export(captured, tmp_path / "out")
    monkeypatch.setattr(exporting, "load", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(S2MLPDeployError, match="already holds an artifact"):
        api.export("s2mlpv2_nano", tmp_path / "out")


def test_an_artifact_that_another_export_finishes_meanwhile_is_met(source, captured, tmp_path, monkeypatch):
    def load(*_, **__):
        api.export(captured, tmp_path / "out")
        return source

    monkeypatch.setattr(exporting, "load", load)
    monkeypatch.setattr(exporting, "capture", lambda *_, **__: pytest.fail("it was captured"))
    with pytest.raises(OutputError, match="finished here meanwhile by another export") as caught:
        api.export("s2mlpv2_nano", tmp_path / "out")
    assert "--force" in caught.value.fix


class Plain(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


@pytest.fixture
def never_captured(monkeypatch):
    monkeypatch.setattr(exporting, "capture", lambda *_, **__: pytest.fail("it was captured"))
    monkeypatch.setattr(capturing, "capture", lambda *_, **__: pytest.fail("it was captured"))


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(8):
        Image.fromarray(np.full((8, 8, 3), index * 30, np.uint8)).save(folder / f"{index}.png")
    return folder


def test_images_without_preprocessing_are_refused_before_capturing(tmp_path, images, never_captured):
    plain = api.from_module(Plain(), torch.ones(2, 3, 8, 8))
    with pytest.raises(PreprocessingError):
        api.export(plain, tmp_path / "out", precision=options(data=images))


def test_classes_that_do_not_fit_are_refused_before_capturing(source, tmp_path, never_captured):
    for name in ("cat", "cow"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (8, 8)).save(tmp_path / "data" / name / f"{index}.png")
    named = type(source)(**(vars(source) | {"classes": ("cat", "dog", "fox")}))
    with pytest.raises(DataError, match="cow"):
        api.export(named, tmp_path / "out", precision=options(data=tmp_path / "data"))


def test_a_preprocessing_that_is_not_configured_is_refused_before_capturing(tmp_path, never_captured):
    plain = api.from_module(Plain(), torch.ones(2, 3, 8, 8))
    with pytest.raises(PreprocessingError, match="no preprocessing is configured for this model"):
        api.export(plain, tmp_path / "out", with_preprocessing=True)


def test_data_that_cannot_be_read_is_told_as_such_and_nothing_is_written(captured, tmp_path):
    def items():
        yield np.zeros((8, 8, 3), np.uint8)
        raise FileNotFoundError(2, "No such file or directory", "/data/77.png")

    wanted = api.PrecisionOptions(precisions=("int8",), data=items())
    with pytest.raises(DataError, match=r"cannot be read: No such file or directory: /data/77.png") as caught:
        api.export(captured, tmp_path / "out", precision=wanted)
    assert caught.value.where == "<generator>/1"
    assert list(tmp_path.iterdir()) == []
