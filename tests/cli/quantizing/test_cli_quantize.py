"""What ``quantize`` and ``export --precision`` print and write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import nano_artifact
import numpy as np
import pytest
from tiny_network import SMALLER_SOURCE

from s2mlp_deploy.artifact import read_manifest, verify_file

pytest.importorskip("torch")


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
    result = cli("export", *SMALLER_SOURCE, "-o", out, *precisions, "--calibration-data", images, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["accuracy"]["images"] == 12
    assert cli("quantize", artifact, "--data", images).code == 0
    for name in ("model.fp32.onnx", "model.int8.onnx", "model.int8-trt.onnx"):
        assert (out / name).read_bytes() == (artifact / name).read_bytes()


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
