"""Looking into an artifact: its manifest, whether its files are the ones that it describes, what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from s2mlp_deploy.artifact import Manifest, read_manifest, verify_file
from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.evidence import store
from s2mlp_deploy.evidence.store import Evidence
from s2mlp_deploy.report.banner import parity_verdict
from s2mlp_deploy.report.verdict import Verdict


@dataclass(frozen=True)
class ArtifactInspection:
    """What an artifact holds.

    Attributes:
        manifest: What it says of itself.
        problems: By file what is wrong with it: it is missing, or was changed. Empty where all are as described.
        parity: Whether the evidence shows that its files compute what the source computes.
    """

    manifest: Manifest
    problems: dict[str, str]
    parity: Verdict


def inspect_artifact(directory: str | Path) -> ArtifactInspection:
    """Reads an artifact's manifest and evidence, and compares its files with their hashes; runs nothing.

    Raises:
        ArtifactError: The directory is no artifact, or its manifest is damaged.
    """
    root = Path(directory)
    manifest = read_manifest(root)
    problems = {}
    for record in manifest.files:
        try:
            verify_file(root, record)
        except ArtifactError as error:
            problems[record.path] = error.problem
    return ArtifactInspection(manifest, problems, parity_verdict(manifest, store.read_evidence(root), str(directory)))


def read_evidence(directory: str | Path) -> Evidence:
    """All evidence of an artifact. What cannot be read of it is listed, never raised.

    Raises:
        ArtifactError: The directory is no artifact, or its manifest is damaged.
    """
    read_manifest(Path(directory))
    return store.read_evidence(directory)
