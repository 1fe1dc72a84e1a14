"""Directories that Hugging Face's ``datasets`` wrote with ``save_to_disk``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from s2mlp_deploy.data.arrays import LABELS, check_labels
from s2mlp_deploy.data.layout import match_classes
from s2mlp_deploy.data.samples import Content, Sample, draw
from s2mlp_deploy.errors import DataError, ImageError, MissingDependencyError
from s2mlp_deploy.text import join_names

_WHOLE, _PARTS = "state.json", "dataset_dict.json"


def is_dataset(path: Path) -> bool:
    """Whether ``datasets`` saved this directory."""
    return any((path / name).is_file() for name in (_WHOLE, _PARTS))


@dataclass(frozen=True, eq=False)
class DatasetCollection:
    """Rows of a saved data set; read one by one from its memory-mapped files.

    Attributes:
        root: The directory.
        table: The ``datasets.Dataset``; its images are not decoded.
        images: The column of images; None if the rows are arrays.
        arrays: The columns of arrays.
        indices: The rows that were drawn, ascending.
        labels: Of each of them, if known.
        class_names: The names the labels are indices into, if known.
    """

    root: Path
    table: Any
    images: str | None
    arrays: tuple[str, ...]
    indices: tuple[int, ...]
    labels: tuple[int, ...] | None
    class_names: tuple[str, ...] | None

    @property
    def labelled(self) -> bool:
        """Whether there are labels."""
        return self.labels is not None

    def __len__(self) -> int:
        """Return the number of rows drawn."""
        return len(self.indices)

    def __iter__(self) -> Iterator[Sample]:
        """Read row after row."""
        for position, index in enumerate(self.indices):
            where = self.root / str(index)
            label = None if self.labels is None or self.labels[position] < 0 else self.labels[position]
            row = self.table[index]
            source: Content = (
                {name: np.asarray(row[name]) for name in self.arrays}
                if self.images is None
                else _image(row[self.images], where)
            )
            yield Sample(where, source, label)


def open_dataset(path: Path, *, classes: Sequence[str] | None, limit: int | None, seed: int) -> DatasetCollection:
    """Open a saved data set; see :func:`~s2mlp_deploy.data.collect.collect`.

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
    indices = draw([str(index) for index in range(len(table))], labels, limit, seed)
    return DatasetCollection(
        path,
        table,
        images[0] if images else None,
        arrays,
        tuple(indices),
        None if labels is None else tuple(labels[index] for index in indices),
        names,
    )


def _image(entry: Mapping[str, Any] | None, where: Path) -> Content:
    if entry and entry.get("bytes") is not None:
        return bytes(entry["bytes"])
    if entry and entry.get("path"):
        return Path(entry["path"])
    return ImageError("The row has no image", where=str(where), fix="save the data set without such rows")


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
