"""The layers of small networks and of their graphs, compared."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from s2mlp_deploy import api
from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.engines.torch import TorchEngine
from s2mlp_deploy.parity.layers import Layers, compare_layers
from s2mlp_deploy.parity.program_taps import TappedProgram


def program_of(capture: api.CapturedSource) -> tuple[TappedProgram, TorchEngine]:
    """The program of a capture, each of its lines the same, and an engine that runs it."""
    program = TappedProgram(capture.analysis.captured.program.module(check_guards=False), lambda _: "net.py:1")
    names = capture.analysis.captured
    inputs = tuple(TensorInfo(name, "float32", ("batch",)) for name in names.input_names)
    outputs = tuple(TensorInfo(name, "float32", ("batch",)) for name in names.output_names)
    return program, TorchEngine(program, capture.source.example_inputs, inputs, outputs)


def layers_of(capture: api.CapturedSource, model: ir.Model, feeds: dict[str, np.ndarray], **options: object) -> Layers:
    """What leaves the layers of a graph beside what leaves those of the program that it was captured from."""
    program, engine = program_of(capture)
    return compare_layers(program, engine, {"file": model}, [(feeds, None)], splits=True, **options)["file"]
