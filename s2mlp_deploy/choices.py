"""What options may be: names that commands, the API and the rooms behind them share, and defaults for ``--help``.

No table of implementations is imported here, so that a command line can show choices without torch or onnx. Tests hold
each type equal to the table that it names.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

ShiftFormName: TypeAlias = Literal["auto", "slice-concat", "pad-slice", "grouped-conv", "gather", "row-gather"]
"""How shifts are written: a name of ``s2mlp_deploy.export.forms.FORMS``, or ``auto``, which counts costs per shift."""

Layout: TypeAlias = Literal["auto", "as-is", "channels-last", "channels-first"]
"""Inner layout of a zoo model; ``as-is`` is its own, ``auto`` what ``tune`` found on this machine, and else that."""

DynamicAxis: TypeAlias = Literal["batch", "depth", "height", "width"]
"""An axis of inputs [N, C, H, W] or [N, C, D, H, W] that may be dynamic; of others only the batch."""

OnHazard: TypeAlias = Literal["warn", "error"]
"""What to do about a race: export its functional meaning with a warning, or refuse."""

Precision: TypeAlias = Literal["fp32", "fp16", "int8", "fp8"]
"""What files are asked for; int8 becomes two files, one placed for ONNX Runtime and one for TensorRT."""

RequiredPrecision: TypeAlias = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
"""What an engine's GEMMs and convolutions must compute in."""

CalibrationMethod: TypeAlias = Literal["minmax", "entropy", "percentile", "mse"]
"""How a range is chosen from a histogram."""

EngineName: TypeAlias = Literal["tensorrt-rtx", "tensorrt", "openvino", "onnxruntime"]
"""What ``build`` builds for."""

GRAPH_ENGINE = "onnxruntime"
"""What runs ONNX files where no engine is named."""

Scenario: TypeAlias = Literal["single-stream", "offline", "server"]
"""What ``bench`` measures, by the names of MLPerf Inference."""

EnginePool: TypeAlias = Literal["process", "ray"]
"""Who runs engines side by side: processes of this machine, or actors of Ray."""

PackageFormat: TypeAlias = Literal["triton", "docker", "kserve"]
"""What ``package`` writes."""

HardwareCompatibility: TypeAlias = Literal["none", "ampere+", "same-compute-capability"]
"""Which GPUs a TensorRT engine runs on besides its own."""

ProfilingVerbosity: TypeAlias = Literal["detailed", "layer_names_only", "none"]
"""How much of each layer stays in an engine, by trtexec's names."""

CALIBRATION_METHOD: CalibrationMethod = "percentile"
"""How ranges are chosen by default. On CIFAR-10 symmetric int8 agrees with float32 on 99.0 % of the images with it and
on 98.5 % with MinMax; uint8 on 99.2 % with either (``benchmarks/accuracy.md``). It gives up one value in 100,000: what
the outliers of a few images are worth."""
CALIBRATION_SAMPLES = 512
"""Samples that ranges are measured on."""

MIN_SAMPLES = 8
"""Fewest samples that ranges are measured on, and files scored on.

With fewer the largest activation depends on the image more than on the network. Accuracy asks for some hundreds.
"""

EVAL_SAMPLES = 1000
"""Samples that files are scored on."""
