"""Writing an artifact.

Files are written beside their place and renamed into it, and the manifest comes last, so an interrupted command leaves
nothing that looks whole.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from s2mlp_deploy.artifact.manifest import (
    CALIBRATION_CACHE,
    EVIDENCE,
    MANIFEST,
    REPORT,
    FileRecord,
    Manifest,
    read_manifest,
)
from s2mlp_deploy.errors import OutputError
from s2mlp_deploy.files import has_ended, output_error, remove_abandoned, sha256_of, to_json, write_file

_STAGING = ".incomplete-"
_OWN_FILES = ("model.*.onnx", "model.*.onnx.data", "model.*.engine", "model.*.engine.json")


class ArtifactWriter:
    """Writes an artifact so that it appears whole or not at all.

    Use as a context manager: write files into :attr:`staging`, then call :meth:`commit`, or :meth:`add` to an artifact
    that is there. Leaving without either removes what was written. An older artifact in the same place stays as it is
    until then.

    Args:
        directory: Where the artifact goes.
        force: Whether an artifact that is there may be replaced, or added to.

    Raises:
        OutputError: The directory cannot be written, is a file, or holds an artifact and ``force`` is off.
    """

    def __init__(self, directory: Path, *, force: bool = False) -> None:
        self.directory = directory
        check_output(directory, force=force)
        self._created = [path for path in (directory, *directory.parents) if not path.exists()]
        try:
            directory.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(directory)
            self.staging = Path(tempfile.mkdtemp(prefix=f"{_STAGING}{os.getpid()}-", dir=directory))
        except OSError as error:
            self._remove_created()
            raise output_error(directory, error) from error

    def __enter__(self) -> ArtifactWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.staging, ignore_errors=True)
        self._remove_created()
        if isinstance(error, OSError):
            raise output_error(self.directory, error) from error

    def _remove_created(self) -> None:
        """Removes the directories this writer made. Only empty ones go: after a commit none is."""
        for path in self._created:
            with contextlib.suppress(OSError):
                path.rmdir()

    def commit(self, manifest: Manifest, file_facts: Mapping[str, tuple[str, int]]) -> Manifest:
        """Moves the staged files into place and writes the manifest last.

        Args:
            manifest: Without ``files``.
            file_facts: For each staged file name its precision and number of nodes.

        Returns:
            The manifest as written.

        Raises:
            OutputError: The place cannot be written, or the disk is full.
        """
        manifest = replace(manifest, files=self._records(file_facts))
        names = sorted(path.name for path in self.staging.iterdir())
        # Everything is on the disk before the old artifact goes, so a full disk costs nobody anything.
        write_file(self.staging / MANIFEST, to_json(manifest))
        moved: set[Path] = set()
        try:
            self._remove_old(keep_cache=manifest.calibration is not None)
            for name in (*names, MANIFEST):
                moved.add((self.staging / name).replace(self.directory / name))
        except OSError as error:
            for path in moved:
                path.unlink(missing_ok=True)
            raise output_error(self.directory, error) from error
        return manifest

    def add(self, manifest: Manifest, file_facts: Mapping[str, tuple[str, int]]) -> Manifest:
        """Moves the staged files into the artifact that is there and renews its manifest.

        The manifest on the disk is true at every moment: files that are replaced leave it before they change.

        Args:
            manifest: With the records of the older files.
            file_facts: See :meth:`commit`.

        Returns:
            The manifest as written.

        Raises:
            OutputError: The place cannot be written, or the disk is full.
        """
        names = sorted(path.name for path in self.staging.iterdir())
        kept = tuple(record for record in manifest.files if record.path not in names)
        final = replace(manifest, files=kept + self._records(file_facts))
        try:
            # Both manifests are on the disk before anything changes, so a full disk costs nobody anything.
            without = read_manifest(self.directory)
            without = replace(without, files=tuple(r for r in without.files if r.path not in names))
            write_file(self.staging / f"{MANIFEST}.before", to_json(without))
            write_file(self.staging / MANIFEST, to_json(final))
            (self.staging / f"{MANIFEST}.before").replace(self.directory / MANIFEST)
            for name in (*names, MANIFEST):
                (self.staging / name).replace(self.directory / name)
        except OSError as error:
            raise output_error(self.directory, error) from error
        return final

    def _records(self, file_facts: Mapping[str, tuple[str, int]]) -> tuple[FileRecord, ...]:
        return tuple(
            FileRecord(name, precision, sha256_of(path), path.stat().st_size, nodes)
            for name, (precision, nodes) in file_facts.items()
            for path in [self.staging / name]
        )

    def _remove_old(self, *, keep_cache: bool) -> None:
        """Removes an older artifact, its manifest first; evidence and engines speak of the old files and go too.

        A calibration cache stays where it has just been used: it is of the new files.
        """
        old = self.directory / MANIFEST
        if not old.exists():
            return
        old.unlink()
        shutil.rmtree(self.directory / EVIDENCE, ignore_errors=True)
        (self.directory / REPORT).unlink(missing_ok=True)
        for pattern in _OWN_FILES:
            for path in self.directory.glob(pattern):
                path.unlink()
        if not keep_cache:
            (self.directory / CALIBRATION_CACHE).unlink(missing_ok=True)


def _remove_abandoned(directory: Path) -> None:
    """Removes what killed commands left; the number in the name is their process."""
    for path in directory.glob(f"{_STAGING}*"):
        if has_ended(path.name.removeprefix(_STAGING).partition("-")[0]):
            shutil.rmtree(path, ignore_errors=True)
    for place in (directory, directory / EVIDENCE):
        remove_abandoned(place)


def check_output(directory: Path, *, force: bool) -> None:
    """Refuses, before any work is done, a directory that an artifact cannot be written to.

    Raises:
        OutputError: It is a file, holds an artifact (unless ``force``), or cannot be written.
    """
    try:
        directory.exists()
    except OSError as error:  # A name that is too long, for example.
        raise output_error(directory, error) from error
    if directory.exists() and not directory.is_dir():
        raise OutputError("the output is a file", where=str(directory), fix="name a directory")
    if (directory / MANIFEST).exists() and not force:
        raise OutputError(
            "the output already holds an artifact", where=str(directory), fix="pass --force to replace it"
        )
    foreign = [path.name for pattern in (REPORT, *_OWN_FILES) for path in directory.glob(pattern)]
    if foreign and not force and not (directory / MANIFEST).exists():
        raise OutputError(
            f"the output holds {', '.join(sorted(foreign)[:5])}, which an export would replace",
            where=str(directory),
            fix="choose another directory, or pass --force",
        )
    existing = directory
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(
            "the output directory cannot be written",
            where=str(existing),
            fix="choose a directory that is yours to write",
        )
