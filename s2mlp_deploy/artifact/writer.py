"""Writing an artifact.

Files are written beside their place and renamed into it, and the manifest comes last, so an interrupted command leaves
nothing that looks whole. Commands that make an artifact's files take turns from beginning to end. What only adds
evidence or an engine holds the lock of the artifact for the moment of writing, and so do they when they rename.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from s2mlp_deploy.artifact.manifest import FileRecord, Manifest, read_manifest
from s2mlp_deploy.artifact.names import EVIDENCE, MANIFEST, REPORT, data_file, model_file
from s2mlp_deploy.artifact.ownership import is_own_report, listed_names, manifests_in, remove_artifact
from s2mlp_deploy.errors import ArtifactError, OutputError
from s2mlp_deploy.files import (
    check_parents,
    is_write_error,
    output_error,
    remove_abandoned,
    sha256_of,
    to_json,
    write_file,
)
from s2mlp_deploy.locks import locked
from s2mlp_deploy.text import join_names

_STAGING = ".s2mlp-deploy.incomplete-"
_REPLACED = "replaced"
"""Where a staging directory keeps the manifest of the artifact that is being replaced."""

_LOCK = ".s2mlp-deploy.lock"
_WRITER_LOCK = ".s2mlp-deploy.writer.lock"
_WRITER_WAIT = 600.0
"""Seconds to wait for another writer, which may be calibrating."""
_DEFAULT = (model_file("fp32"),)


class ArtifactWriter:
    """Writes an artifact so that it appears whole or not at all.

    Use as a context manager: write files into :attr:`staging`, then call :meth:`commit`, or :meth:`add` to an artifact
    that is there. Leaving without either removes what was written. An older artifact in the same place stays as it is
    until then. One writer at a time has an artifact: what is read of it inside the block is not replaced meanwhile.

    Args:
        directory: Where the artifact goes.
        force: Whether an artifact that is there may be replaced, or added to.
        files: Names of the ONNX files that will be written, as far as they are known.
        checked: Whether :func:`check_output` has passed before: an artifact that is there now is another command's.

    Raises:
        OutputError: As :func:`check_output`, or another writer had the directory for ten minutes.
    """

    def __init__(
        self, directory: Path, *, force: bool = False, files: Collection[str] = _DEFAULT, checked: bool = False
    ) -> None:
        self.directory = directory
        self._force = force
        check_output(directory, force=force, files=files, again=checked)
        self._lock = contextlib.ExitStack()
        work: Path | None = None
        try:
            alone = self._lock.enter_context(locked(directory / _WRITER_LOCK, wait=_WRITER_WAIT))
            # Another command may have written an artifact while this one waited.
            check_output(directory, force=force, files=files, again=True)
            with lock_artifact(directory):
                if alone:
                    _remove_abandoned(directory)
                work = Path(tempfile.mkdtemp(prefix=_STAGING, dir=directory))
            self.staging = work / "files"
            self.staging.mkdir()
        except BaseException as error:
            if work is not None:
                shutil.rmtree(work, ignore_errors=True)
            self._lock.close()
            if isinstance(error, OSError):
                raise output_error(directory, error) from error
            raise
        self._work = work

    def __enter__(self) -> ArtifactWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._work, ignore_errors=True)
        self._lock.close()
        if isinstance(error, OSError) and is_write_error(error, self.directory):
            raise output_error(self.directory, error) from error

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
        with lock_artifact(self.directory):
            # Where the file system has no locks, another command may have written an artifact since this one began.
            check_output(self.directory, force=self._force, files=names, again=True)
            try:
                self._remove_old(keep_cache=manifest.calibration is not None)
                for name in (*names, MANIFEST):
                    (self.staging / name).replace(self.directory / name)
            except BaseException as error:  # Ctrl-C too: files without a manifest are nobody's.
                for name in (MANIFEST, *names):
                    # Not what could not be moved, which lies in staging still: something else has its name.
                    if not (self.staging / name).exists():
                        (self.directory / name).unlink(missing_ok=True)
                if isinstance(error, OSError):
                    raise output_error(self.directory, error) from error
                raise
        return manifest

    def add(self, renew: Callable[[Manifest], Manifest], file_facts: Mapping[str, tuple[str, int]]) -> Manifest:
        """Moves the staged files into the artifact that is there and renews its manifest.

        The manifest on the disk is true at every moment: files that are replaced leave it before they change, and
        files that the new one does not list any more go after it.

        Args:
            renew: Makes the new manifest of the one that is there now. The records of the staged files are added to
                what it returns.
            file_facts: See :meth:`commit`.

        Returns:
            The manifest as written.

        Raises:
            ArtifactError: The artifact is gone.
            OutputError: The place cannot be written, or the disk is full.
        """
        names = sorted(path.name for path in self.staging.iterdir())
        records = self._records(file_facts)
        with lock_artifact(self.directory):
            there = read_manifest(self.directory)
            check_output(self.directory, force=True, files=names)
            renewed = renew(there)
            final = replace(renewed, files=_without(renewed.files, names) + records)
            try:
                # Both manifests are on the disk before anything changes, so a full disk costs nobody anything.
                before = replace(there, files=_without(there.files, names))
                write_file(self.staging / f"{MANIFEST}.before", to_json(before))
                write_file(self.staging / MANIFEST, to_json(final))
                (self.staging / f"{MANIFEST}.before").replace(self.directory / MANIFEST)
                for name in (*names, MANIFEST):
                    (self.staging / name).replace(self.directory / name)
                for name in listed_names(there) - listed_names(final):
                    (self.directory / name).unlink(missing_ok=True)
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
        if not (self.directory / MANIFEST).exists():
            return
        old = read_manifest(self.directory)
        # Whoever is killed from here on leaves lists of what the next writer may remove.
        kept = self._work / _REPLACED
        kept.mkdir()
        (self.directory / MANIFEST).replace(kept / MANIFEST)
        remove_artifact(self.directory, old, keep_cache=keep_cache)


def _without(records: tuple[FileRecord, ...], names: Collection[str]) -> tuple[FileRecord, ...]:
    return tuple(record for record in records if record.path not in names)


@contextlib.contextmanager
def lock_artifact(directory: Path) -> Iterator[None]:
    """Keeps other commands from writing to an artifact, while its manifest or evidence is read and replaced.

    For moments: whoever makes an artifact's files has it to itself all the time by :class:`ArtifactWriter`. Not
    reentrant.

    Raises:
        OutputError: Another command held the lock for a minute, or the directory cannot be written.
    """
    with locked(directory / _LOCK):
        yield


def _remove_abandoned(directory: Path) -> None:
    """Removes what killed commands left; the caller is the artifact's only writer."""
    for work in directory.glob(f"{_STAGING}*"):
        if not (directory / MANIFEST).exists():  # It was killed between the old manifest and the new one.
            for manifest in manifests_in(work / _REPLACED, work / "files"):
                remove_artifact(directory, manifest, keep_cache=True)
        shutil.rmtree(work, ignore_errors=True)
    for place in (directory, directory / EVIDENCE):
        remove_abandoned(place)


