"""Keeping evidence: records go into the artifact, and its report is written anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from s2mlp_deploy.artifact import MANIFEST, Manifest, lock_artifact
from s2mlp_deploy.evidence.accuracy import AccuracyReport
from s2mlp_deploy.evidence.calibration import CalibrationReport
from s2mlp_deploy.evidence.store import read_record, save_record
from s2mlp_deploy.report.html import write_report


def save_evidence(directory: Path, *records: Any, label: str = "") -> None:
    """Saves records under ``evidence/`` of an artifact and renews its report; elsewhere nothing is saved.

    Args:
        directory: Where the measured file lies.
        records: Of types that :data:`~s2mlp_deploy.evidence.store.KINDS` lists.
        label: What distinguishes them from others of their kind: the name of the measured file.

    Raises:
        OutputError: The artifact cannot be written.
    """
    if not (directory / MANIFEST).is_file():
        return
    for record in records:
        save_record(directory, record, label)
    write_report(directory)


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
        The scores, with what is known of the files only now that they are written, and with those of files from an
        earlier run that were scored on the same.
    """
    if measured is None:
        save_evidence(root, ranges)
        return None
    records = {record.path: record for record in manifest.files}
    accuracy = replace(
        measured,
        rows=tuple(replace(row, bytes=records[row.file].bytes) for row in measured.rows),
        sha256={row.file: records[row.file].sha256 for row in measured.rows},
    )
    # What another command saved meanwhile must not be lost between reading and writing.
    with lock_artifact(root):
        earlier = read_record(root, AccuracyReport)
        if earlier is not None:
            accuracy = accuracy.with_earlier(earlier, manifest)
        save_evidence(root, ranges, accuracy)
    return accuracy
