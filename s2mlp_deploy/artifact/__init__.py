"""The artifact: a directory of ONNX files with a manifest that is written last and makes it whole."""

from s2mlp_deploy.artifact.engine_files import DEFAULT_FILES, file_for_engine
from s2mlp_deploy.artifact.limits import SizeLimit, check_sizes, fitting_batch, limits_of, read_limits
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
    is_scores,
    read_description,
    read_manifest,
)
from s2mlp_deploy.artifact.names import (
    CALIBRATION_CACHE,
    EVIDENCE,
    MANIFEST,
    METADATA_KEY,
    NETWORK,
    REPORT,
    check_served_name,
    common_path,
    data_file,
    model_file,
    module_of,
)
from s2mlp_deploy.artifact.onnx_file import check_onnx
from s2mlp_deploy.artifact.ownership import is_own_cache, is_own_report, own_sidecar
from s2mlp_deploy.artifact.verify import verify_file, verify_precision
from s2mlp_deploy.artifact.writer import ArtifactWriter, check_output, lock_artifact

__all__ = [
    "CALIBRATION_CACHE",
    "DEFAULT_FILES",
    "EVIDENCE",
    "MANIFEST",
    "METADATA_KEY",
    "NETWORK",
    "REPORT",
    "SCHEMA_VERSION",
    "ArtifactWriter",
    "CalibrationRecord",
    "FileRecord",
    "Hazard",
    "Manifest",
    "PrecisionException",
    "ShiftRecord",
    "SizeLimit",
    "SourceInfo",
    "TensorInfo",
    "check_onnx",
    "check_output",
    "check_served_name",
    "check_sizes",
    "common_path",
    "current_fields",
    "data_file",
    "file_for_engine",
    "fitting_batch",
    "is_own_cache",
    "is_own_report",
    "is_scores",
    "limits_of",
    "lock_artifact",
    "model_file",
    "module_of",
    "own_sidecar",
    "read_description",
    "read_limits",
    "read_manifest",
    "verify_file",
    "verify_precision",
]
