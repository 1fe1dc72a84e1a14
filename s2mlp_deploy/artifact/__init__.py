"""The artifact: a directory of ONNX files with a manifest that is written last and makes it whole."""

from s2mlp_deploy.artifact.manifest import (
    SCHEMA_VERSION,
    CalibrationRecord,
    FileRecord,
    Hazard,
    Manifest,
    PrecisionException,
    ShiftRecord,
    SourceInfo,
    TensorInfo,
    current_fields,
    read_manifest,
    verify_file,
)
from s2mlp_deploy.artifact.names import (
    CALIBRATION_CACHE,
    EVIDENCE,
    MANIFEST,
    METADATA_KEY,
    REPORT,
    data_file,
    model_file,
)
from s2mlp_deploy.artifact.writer import ArtifactWriter, check_output, lock_artifact

__all__ = [
    "CALIBRATION_CACHE",
    "EVIDENCE",
    "MANIFEST",
    "METADATA_KEY",
    "REPORT",
    "SCHEMA_VERSION",
    "ArtifactWriter",
    "CalibrationRecord",
    "FileRecord",
    "Hazard",
    "Manifest",
    "PrecisionException",
    "ShiftRecord",
    "SourceInfo",
    "TensorInfo",
    "check_output",
    "current_fields",
    "data_file",
    "lock_artifact",
    "model_file",
    "read_manifest",
    "verify_file",
]
