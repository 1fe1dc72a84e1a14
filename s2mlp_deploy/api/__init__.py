"""The Python API: every command is one of these functions.

Importing this package imports no torch, no onnx and no runtime. A name is looked up in :data:`_HOMES` at its first use
(PEP 562): the packages that its module needs are checked, the module is imported, and the name is kept. So the modules
behind this door import what they need at their top, and what is not installed is told here, with the extra that has it.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from s2mlp_deploy.errors import MissingDependencyError
from s2mlp_deploy.evidence.notebook import Shown, draw_records_with

if TYPE_CHECKING:
    from s2mlp_deploy.api.against_file import layers_against_file, parity_against_file
    from s2mlp_deploy.api.batching import batch
    from s2mlp_deploy.api.benchmarking import bench, read_profile, save_bench, save_bench_csv
    from s2mlp_deploy.api.capturing import CapturedSource, analyze, capture
    from s2mlp_deploy.api.comparing import parity
    from s2mlp_deploy.api.cutting import engine_pieces
    from s2mlp_deploy.api.diagnosing import Diagnosis, diagnose
    from s2mlp_deploy.api.diffing import diff, save_difference
    from s2mlp_deploy.api.diffing_layers import diff_layers
    from s2mlp_deploy.api.engines import EngineInspection, Health, build, doctor, inspect_engine, optimize, preflight
    from s2mlp_deploy.api.exporting import ExportResult, export
    from s2mlp_deploy.api.inspecting_artifacts import ArtifactInspection, inspect_artifact, read_evidence
    from s2mlp_deploy.api.inspecting_files import FileInspection, inspect_file
    from s2mlp_deploy.api.inspecting_layers import inspect_json, keep_layers
    from s2mlp_deploy.api.inspecting_sources import SourceInspection, inspect_graph, inspect_source
    from s2mlp_deploy.api.layering import parity_per_layer
    from s2mlp_deploy.api.metrics import load_metric
    from s2mlp_deploy.api.packaging import package
    from s2mlp_deploy.api.pieces import EnginePieces, judge_pieces
    from s2mlp_deploy.api.predicting import predict
    from s2mlp_deploy.api.quantizing import Quantized, quantize
    from s2mlp_deploy.api.reporting import WrittenReport, report
    from s2mlp_deploy.api.saved_layers import rejudge_layers
    from s2mlp_deploy.api.serving import serve
    from s2mlp_deploy.api.sources import from_module, load
    from s2mlp_deploy.api.trtexec import read_trtexec, write_trtexec
    from s2mlp_deploy.api.tune_options import TuneOptions
    from s2mlp_deploy.api.tuning import tune
    from s2mlp_deploy.api.zoo import models
    from s2mlp_deploy.artifact import (
        FileRecord,
        Hazard,
        Manifest,
        ShiftRecord,
        SourceInfo,
        TensorInfo,
        read_manifest,
    )
    from s2mlp_deploy.bench.options import BenchOptions
    from s2mlp_deploy.choices import (
        CALIBRATION_METHOD,
        CALIBRATION_SAMPLES,
        EVAL_SAMPLES,
        CalibrationMethod,
        DynamicAxis,
        EngineName,
        HardwareCompatibility,
        Layout,
        OnHazard,
        Precision,
        ProfilingVerbosity,
        RequiredPrecision,
        Scenario,
        ShiftFormName,
    )
    from s2mlp_deploy.deprecation import DeprecatedUseWarning
    from s2mlp_deploy.engines.tensorrt.options import BuildOptions
    from s2mlp_deploy.engines.tensorrt.preflight import Preflight
    from s2mlp_deploy.engines.tensorrt.trtexec import TrtexecBuild
    from s2mlp_deploy.errors import (
        ArtifactError,
        BuildError,
        CheckFailedError,
        CheckpointError,
        DataError,
        ExportError,
        ImageError,
        InputError,
        OutputError,
        PreprocessingError,
        QuantizationError,
        S2MLPDeployError,
        ShiftError,
        SourceError,
        TargetError,
    )
    from s2mlp_deploy.evidence.accuracy import AccuracyReport
    from s2mlp_deploy.evidence.bench import BenchReport
    from s2mlp_deploy.evidence.build import BuildRecord
    from s2mlp_deploy.evidence.calibration import CalibrationReport
    from s2mlp_deploy.evidence.difference import DifferenceReport
    from s2mlp_deploy.evidence.engine_difference import EngineDifference
    from s2mlp_deploy.evidence.engine_layers import EngineLayers, RunTimes
    from s2mlp_deploy.evidence.layers import LayersReport
    from s2mlp_deploy.evidence.modules import ModulesReport
    from s2mlp_deploy.evidence.parity import ParityReport, Tolerances
    from s2mlp_deploy.evidence.profile import Profile
    from s2mlp_deploy.evidence.speed import SpeedCheck
    from s2mlp_deploy.evidence.store import Evidence
    from s2mlp_deploy.evidence.tune import TuneReport
    from s2mlp_deploy.precision.limits import Limits, read_limits
    from s2mlp_deploy.precision.options import PrecisionOptions
    from s2mlp_deploy.preprocess import Preprocessing
    from s2mlp_deploy.progress import ProgressCallback, no_progress
    from s2mlp_deploy.serving.batch.run import BatchReport
    from s2mlp_deploy.serving.hindrances import Hindrance
    from s2mlp_deploy.serving.outputs import OutputSummary
    from s2mlp_deploy.serving.package.result import Package, PackageOptions
    from s2mlp_deploy.serving.plan import RunPlan
    from s2mlp_deploy.serving.predictor import Prediction, PredictionFailure, Predictor
    from s2mlp_deploy.serving.service.options import EngineOptions, ServeOptions, ServiceLimits
    from s2mlp_deploy.shift.spec import ShiftSpec
    from s2mlp_deploy.sources.converters import convert_s2attention, convert_sequential
    from s2mlp_deploy.sources.source import Source


@dataclass(frozen=True)
class _Home:
    """Where names come from.

    Attributes:
        names: The names.
        packages: What must be installed; looked for, not imported.
        extra: The extra of this package that installs them.
    """

    names: tuple[str, ...]
    packages: tuple[str, ...] = ()
    extra: str = ""


_TORCH = ("torch", "onnx", "onnx_ir", "onnxscript", "safetensors", "jinja2")
_GRAPH = ("onnx", "onnx_ir")

_HOMES = {
    "s2mlp_deploy.api.against_file": _Home(("layers_against_file", "parity_against_file"), _GRAPH, "onnx"),
    "s2mlp_deploy.api.batching": _Home(("batch",), ("pyarrow",), "batch"),
    "s2mlp_deploy.api.benchmarking": _Home(("bench", "read_profile", "save_bench", "save_bench_csv")),
    "s2mlp_deploy.api.capturing": _Home(("CapturedSource", "analyze", "capture"), _TORCH, "export"),
    "s2mlp_deploy.api.comparing": _Home(("parity",), _TORCH, "export"),
    "s2mlp_deploy.api.cutting": _Home(("engine_pieces",), _TORCH, "export"),
    "s2mlp_deploy.api.packaging": _Home(("package",)),
    "s2mlp_deploy.serving.package.result": _Home(("Package", "PackageOptions")),
    "s2mlp_deploy.api.pieces": _Home(("EnginePieces", "judge_pieces"), ("onnx_ir", "safetensors"), "export"),
    "s2mlp_deploy.api.diagnosing": _Home(("Diagnosis", "diagnose")),
    "s2mlp_deploy.api.diffing": _Home(("diff", "save_difference"), (*_GRAPH, "jinja2"), "onnx"),
    "s2mlp_deploy.api.diffing_layers": _Home(("diff_layers",)),
    "s2mlp_deploy.api.engines": _Home(
        ("EngineInspection", "Health", "build", "doctor", "inspect_engine", "optimize", "preflight")
    ),
    "s2mlp_deploy.api.exporting": _Home(("ExportResult", "export"), _TORCH, "export"),
    "s2mlp_deploy.api.inspecting_artifacts": _Home(("ArtifactInspection", "inspect_artifact", "read_evidence")),
    "s2mlp_deploy.api.inspecting_files": _Home(("FileInspection", "inspect_file"), _GRAPH, "onnx"),
    "s2mlp_deploy.api.inspecting_layers": _Home(("inspect_json", "keep_layers")),
    "s2mlp_deploy.api.inspecting_sources": _Home(
        ("SourceInspection", "inspect_graph", "inspect_source"), _TORCH, "export"
    ),
    "s2mlp_deploy.api.layering": _Home(("parity_per_layer",), _TORCH, "export"),
    "s2mlp_deploy.api.metrics": _Home(("load_metric",), ("torch", *_GRAPH), "export"),
    "s2mlp_deploy.api.predicting": _Home(("predict",)),
    "s2mlp_deploy.api.quantizing": _Home(("Quantized", "quantize"), (*_GRAPH, "jinja2"), "onnx"),
    "s2mlp_deploy.api.reporting": _Home(("WrittenReport", "report"), ("jinja2",), "onnx"),
    "s2mlp_deploy.precision.limits": _Home(("Limits", "read_limits")),
    "s2mlp_deploy.precision.options": _Home(("PrecisionOptions",)),
    "s2mlp_deploy.api.saved_layers": _Home(("rejudge_layers",), ("onnx_ir", "safetensors"), "export"),
    "s2mlp_deploy.api.serving": _Home(
        ("serve",), ("fastapi", "uvicorn", "httptools", "prometheus_client", "grpc"), "serve"
    ),
    "s2mlp_deploy.serving.service.options": _Home(("EngineOptions", "ServeOptions", "ServiceLimits")),
    "s2mlp_deploy.api.sources": _Home(("from_module", "load"), _TORCH, "export"),
    "s2mlp_deploy.api.trtexec": _Home(("read_trtexec", "write_trtexec")),
    "s2mlp_deploy.api.tune_options": _Home(("TuneOptions",)),
    "s2mlp_deploy.api.tuning": _Home(("tune",), _GRAPH, "onnx"),
    "s2mlp_deploy.api.zoo": _Home(("models",)),
    "s2mlp_deploy.artifact": _Home(
        ("FileRecord", "Hazard", "Manifest", "ShiftRecord", "SourceInfo", "TensorInfo", "read_manifest")
    ),
    "s2mlp_deploy.bench.options": _Home(("BenchOptions",)),
    "s2mlp_deploy.choices": _Home(
        (
            "CALIBRATION_METHOD",
            "CALIBRATION_SAMPLES",
            "EVAL_SAMPLES",
            "CalibrationMethod",
            "DynamicAxis",
            "EngineName",
            "HardwareCompatibility",
            "Layout",
            "OnHazard",
            "Precision",
            "ProfilingVerbosity",
            "RequiredPrecision",
            "Scenario",
            "ShiftFormName",
        )
    ),
    "s2mlp_deploy.deprecation": _Home(("DeprecatedUseWarning",)),
    "s2mlp_deploy.engines.tensorrt.options": _Home(("BuildOptions",)),
    "s2mlp_deploy.engines.tensorrt.preflight": _Home(("Preflight",), _GRAPH, "onnx"),
    "s2mlp_deploy.engines.tensorrt.trtexec": _Home(("TrtexecBuild",)),
    "s2mlp_deploy.errors": _Home(
        (
            "ArtifactError",
            "BuildError",
            "CheckFailedError",
            "CheckpointError",
            "DataError",
            "ExportError",
            "ImageError",
            "InputError",
            "OutputError",
            "PreprocessingError",
            "QuantizationError",
            "S2MLPDeployError",
            "ShiftError",
            "SourceError",
            "TargetError",
        )
    ),
    "s2mlp_deploy.evidence.accuracy": _Home(("AccuracyReport",)),
    "s2mlp_deploy.evidence.bench": _Home(("BenchReport",)),
    "s2mlp_deploy.evidence.build": _Home(("BuildRecord",)),
    "s2mlp_deploy.evidence.calibration": _Home(("CalibrationReport",)),
    "s2mlp_deploy.evidence.difference": _Home(("DifferenceReport",)),
    "s2mlp_deploy.evidence.engine_difference": _Home(("EngineDifference",)),
    "s2mlp_deploy.evidence.engine_layers": _Home(("EngineLayers", "RunTimes")),
    "s2mlp_deploy.evidence.profile": _Home(("Profile",)),
    "s2mlp_deploy.evidence.speed": _Home(("SpeedCheck",)),
    "s2mlp_deploy.evidence.store": _Home(("Evidence",)),
    "s2mlp_deploy.evidence.layers": _Home(("LayersReport",)),
    "s2mlp_deploy.evidence.modules": _Home(("ModulesReport",)),
    "s2mlp_deploy.evidence.tune": _Home(("TuneReport",)),
    "s2mlp_deploy.evidence.parity": _Home(("ParityReport", "Tolerances")),
    "s2mlp_deploy.preprocess": _Home(("Preprocessing",)),
    "s2mlp_deploy.progress": _Home(("ProgressCallback", "no_progress")),
    "s2mlp_deploy.serving.batch.run": _Home(("BatchReport",), ("pyarrow",), "batch"),
    "s2mlp_deploy.serving.hindrances": _Home(("Hindrance",)),
    "s2mlp_deploy.serving.outputs": _Home(("OutputSummary",)),
    "s2mlp_deploy.serving.plan": _Home(("RunPlan",)),
    "s2mlp_deploy.serving.predictor": _Home(("Prediction", "PredictionFailure", "Predictor")),
    "s2mlp_deploy.shift.spec": _Home(("ShiftSpec",)),
    "s2mlp_deploy.sources.converters": _Home(("convert_s2attention", "convert_sequential"), _TORCH, "export"),
    "s2mlp_deploy.sources.source": _Home(("Source",), _TORCH, "export"),
}
_HOME_OF = {name: module for module, home in _HOMES.items() for name in home.names}

__all__ = [
    "CALIBRATION_METHOD",
    "CALIBRATION_SAMPLES",
    "EVAL_SAMPLES",
    "AccuracyReport",
    "ArtifactError",
    "ArtifactInspection",
    "BatchReport",
    "BenchOptions",
    "BenchReport",
    "BuildError",
    "BuildOptions",
    "BuildRecord",
    "CalibrationMethod",
    "CalibrationReport",
    "CapturedSource",
    "CheckFailedError",
    "CheckpointError",
    "DataError",
    "DeprecatedUseWarning",
    "Diagnosis",
    "DifferenceReport",
    "DynamicAxis",
    "EngineDifference",
    "EngineInspection",
    "EngineLayers",
    "EngineName",
    "EngineOptions",
    "EnginePieces",
    "Evidence",
    "ExportError",
    "ExportResult",
    "FileInspection",
    "FileRecord",
    "HardwareCompatibility",
    "Hazard",
    "Health",
    "Hindrance",
    "ImageError",
    "InputError",
    "LayersReport",
    "Layout",
    "Limits",
    "Manifest",
    "MissingDependencyError",
    "ModulesReport",
    "OnHazard",
    "OutputError",
    "OutputSummary",
    "Package",
    "PackageOptions",
    "ParityReport",
    "Precision",
    "PrecisionOptions",
    "Prediction",
    "PredictionFailure",
    "Predictor",
    "Preflight",
    "Preprocessing",
    "PreprocessingError",
    "Profile",
    "ProfilingVerbosity",
    "ProgressCallback",
    "QuantizationError",
    "Quantized",
    "RequiredPrecision",
    "RunPlan",
    "RunTimes",
    "S2MLPDeployError",
    "Scenario",
    "ServeOptions",
    "ServiceLimits",
    "ShiftError",
    "ShiftFormName",
    "ShiftRecord",
    "ShiftSpec",
    "Source",
    "SourceError",
    "SourceInfo",
    "SourceInspection",
    "SpeedCheck",
    "TargetError",
    "TensorInfo",
    "Tolerances",
    "TrtexecBuild",
    "TuneOptions",
    "TuneReport",
    "WrittenReport",
    "analyze",
    "batch",
    "bench",
    "build",
    "capture",
    "convert_s2attention",
    "convert_sequential",
    "diagnose",
    "diff",
    "diff_layers",
    "doctor",
    "engine_pieces",
    "export",
    "from_module",
    "inspect_artifact",
    "inspect_engine",
    "inspect_file",
    "inspect_graph",
    "inspect_json",
    "inspect_source",
    "judge_pieces",
    "keep_layers",
    "layers_against_file",
    "load",
    "load_metric",
    "models",
    "no_progress",
    "optimize",
    "package",
    "parity",
    "parity_against_file",
    "parity_per_layer",
    "predict",
    "preflight",
    "quantize",
    "read_evidence",
    "read_limits",
    "read_manifest",
    "read_profile",
    "read_trtexec",
    "rejudge_layers",
    "report",
    "save_bench",
    "save_bench_csv",
    "save_difference",
    "serve",
    "tune",
    "write_trtexec",
]


def _draw(record: object) -> Shown | None:
    """A record as a notebook shows it. What draws is imported when the first one is shown."""
    shown: Shown | None = importlib.import_module("s2mlp_deploy.report.notebook").shown_of(record)
    return shown


draw_records_with(_draw)


def __getattr__(name: str) -> Any:
    """Imports what a name stands for.

    Raises:
        MissingDependencyError: A package that it needs is not installed.
    """
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _HOME_OF[name]
    home = _HOMES[module]
    for package in home.packages:
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(package, extra=home.extra, purpose=f"{__name__}.{name}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
