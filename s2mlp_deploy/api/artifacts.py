"""What an artifact says of the source it was exported from: nobody is asked for that again.

A manifest names its checkpoint without a folder: the same inputs give the same bytes wherever they lie, and nothing of
a machine goes with the artifact. The file is found again by its name and hash, in the few folders where it usually is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePath
from typing import Any

from s2mlp_deploy.artifact import MANIFEST, SourceInfo, read_manifest
from s2mlp_deploy.errors import CheckpointError
from s2mlp_deploy.files import is_plain_name, sha256_of
from s2mlp_deploy.preprocess import Preprocessing, Sidecar
from s2mlp_deploy.text import join_names

LOG = logging.getLogger(__name__)

_MOST_FOLDERS = 1000
"""Folders in one place that are looked into."""
_NOT_OF_CONFIG = "checkpoint_layout"
"""What a manifest's configuration holds beside the fields of the model's."""


@dataclass(frozen=True)
class Known:
    """What a source is loaded with, as far as an artifact knows it.

    Attributes:
        checkpoint: The file with the artifact's weights; None where it has none of a file, or another is given.
        overrides: What was set of the configuration, or of a factory's arguments.
        description: Configuration, preprocessing and class names.
        seed: Of random weights; None where they are not random.
    """

    checkpoint: Path | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    description: Sidecar | None = None
    seed: int | None = None


def known_of(source: str, files: Sequence[Path], *, checkpoint: Path | None) -> Known:
    """What the artifact of the first file that is part of one knows of a source.

    Preprocessing and class names are of the artifact's inputs and outputs, and so of any source it is compared with;
    weights, settings and seed only of the source that it was exported from.

    Args:
        source: What the user named.
        files: ONNX and engine files.
        checkpoint: Weights that the user named.

    Raises:
        CheckpointError: The artifact's weights are of a file that is in none of the usual places.
    """
    for path in files:
        if not (path.parent / MANIFEST).is_file():
            continue
        manifest = read_manifest(path.parent)
        if path.name not in {record.path for record in manifest.files}:
            continue
        told = manifest.source
        same = is_same_source(told.reference, source)
        description = Sidecar(
            architecture=None,
            config={name: value for name, value in told.config.items() if name != _NOT_OF_CONFIG} if same else {},
            preprocessing=Preprocessing.from_dict(manifest.preprocessing) if manifest.preprocessing else None,
            classes=manifest.classes,
        )
        if not same:
            return Known(description=description)
        # A program has its weights inside: its manifest names the program once more.
        if told.checkpoint and checkpoint is None and not source.endswith((".pt2", ".onnx")):
            checkpoint = find_checkpoint(told, path.parent, source)
            LOG.info("the artifact's weights: %s", checkpoint)
        return Known(checkpoint, dict(told.overrides), description, told.seed)
    return Known()


def is_same_source(told: str, given: str) -> bool:
    """Whether what the user names is what a manifest names: folders of files may differ."""
    return told == given or (PurePath(told).name == PurePath(given).name and _is_file(told) and _is_file(given))


def _is_file(reference: str) -> bool:
    return reference.endswith((".pt2", ".onnx")) or reference.partition(":")[0].endswith(".py")


def find_checkpoint(told: SourceInfo, artifact: Path, source: str) -> Path:
    """The file with an artifact's weights, by the name and hash that its manifest keeps.

    It is looked for in the current folder, in the artifact, beside it and beside the source's file, and in the folders
    in each of them.

    Args:
        told: What the manifest says of the source.
        artifact: Its directory.
        source: What the user names as the source.

    Raises:
        CheckpointError: It is not there; says where it was looked for.
    """
    name = told.checkpoint or ""
    usual = (Path(), artifact, artifact.parent, *((Path(source).parent,) if ".py:" in source else ()))
    places: dict[Path, Path] = {}
    for place in usual:  # Each once, in the words of the user.
        places.setdefault(place.resolve(), place)
    others = []
    if is_plain_name(name):
        for path in (folder / name for place in places.values() for folder in _folders_of(place)):
            if path.is_file():
                if sha256_of(path) == told.checkpoint_sha256:
                    return path
                others.append(path)
    raise CheckpointError(
        f"the artifact's weights are not found: {name}"
        + (f"; {join_names(others)} has other contents" if others else ""),
        where=f"looked in {join_names(places.values())} and in the folders there",
        fix=f"add --checkpoint PATH, the place of {name} (its sha256 begins with {str(told.checkpoint_sha256)[:12]})",
    )


def _folders_of(place: Path) -> Iterator[Path]:
    yield place
    try:
        with os.scandir(place) as entries:
            names = sorted(entry.name for entry in islice(entries, 10 * _MOST_FOLDERS) if _is_visible_folder(entry))
    except OSError:
        return
    yield from (place / name for name in names[:_MOST_FOLDERS])


def _is_visible_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir() and not entry.name.startswith(".")
    except OSError:
        return False
