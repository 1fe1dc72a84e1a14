"""Scores and ranges as evidence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from s2mlp_deploy.api.engines import save_evidence
from s2mlp_deploy.artifact import MANIFEST, Manifest
from s2mlp_deploy.evidence.accuracy import AccuracyReport
from s2mlp_deploy.evidence.calibration import CalibrationReport
from s2mlp_deploy.evidence.store import read_record


def save_scores(
    root: Path, manifest: Manifest, ranges: CalibrationReport, measured: AccuracyReport | None
) -> AccuracyReport | None:
    """Saves scores and ranges under ``evidence/`` and renews the report.

    Args:
        root: The artifact.
        manifest: As written.
        ranges: What the calibration saw and chose.
        measured: The scores, where there was something to score on.

    Returns:
        The scores, with what is known of the files only now that they are written.
    """
    save_evidence(root / MANIFEST, ranges)
    if measured is None:
        return None
    records = {record.path: record for record in manifest.files}
    accuracy = replace(
        measured,
        rows=tuple(replace(row, bytes=records[row.file].bytes) for row in measured.rows),
        sha256={row.file: records[row.file].sha256 for row in measured.rows},
    )
    save_evidence(root / MANIFEST, _with_earlier(root, manifest, accuracy))
    return accuracy


def _with_earlier(root: Path, manifest: Manifest, accuracy: AccuracyReport) -> AccuracyReport:
    """The scores with those of files from an earlier run that are still there and were scored on the same."""
    earlier = read_record(root, AccuracyReport)
    if earlier is None:
        return accuracy
    there = {record.path: record.sha256 for record in manifest.files}
    if (earlier.metric, earlier.data, earlier.images) != (accuracy.metric, accuracy.data, accuracy.images):
        return accuracy
    rows = tuple(
        row
        for row in earlier.rows
        if row.file not in accuracy.sha256 and row.file in there and earlier.sha256.get(row.file) == there[row.file]
    )
    kept = {row.precision for row in rows}
    return replace(
        accuracy,
        rows=accuracy.rows + rows,
        sqnr={name: value for name, value in earlier.sqnr.items() if name in kept} | accuracy.sqnr,
        searches={name: value for name, value in earlier.searches.items() if name in kept} | accuracy.searches,
        sha256={row.file: there[row.file] for row in rows} | accuracy.sha256,
    )
