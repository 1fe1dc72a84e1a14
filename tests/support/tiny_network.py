"""A network of a few thousand weights, and its artifact's files in other precisions."""

from __future__ import annotations

import functools
from pathlib import Path

from s2mlp_deploy import api

TINY = {"dims": (8, 8), "depths": (1, 1), "patches": (2, 2), "image_size": (8, 8), "classes": 3}
"""Overrides of s2mlpv2_nano."""
SMALLER = TINY | {"dims": (8,), "depths": (1,), "patches": (2,)}
SMALLER_SOURCE = (
    "s2mlpv2_nano",
    *("--set", "dims=8", "--set", "depths=1", "--set", "patches=2", "--set", "image_size=8,8", "--set", "classes=3"),
)
"""The smaller one on the command line."""


@functools.cache
def another() -> api.CapturedSource:
    """Another network for images of that size, captured once per test run."""
    return api.capture(api.load("s2mlpv2_nano", overrides=SMALLER))


def options(data: object, *precisions: str, **changes: object) -> api.PrecisionOptions:
    """Options for int8, or for the precisions that are named."""
    return api.PrecisionOptions(precisions=precisions or ("int8",), data=data, threads=1, **changes)


def onnx_bytes(directory: Path) -> dict[str, bytes]:
    """What every ONNX file of an artifact holds, by name."""
    return {path.name: path.read_bytes() for path in directory.glob("*.onnx")}
