"""Directories that Hugging Face's ``datasets`` wrote with ``save_to_disk``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from s2mlp_deploy.data.arrays import LABELS, check_labels
from s2mlp_deploy.data.layout import match_classes
from s2mlp_deploy.data.samples import Content, RowCollection, draw_rows
from s2mlp_deploy.errors import DataError, ImageError, MissingDependencyError
from s2mlp_deploy.files import inside
from s2mlp_deploy.text import join_names

_WHOLE, _PARTS = "state.json", "dataset_dict.json"


def is_dataset(path: Path) -> bool:
    """Whether ``datasets`` saved this directory."""
    return any((path / name).is_file() for name in (_WHOLE, _PARTS))


def open_dataset(path: Path, *, classes: Sequence[str] | None, limit: int | None, seed: int) -> RowCollection:
    """Open a saved data set; see :func:`~s2mlp_deploy.data.collect.collect`. Its rows are memory-mapped.

    Raises:
        DataError: It is damaged, has several parts, no usable column, or a class that the model has not.
        MissingDependencyError: ``datasets`` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError("datasets", extra="datasets", purpose=f"Reading {path.name}") from error
    try:
        table = datasets.load_from_disk(str(path))
    except Exception as error:  # pyarrow's errors and Python's alike, by what is damaged
        fix = "save it again with save_to_disk"
        raise DataError(f"The data set cannot be read: {error}", where=str(path), fix=fix) from error
    if isinstance(table, datasets.DatasetDict):
        parts = list(table)
        fix = f"name one, as in {path / parts[0]}" if parts else "save it again"
        raise DataError(f"The data set has parts: {join_names(parts)}", where=str(path), fix=fix)
    features = table.features
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    if len(images) > 1:
        raise DataError(
            f"Several columns hold images: {join_names(images)}",
            where=str(path),
            fix="save it with one (remove_columns)",
        )
    named = _label_column(features, datasets.ClassLabel)
    labels, names = _labels(table, named, features, classes, path)
    arrays = tuple(name for name in features if name != named and not images)
    if not images and not arrays:
        raise DataError(
            f"No column can be an input: {join_names(features)}", where=str(path), fix="save images or arrays"
        )
    if images:
        # Encoded, so that worker threads decode and the content hash is that of the files.
        table = table.cast_column(images[0], datasets.Image(decode=False))
    else:
        table = table.with_format("numpy", columns=list(arrays))

    def read(index: int) -> Content:
        row = table[index]
        return _image(row[images[0]], path, index) if images else {name: np.asarray(row[name]) for name in arrays}

    return draw_rows(path, read, len(table), labels=labels, class_names=names, limit=limit, seed=seed)


def _image(entry: Mapping[str, Any] | None, path: Path, index: int) -> Content:
    where = str(path / str(index))
    if entry and entry.get("bytes") is not None:
        return bytes(entry["bytes"])
    if entry and entry.get("path"):
        # A data set comes from somewhere: its rows choose none of this machine's files.
        file = inside(path, entry["path"])
        if file is not None:
            return file
        problem = f"The row names a file outside of the data set: {entry['path']}"
        return ImageError(problem, where=where, fix="save the data set with the images in it")
    return ImageError("The row has no image", where=where, fix="save the data set without such rows")


def _label_column(features: Mapping[str, Any], class_label: type) -> str | None:
    labels = [name for name, feature in features.items() if isinstance(feature, class_label)]
    if len(labels) == 1:
        return labels[0]
    return next((name for name in LABELS if name in features), None)


def _labels(
    table: Any, named: str | None, features: Mapping[str, Any], classes: Sequence[str] | None, path: Path
) -> tuple[list[int] | None, tuple[str, ...] | None]:
    """Return the labels as indices into the model's classes, or into the data's own."""
    known = None if classes is None else tuple(classes)
    if named is None:
        return None, known
    own = getattr(features[named], "names", None)
    stored = [-1 if label is None else label for label in table[named]]
    labels = check_labels(np.asarray(stored), own or classes, path)
    if own is None or known is None:
        return labels, known or (tuple(own) if own else None)
    label_of = match_classes(path, [own[label] for label in sorted(set(labels)) if label >= 0], known)
    return [label_of[own[label]] if label >= 0 else -1 for label in labels], known