def check_output(directory: Path, *, force: bool, files: Collection[str] = _DEFAULT, again: bool = False) -> None:
    """Refuses, before any work is done, a directory that an artifact cannot be written to.

    Only what belongs to an artifact is replaced, and that only with ``force``: anything else by one of its names has to
    be moved away by whoever it is of.

    Args:
        directory: Where the artifact goes.
        force: Whether an artifact that is there may be replaced.
        files: Names of the files that will be written.
        again: Whether it was checked before: what is there now and was not then, another command has written meanwhile.

    Raises:
        OutputError: It is a file, holds an artifact (unless ``force``) or something else that would be replaced, or
            cannot be written.
    """
    try:
        directory.exists()
    except OSError as error:  # A name that is too long, for example.
        raise output_error(directory, error) from error
    if directory.exists() and not directory.is_dir():
        raise OutputError("the output is a file", where=str(directory), fix="name a directory")
    other = "choose another directory, or move it away: only what is known to be of an artifact is replaced"
    try:
        there = read_manifest(directory) if _stands(directory / MANIFEST) else None
    except ArtifactError as error:
        raise OutputError(
            f"the output holds a {MANIFEST} that cannot be read as an artifact's ({error.problem})",
            where=str(directory),
            fix=other,
        ) from error
    if there is not None and not force:
        raise OutputError(
            "an artifact was finished here meanwhile by another export"
            if again
            else "the output already holds an artifact",
            where=str(directory),
            fix="pass --force to replace it",
        )
    killed = manifests_in(
        *(place for work in directory.glob(f"{_STAGING}*") for place in (work / _REPLACED, work / "files"))
    )
    own = {name for manifest in ((there,) if there else killed) for name in listed_names(manifest)}
    foreign = [name for name in {*files, *map(data_file, files)} if name not in own and _stands(directory / name)]
    if _stands(directory / REPORT) and not is_own_report(directory / REPORT):
        foreign.append(REPORT)
    evidence = directory / EVIDENCE
    if _stands(evidence) and ((there is None and not own) or evidence.is_symlink() or not evidence.is_dir()):
        foreign.append(EVIDENCE)
    if foreign:
        raise OutputError(
            f"the output holds {join_names(sorted(foreign), limit=5)}, which would be replaced and belongs to no "
            "artifact here",
            where=str(directory),
            fix=other,
        )
    check_parents(directory / MANIFEST)


def _stands(path: Path) -> bool:
    """Whether something has that name, a link that leads nowhere too."""
    return os.path.lexists(path)
