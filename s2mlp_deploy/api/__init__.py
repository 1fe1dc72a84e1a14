"""The Python API: every command is one of these functions.

Importing this package imports no torch, no onnx and no runtime. A name is looked up in :mod:`.door` at its first use
(PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from s2mlp_deploy.api import door
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
    if name not in door.HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = door.find(name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
