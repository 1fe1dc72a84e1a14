"""Where the names of the API come from, and what must be installed for each.

The packages that a name's module needs are checked, and the module is imported. So the modules behind this door import
what they need at their top, and what is not installed is told here, with the extra that has it.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

from s2mlp_deploy.errors import MissingDependencyError


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

HOMES = {
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
HOME_OF = {name: module for module, home in HOMES.items() for name in home.names}


def find(name: str) -> Any:
    """Imports what a name of the API stands for.

    Raises:
        MissingDependencyError: A package that it needs is not installed.
    """
    module = HOME_OF[name]
    home = HOMES[module]
    for package in home.packages:
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(package, extra=home.extra, purpose=f"s2mlp_deploy.api.{name}")
    return getattr(importlib.import_module(module), name)
