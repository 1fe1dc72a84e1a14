"""Parity evidence of files that nobody compared: running an artifact asks for it."""

from __future__ import annotations

from pathlib import Path

from s2mlp_deploy.artifact import read_manifest
from s2mlp_deploy.evidence.parity import OutputParity, ParityReport, Tolerances, Weights
from s2mlp_deploy.evidence.store import save_record
from s2mlp_deploy.metrics import TensorMetrics


def parity_of(file: str, sha256: str, precision: str = "fp32", **changes) -> ParityReport:
    """A comparison that holds."""
    metrics = TensorMetrics(max_abs=0.0, peak=1.0, max_rel=0.0, cosine=1.0, psnr=None, elements=6)
    values = {
        "reference": "torch",
        "candidate": "onnxruntime (CPU)",
        "file": file,
        "precision": precision,
        "data": "photos",
        "images": 4,
        "outputs": (OutputParity("logits", metrics, None, Tolerances(1e-4, 1e-4, 0.999, 0.99)),),
        "file_sha256": sha256,
    }
    return ParityReport(**(values | changes))


def prove(directory: Path, *precisions: str, **changes) -> Path:
    """Saves a comparison that holds for the files of an artifact, or those of some precisions; returns its place."""
    manifest = read_manifest(directory)
    for record in manifest.files:
        if record.path.endswith(".onnx") and (not precisions or record.precision in precisions):
            values = {"weights": Weights.of(manifest.source)} | changes
            save_record(directory, parity_of(record.path, record.sha256, record.precision, **values))
    return directory
