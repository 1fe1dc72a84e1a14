"""An artifact's page, written again from its manifest and evidence."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from s2mlp_deploy.artifact import REPORT, lock_artifact, read_manifest
from s2mlp_deploy.evidence.store import read_evidence
from s2mlp_deploy.report.html import write_report
from s2mlp_deploy.report.opening import opening
from s2mlp_deploy.report.verdict import Verdict


@dataclass(frozen=True)
class WrittenReport:
    """A page and what it says first.

    Attributes:
        path: The page.
        opening: Its first paragraph.
    """

    path: Path
    opening: Verdict


def report(directory: str | Path, output: str | Path | None = None) -> WrittenReport:
    """Writes an artifact's page from what is saved; runs nothing, and needs none of its ONNX files.

    Args:
        directory: The artifact, or a folder with its ``manifest.json`` and ``evidence/`` alone.
        output: The page; default ``report.html`` in the artifact.

    Raises:
        ArtifactError: There is no manifest that can be read.
        OutputError: The page cannot be written, or another that is none of ours is there.
    """
    root = Path(directory)
    manifest = read_manifest(root)
    page = Path(output) if output is not None else root / REPORT
    # An artifact that is only read may lie where nothing can be written.
    with lock_artifact(root) if output is None else nullcontext():
        path = write_report(root, page)
    return WrittenReport(path, opening(manifest, read_evidence(root), str(directory)))
