"""What is told of a source before anything is loaded, on the command line and in Python alike."""

from __future__ import annotations

import pytest

from s2mlp_deploy.errors import SourceError
from s2mlp_deploy.sources.reference import check_source

pytest.importorskip("torch")
from s2mlp_deploy import api
from s2mlp_deploy.sources.factory import _served_name


@pytest.mark.parametrize("refuse", [check_source, api.load])
@pytest.mark.parametrize(
    ("name", "says", "fix"),
    [
        (
            "w.safetensors",
            "weights alone are no model",
            "the network that they are of, then --checkpoint w.safetensors",
        ),
        ("told.safetensors", "weights alone", "their network: s2mlpv2_nano --checkpoint told.safetensors"),
        ("wrong.pth", "weights alone", "then --checkpoint wrong.pth"),
        ("not there.ckpt", "weights alone", "--checkpoint 'not there.ckpt'"),
        ("text.txt", "a .txt file is no model", "--checkpoint"),
        (".", "a folder is no model", "model.onnx"),
        ("nope.onnx", "no such file", "check the path"),
        ("s2mlpv2_nan", "unknown model", "did you mean s2mlpv2_nano"),
        ("x" * 300, "unknown model", "choose one of"),
        ("x" * 300 + ".pt", "weights alone", "--checkpoint xxx"),
        ("x" * 300 + ".onnx", "no such file", "check the path"),
    ],
)
def test_what_is_no_source_is_told_with_what_is(tmp_path, monkeypatch, refuse, name, says, fix):
    monkeypatch.chdir(tmp_path)
    for file in ("w.safetensors", "told.safetensors", "wrong.pth", "text.txt"):
        (tmp_path / file).touch()
    (tmp_path / "told.json").write_text('{"architecture": "s2mlpv2_nano"}')
    (tmp_path / "wrong.json").write_text("{")
    with pytest.raises(SourceError, match=says) as caught:
        refuse(name)
    assert fix in (caught.value.fix or "")


@pytest.mark.parametrize(
    ("place", "function", "name"),
    [
        ("nets/detector.py", "make", "detector"),
        ("detector.py", "build_model", "detector"),
        ("package.detector", "make", "detector"),
        ("detector.py", "small", "small"),
        ("torchvision.models", "resnet18", "resnet18"),
        ("detector.py", "Net", "detector"),
        ("detector.py", "Detector", "Detector"),
    ],
)
def test_a_function_that_is_called_as_all_are_gives_way_to_its_file(place, function, name):
    assert _served_name(place, function) == name
