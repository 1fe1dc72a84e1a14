"""Keeping evidence: records go into the artifact, and its report is written anew."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from s2mlp_deploy.artifact import MANIFEST, REPORT, Manifest, is_own_report, lock_artifact, read_manifest
from s2mlp_deploy.errors import ArtifactError, MissingDependencyError
from s2mlp_deploy.evidence.accuracy import AccuracyReport
from s2mlp_deploy.evidence.calibration import CalibrationReport
from s2mlp_deploy.evidence.modules import ModulesReport
from s2mlp_deploy.evidence.store import read_record, remove_records, save_record
from s2mlp_deploy.report.html import write_report

LOG = logging.getLogger(__name__)


def save_evidence(directory: Path, *records: Any, label: str = "") -> None:
    """Saves records under ``evidence/`` of an artifact and renews its report; elsewhere nothing is saved.

    A folder whose manifest cannot be read as an artifact's is elsewhere: that is told.

    Args:
        directory: Where the measured file lies.
        records: Of types that :data:`~s2mlp_deploy.evidence.store.KINDS` lists.
        label: What distinguishes them from others of their kind: the name of the measured file.

    Raises:
        OutputError: The artifact cannot be written, or another command held its lock for a minute.
    """
    if not (directory / MANIFEST).is_file():
        return
    try:
        read_manifest(directory)
    except ArtifactError as error:
        LOG.warning("nothing was saved beside the file: %s (%s)", error.problem, directory / MANIFEST)
        return
    with lock_artifact(directory):
        _write(directory, *records, label=label)


def _write(directory: Path, *records: Any, label: str = "") -> None:
    """Writes records and the report; the caller holds the artifact's lock, or two writers would lose each other's."""
    for record in records:
        save_record(directory, record, label)
    page = directory / REPORT
    if page.exists() and not has_own_report(directory):
        LOG.warning("%s was left as it is, for this package did not write it: the report is not renewed", page)
        return
    try:
        write_report(directory)
    except MissingDependencyError as error:
        # Where networks only run, nothing that draws pages is installed: the records are saved.
        LOG.warning("the artifact's report was not written anew: %s", error.problem)


def has_own_report(directory: Path) -> bool:
    """Whether the page of an artifact is ours: another is left, and not renewed with the evidence."""
    return is_own_report(directory / REPORT)


def save_scores(
    root: Path,
    manifest: Manifest,
    ranges: CalibrationReport,
    measured: AccuracyReport,
    modules: Sequence[ModulesReport] = (),
) -> AccuracyReport:
    """Saves scores and ranges under ``evidence/`` and renews the report.

    Args:
        root: The artifact.
        manifest: As written.
        ranges: What the calibration saw and chose; not saved where the manifest's calibration is another one.
        measured: How near the files are to float32, and their scores where there are some.
        modules: What the files have of each module.

    Returns:
        The figures, with what is known of the files only now that they are written, and with those of files from an
        earlier run that were scored on the same.
    """
    records = {record.path: record for record in manifest.files}
    accuracy = replace(
        measured,
        rows=tuple(replace(row, bytes=records[row.file].bytes) for row in measured.rows),
        sha256={row.file: records[row.file].sha256 for row in measured.rows},
    )
    with lock_artifact(root):
        # Another command may have added files and their scores since the manifest was written.
        present = read_manifest(root)
        earlier = read_record(root, AccuracyReport, accuracy.label)
        if earlier is not None:
            accuracy = accuracy.with_earlier(earlier, present)
        remove_records(root, AccuracyReport, lambda record: record.current(present) is None)
        _write(root, *_governing(root, ranges), *modules, accuracy)
    return accuracy


def _governing(root: Path, ranges: CalibrationReport) -> tuple[CalibrationReport, ...]:
    """The ranges where they are of the manifest's calibration; none where that is of quantized files that stayed."""
    return (ranges,) if read_manifest(root).calibration == ranges.calibration else ()
