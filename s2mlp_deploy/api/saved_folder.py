"""A folder of tensors with an index that says what they are: where one may be written, and reading it."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray
from safetensors.numpy import load

from s2mlp_deploy.errors import ArtifactError, OutputError
from s2mlp_deploy.files import check_parents, from_json, is_plain_name, is_regular, read_file, sha256_of

T = TypeVar("T")


@dataclass(frozen=True)
class FolderKind:
    """What is kept in folders of one kind.

    Attributes:
        name: What the index calls it.
        version: Of the index that is written and read.
        index: Name of that file.
        again: What makes such a folder, in words.
    """

    name: str
    version: int
    index: str
    again: str


def check_place(directory: Path) -> None:
    """Refuses a place for a folder where something is already.

    Raises:
        OutputError: It exists, or cannot be written.
    """
    check_parents(directory)
    if os.path.lexists(directory):
        raise OutputError("something is there already", where=str(directory), fix="name a new folder")


def read_index(directory: Path, kind: FolderKind, of: type[T]) -> T:
    """What the index of a folder says.

    Args:
        directory: The folder.
        kind: What must be in it.
        of: What its index is decoded to.

    Raises:
        ArtifactError: It is of another kind or version, damaged, or not there.
    """
    path = directory / kind.index
    if not path.is_file():
        raise ArtifactError(f"there are no {kind.name}", where=str(directory), fix="name a folder that --save wrote")
    try:
        document = read_file(path, "evidence")
        head = from_json(document)
        if not isinstance(head, Mapping) or head.get("kind") != kind.name:
            raise ArtifactError(f"it holds no {kind.name}", where=str(path), fix="name a folder that --save wrote")
        if (version := head.get("schema_version")) != kind.version:
            raise ArtifactError(
                f"it is of schema version {reprlib.repr(version)}, this package reads {kind.version}",
                where=str(path),
                fix=kind.again,
            )
        index: T = from_json(document, of)
        return index
    except (OSError, ValueError) as error:
        raise ArtifactError(f"it is damaged: {error}", where=str(path), fix=kind.again) from error


def read_tensors(directory: Path, name: str, sha256: str, kind: FolderKind) -> dict[str, NDArray[Any]]:
    """The tensors of a file of a folder.

    Args:
        directory: The folder.
        name: The file's, as the index tells it.
        sha256: Its hash when it was saved.
        kind: What is in the folder.

    Raises:
        ArtifactError: It is missing, or another than was saved.
    """
    path = directory / name
    if not is_plain_name(name) or not is_regular(path):
        raise ArtifactError(f"a file of the {kind.name} is missing", where=str(path), fix=kind.again)
    if sha256_of(path) != sha256:
        raise ArtifactError(
            "the file is damaged: it has another hash than when it was saved", where=str(path), fix=kind.again
        )
    try:
        found: dict[str, NDArray[Any]] = load(path.read_bytes())
        return found
    except Exception as error:  # safetensors raises a type of its own, and KeyError of types that NumPy has not.
        raise ArtifactError(f"it is damaged: {error}", where=str(path), fix=kind.again) from error
