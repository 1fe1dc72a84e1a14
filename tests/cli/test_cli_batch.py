"""``batch`` on the command line: what is printed, and how it ends."""

from __future__ import annotations

import json

import numpy as np
import pytest
from image_artifact import write_image_artifact
from photographs import write_photographs

pytest.importorskip("onnxruntime")
pytest.importorskip("pyarrow")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_image_artifact(tmp_path / "a")
    write_photographs(tmp_path / "in", 6, broken=(2,))
    return tmp_path


def test_what_is_printed(cli, place):
    result = cli("batch", "in", "--model", "a", "--output", "out", "--workers", 1, "--chunk", 2)
    assert result.code == 0, result.err
    assert "5 of 6 images classified in out" in result.out
    assert "1 cannot be used" in result.out
    assert "images a second, model.fp32.onnx on onnxruntime, 1 worker" in result.out
    nothing_left = cli("batch", "in", "--model", "a", "--output", "out", "--workers", 1, "--chunk", 2)
    assert nothing_left.out.splitlines()[-1] == "model.fp32.onnx on onnxruntime, 1 worker"
    again = cli("batch", "in", "--model", "a", "--output", "out", "--workers", 1, "--chunk", 2, "--json")
    document = json.loads(again.out)
    assert (document["before"], document["classified"], document["broken"]) == (6, 5, 1)


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--max-broken", 1), 0, ""),
        (("--max-broken", 0), 1, "1 images cannot be used, and 0 are allowed"),
    ],
)
def test_a_limit_of_broken_images(cli, place, options, code, says):
    result = cli("batch", "in", "-m", "a", "-o", "out", "--workers", 1, *options)
    assert result.code == code
    assert says in result.text
    assert (place / "out" / "part-000000.parquet").exists()


def test_no_image_at_all_that_can_be_used_fails(cli, place):
    write_photographs(place / "bad", 2, broken=(0, 1))
    result = cli("batch", "bad", "-m", "a", "-o", "out", "--workers", 1)
    assert result.code == 1
    assert "no image could be used" in result.text


def test_numbers_that_are_not_finite_fail(cli, place):
    write_image_artifact(place / "nan", bias=np.float32([np.nan] * 4))
    result = cli("batch", "in", "-m", "nan", "-o", "out", "--workers", 1)
    assert result.code == 1
    assert "of 5 images the model says what is NaN or infinite" in result.text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nothing", "-m", "a", "-o", "out"), "no such file"),
        (("in", "-m", "in", "-o", "out"), "not an artifact"),
        (("in", "-m", "a", "-o", "in"), "among what is to be classified"),
        (("in", "-m", "a", "-o", ""), "-o is empty"),
        (("in", "-m", "a", "-o", "out", "--address", "auto"), "--engine-pool ray"),
        (("in", "-m", "a", "-o", "out", "--engine-pool", "threads"), "choose process or ray"),
        (("in", "-m", "a", "-o", "out", "--column", "image"), "leave --column out"),
        (("in", "-m", "a", "-o", "out", "--precision", "int8"), "no int8 file"),
        (("in", "-m", "a", "-o", "out", "--engine", "openvino:GPU"), "no device 'GPU' here"),
        (("in", "-m", "a", "-o", "out", "--engine", "onnxruntime:cuda"), "no cuda here"),
        (("in", "-m", "a", "-o", "new/out", "--batch", 10**30), "give a number from 1 to 2147483647"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(refused, place, arguments, says):
    before = sorted(place.rglob("*"))
    assert says in refused("batch", *arguments)
    assert sorted(place.rglob("*")) == before


def test_an_engine_that_is_not_here_is_told_before_images_are_looked_for(refused, place, monkeypatch):
    monkeypatch.setattr("s2mlp_deploy.serving.batch.run.open_input", lambda *_, **__: pytest.fail("it looks"))
    assert "no cuda here" in refused("batch", "in", "-m", "a", "-o", "out", "--engine", "onnxruntime:cuda")


def test_without_pyarrow_the_extra_is_named(process, place):
    result = process("batch", place / "in", "-m", place / "a", "-o", place / "out", blocked=("pyarrow",))
    assert result.code == 2
    assert "s2mlp-deploy[batch]" in result.err
