"""The page for those who come from trtexec: every command on it is run, in its order, on a small file of somebody's."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import onnx_graphs
import pytest
import typer
from onnx_graphs import FLOAT, constant, node, value
from PIL import Image

from s2mlp_deploy.cli.main import app

pytest.importorskip("torch")
pytest.importorskip("tensorrt_rtx")

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "trtexec.md").read_text(encoding="utf-8")
LINES = dict(re.findall(r"```bash\n# trtexec (.*?)\n(.*?)```", PAGE, re.DOTALL))
ON_GPU = "# on the GPU"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network of images, images, and a description of their preprocessing."""
    folder, random = tmp_path_factory.mktemp("trtexec"), np.random.default_rng(0)
    shapes = {"stem": (64, 3, 32, 32), "fc": (64, 64), "head": (64, 10)}
    weights = [constant(name, random.normal(0, 0.05, shape).astype(np.float32)) for name, shape in shapes.items()]
    model = onnx_graphs.model(
        [
            node("Conv", ["image", "stem"], ["c"], "/stem/Conv", strides=[32, 32]),
            node("Reshape", ["c", "sizes"], ["r"], "/Reshape"),
            node("Transpose", ["r"], ["t"], "/Transpose", perm=[0, 2, 1]),
            node("MatMul", ["t", "fc"], ["a"], "/fc/MatMul"),
            node("Relu", ["a"], ["b"], "/act/Relu"),
            node("ReduceMean", ["b", "axes"], ["m"], "/ReduceMean", keepdims=0),
            node("MatMul", ["m", "head"], ["scores"], "/head/MatMul"),
        ],
        [value("image", FLOAT, ["batch", 3, 224, 224])],
        [value("scores", FLOAT, ["batch", 10])],
        [*weights, constant("sizes", [0, 64, 49]), constant("axes", [1])],
    )
    onnx_graphs.save(model, folder / "vendor.onnx")
    (folder / "images").mkdir()
    for index in range(8):
        Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"images/{index}.png")
    (folder / "pre.json").write_text(json.dumps({"size": [224, 224], "mean": [0.5] * 3, "std": [0.25] * 3}))
    return folder


@pytest.mark.parametrize("line", LINES)
def test_what_a_line_becomes_can_be_typed(cli, place, monkeypatch, line):
    monkeypatch.chdir(place)
    for command in LINES[line].replace("\\\n", " ").splitlines():
        with monkeypatch.context() as patch:
            words = shlex.split(command, comments=True)
            assert words[0] == "s2mlp-deploy"
            if ON_GPU in command:  # Parsed alone.
                patch.setattr(type(typer.main.get_command(app).commands[words[1]]), "invoke", lambda *_: None)
                assert all(Path(word).is_file() for word in words[2:])
            result = cli(*words[1:])
        assert result.code == 0, (command, result.err)


def test_no_option_that_lost_its_meaning_is_missing():
    for option in ("--fp16", "--int8", "--calib", "--best", "--layerPrecisions", "--minShapes", "--saveEngine"):
        assert any(option in line for line in LINES), option


def test_engines_compute_in_what_the_lines_ask_for(cli, place, monkeypatch):
    """Of the lines before."""
    monkeypatch.chdir(place)

    def precisions(engine, part=""):
        result = cli("inspect", engine, "--json")
        assert result.code == 0, result.err
        ops = json.loads(result.out)["record"]["contents"]["matrix_ops"]
        return {op["precision"] for op in ops if part in op["name"]}

    if not (place / "vendor.engine").exists():
        pytest.skip("the lines were not run")
    assert precisions("vendor.engine") == {"fp16"}
    assert "int8" in precisions("vendor.int8.engine")
    assert precisions("mixed/model.fp16.tensorrt-rtx.sm89.engine", "head") == {"fp32"}
