"""The artifact: a directory of ONNX files with a manifest that is written last and makes it whole."""

from s2mlp_deploy.artifact.manifest import (
    CALIBRATION_CACHE,
    EVIDENCE,
    MANIFEST,
    METADATA_KEY,
    REPORT,
    SCHEMA_VERSION,
    CalibrationRecord,
    FileRecord,
    HazardRecord,
    Manifest,
    PrecisionException,
    ShiftRecord,
    SourceInfo,
    TensorInfo,
    read_manifest,
    verify_file,
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
    "HazardRecord",
    "Manifest",
    "PrecisionException",
    "ShiftRecord",
    "SourceInfo",
    "TensorInfo",
    "check_output",
    "lock_artifact",
    "read_manifest",
    "verify_file",
]
