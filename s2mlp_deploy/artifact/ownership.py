"""What in a directory is an artifact's own: nothing else is ever removed or replaced.

The manifest lists the graphs. What is added later (evidence, the report, engines, a calibration cache) is known by what
it says of itself.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from s2mlp_deploy.artifact.manifest import Manifest, read_manifest
from s2mlp_deploy.artifact.names import CALIBRATION_CACHE, ENGINE_LAYERS, EVIDENCE, MANIFEST, REPORT, RUNTIME_CACHE
from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.files import from_json, is_regular, read_file

REPORT_MARKER = '<meta name="generator" content="s2mlp-deploy">'
"""In the head of every report."""

_HEAD = 2000
_CACHE_MEMBER = "described.npy"
_OLD_EVIDENCE = ("parity-", "accuracy.json", "calibration.json", "build-")
"""How the names of evidence begin that an earlier version wrote, which did not say what it was."""


def listed_names(manifest: Manifest) -> frozenset[str]:
    """The files that a manifest lists."""
    return frozenset(record.path for record in manifest.files)


def is_own_report(path: Path) -> bool:
    """Whether a page is a report of this package."""
    if not is_regular(path):  # Opening a pipe waits for its writer.
        return False
    try:
        with path.open("rb") as stream:
            return REPORT_MARKER.encode() in stream.read(_HEAD)
    except OSError:
        return False


def is_own_cache(path: Path) -> bool:
    """Whether a file is a calibration cache, by its members; no other is read."""
    if not is_regular(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return _CACHE_MEMBER in archive.namelist()
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
        return False


def own_sidecar(path: Path) -> dict[str, Any] | None:
    """What the sidecar of an engine or an optimized graph says; None for any other file."""
    document = _object(path)
    if document is None or not (document.get("kind") == "build" or "optimized_sha256" in document):
        return None
    return document


def remove_artifact(directory: Path, manifest: Manifest, *, keep_cache: bool = False) -> None:
    """Removes the files of an artifact: what its manifest lists, and what was made from or measured on that.

    The manifest itself is left to the caller. Links are removed, never followed.

    Args:
        directory: Of the artifact.
        manifest: Of the artifact.
        keep_cache: Whether the calibration cache stays, which has just been used for what comes.

    Raises:
        OSError: A file cannot be removed.
    """
    listed = listed_names(manifest)
    for name in listed:
        (directory / name).unlink(missing_ok=True)
    for sidecar in list(directory.glob("*.json")):
        made = own_sidecar(sidecar)
        if made is not None and made.get("onnx") in listed:
            made_file = sidecar.with_suffix("")
            for suffix in ("", ENGINE_LAYERS, RUNTIME_CACHE):
                made_file.with_name(f"{made_file.name}{suffix}").unlink(missing_ok=True)
            sidecar.unlink(missing_ok=True)
    evidence = directory / EVIDENCE
    if evidence.is_dir() and not evidence.is_symlink():
        for document in list(evidence.glob("*.json")):
            if _is_evidence(document):
                document.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # Somebody keeps something else there.
            evidence.rmdir()
    if is_own_report(directory / REPORT):
        (directory / REPORT).unlink()
    if not keep_cache and is_own_cache(directory / CALIBRATION_CACHE):
        (directory / CALIBRATION_CACHE).unlink()


def manifests_in(*places: Path) -> Iterator[Manifest]:
    """The manifests that can be read of those places."""
    for place in places:
        if (place / MANIFEST).is_file():
            with contextlib.suppress(ArtifactError):
                yield read_manifest(place)


def _is_evidence(path: Path) -> bool:
    if path.name.startswith(_OLD_EVIDENCE):
        return True
    document = _object(path)
    return document is not None and isinstance(document.get("kind"), str) and "schema_version" in document


def _object(path: Path) -> dict[str, Any] | None:
    try:
        document = from_json(read_file(path, "evidence"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None
