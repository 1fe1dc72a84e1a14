"""The file of an artifact that is meant for an engine."""

from __future__ import annotations

from typing import get_args

import pytest
from tiny_artifact import make_manifest

from s2mlp_deploy.artifact import FileRecord, file_for_engine, model_file
from s2mlp_deploy.artifact.engine_files import MADE
from s2mlp_deploy.choices import Precision
from s2mlp_deploy.errors import ArtifactError

ALL = ("fp32", "fp16", "int8", "int8-trt", "fp8-trt")


def chosen(engine, precision=None, there=ALL):
    files = tuple(FileRecord(model_file(name), name, "0" * 64, 1, 1) for name in there)
    beside = FileRecord("model.fp32.onnx.data", "fp32", "0" * 64, 1, 0)
    return file_for_engine(make_manifest(files=(beside, *files)), engine, precision).path


@pytest.mark.parametrize("engine", ["tensorrt", "tensorrt-rtx"])
def test_tensorrt_takes_the_fastest_file_that_is_placed_for_it(engine):
    assert chosen(engine) == "model.int8-trt.onnx"
    assert chosen(engine, there=("fp32", "fp16", "int8")) == "model.fp16.onnx"
    assert chosen(engine, there=("fp32", "int8")) == "model.fp32.onnx"
    # It needs a GPU that has it.
    assert chosen(engine, there=("fp32", "fp8-trt")) == "model.fp32.onnx"
    # Of an ONNX file that was taken as it is.
    assert chosen(engine, there=("int8",)) == "model.int8.onnx"


def test_onnx_runtime_takes_its_own_int8_and_no_float16():
    assert chosen("onnxruntime") == "model.int8.onnx"
    assert chosen("onnxruntime", there=("fp32", "fp16", "int8-trt")) == "model.fp32.onnx"


@pytest.mark.parametrize(
    ("precision", "file"), [("int8", "model.int8-trt.onnx"), ("fp8", "model.fp8-trt.onnx"), ("fp32", "model.fp32.onnx")]
)
def test_a_precision_that_is_asked_for_decides(precision, file):
    assert chosen("tensorrt-rtx", precision) == file


def test_a_precision_that_is_not_there_is_refused_with_what_is():
    with pytest.raises(ArtifactError, match=r"no fp16 file for tensorrt, only fp32 or int8[\s\S]*--precision fp16"):
        chosen("tensorrt", "fp16", there=("fp32", "int8"))
    # Which are precisions of a build, and none of an export.
    with pytest.raises(
        ArtifactError, match=r"no bf16 file[\s\S]*in bf16: export and quantize make fp32, fp16, int8 and"
    ):
        chosen("tensorrt", "bf16")
    with pytest.raises(ArtifactError, match=r"no int8-trt file[\s\S]*--precision int8$"):
        chosen("tensorrt", "int8-trt", there=("fp32", "fp16"))
    assert set(get_args(Precision)) == set(MADE)
