"""Files and lines that options take: limits, lines of trtexec, shapes, settings, lists of images."""

from __future__ import annotations

import contextlib
from pathlib import Path

from fuzzing import Reader
from mutating import json_text, words

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.cli.options import parse_settings
from s2mlp_deploy.cli.serve import _token
from s2mlp_deploy.engines.profiles import make_profiles, parse_shapes
from s2mlp_deploy.engines.tensorrt.options import parse_size
from s2mlp_deploy.engines.tensorrt.trtexec import line_of, parse_line
from s2mlp_deploy.errors import S2MLPDeployError
from s2mlp_deploy.models.registry import configure, get_model
from s2mlp_deploy.precision.limits import read_limits
from s2mlp_deploy.sources.factory import _value
from s2mlp_deploy.sources.onnx_file import _size_of

_INPUTS = (TensorInfo("x", "float32", ("batch", 3, "height", 4)), TensorInfo("y", "int64", (2,)))


def _limits(data: bytes, folder: Path) -> None:
    path = folder / "limits.json"
    path.write_bytes(data)
    read_limits(path).of("int8-trt")


def _trtexec(data: bytes, folder: Path) -> None:
    built = parse_line(data.decode("utf-8", "replace"))
    make_profiles(_INPUTS, built.min_shapes, built.opt_shapes, built.max_shapes)
    line_of(built.onnx, folder / "x.engine", (), built.options)


def _shapes(data: bytes, folder: Path) -> None:
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(S2MLPDeployError):
        parse_size(text)
    found = parse_shapes(text)
    make_profiles(_INPUTS, [], [found], [])


def _settings(data: bytes, folder: Path) -> None:
    given = parse_settings(data.decode("utf-8", "replace").split(" "))
    for name, value in given.items():
        _value(value)
        with contextlib.suppress(S2MLPDeployError):
            _size_of(name, value, folder)
    configure(get_model("s2mlpv2_nano").config, given).parameters()


def _secret(data: bytes, folder: Path) -> None:
    path = folder / "token"
    path.write_bytes(data)
    _token(path)


_OPTIONS = (
    *("--onnx=net.onnx", "--saveEngine=x.engine", "--fp16", "--int8", "--best", "--minShapes=x:1x3x4x4"),
    *("--optShapes=x:2x3x4x4", "--maxShapes='x':8x3x8x4", "--shapes=x:1x3x4x4", "--profile=1", "--workspace=64"),
    *("--memPoolSize=workspace:64M", "--builderOptimizationLevel=3", "--timingCacheFile=t", "--device=0", "--verbose"),
    *(
        "--stripAllWeights",
        "--versionCompatible",
        "--sparsity=enable",
        "--tacticSources=+CUBLAS",
        "--noTF32",
        "--refit",
    ),
    *("--hardwareCompatibilityLevel=ampere+", "--maxAuxStreams=2", "--calib=x", "--iterations=9", "trtexec", "--"),
)
_FIELDS = (
    *("classes=37", "image_size=32,32", "dims=[8,16]", "depths=1,2", "layout=channels-first", "dropout=0.5"),
    *("expansion=3", "directions=a", "image_size=[[[", "patches=7", "border=keep", "=", "attention_ratio=1e999"),
)
READERS = (
    Reader("options/limits", _limits, json_text, leaves=frozenset({"limits.json"})),
    Reader("options/trtexec", _trtexec, words(_OPTIONS), leaves=frozenset()),
    Reader(
        "options/shapes", _shapes, words(("x:1x3x4x4", "y:2", "x:[1,3,4,4],y:[2]", "1G", "64M", "0.5G")), largest=1024
    ),
    Reader("options/settings", _settings, words(_FIELDS), largest=4096),
    Reader("options/token", _secret, largest=1024, leaves=frozenset({"token"})),
)


def seeds() -> dict[str, dict[str, bytes]]:
    """By reader and name the files to begin with."""
    line = "trtexec --onnx=net.onnx --saveEngine=x.engine --fp16 --minShapes=x:1x3x4x4 --maxShapes=x:8x3x8x4"
    return {
        "options/limits": {
            "both": b'{"min_cosine": 0.99, "int8": {"max_drop": 0.5, "min_top1": 70}, "fp16": {"max_drop": 0}}'
        },
        "options/trtexec": {"line": line.encode()},
        "options/shapes": {"two": b"x:1x3x224x4,y:[2]", "size": b"64M"},
        "options/settings": {"some": b"classes=37 image_size=32,32 depths=[1,2]"},
        "options/token": {"hex": b"6f2d\n"},
    }
