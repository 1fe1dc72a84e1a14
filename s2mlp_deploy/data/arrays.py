"""Arrays with a sample in each row: ``.npy`` files (mapped), ``.npz`` files (unpacked), and arrays in memory."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.data.archive import check_members
from s2mlp_deploy.data.layout import MAX_LABEL
from s2mlp_deploy.data.samples import RowCollection, check_count, draw_rows
from s2mlp_deploy.errors import DataError
from s2mlp_deploy.text import first_line_of, join_names

ARRAY_EXTENSIONS = (".npy", ".npz")
LABELS = ("labels", "label")
"""Names under which labels are looked for among arrays."""

MAX_NPZ = 4 * 2**30
"""Bytes of the arrays of an ``.npz``, which are unpacked into memory as a whole; an ``.npy`` is mapped."""

_NPY = ".npy"


def open_arrays(path: Path, *, classes: Sequence[str] | None, limit: int | None, seed: int) -> RowCollection:
    """Open an ``.npy`` or ``.npz`` file; see :func:`~s2mlp_deploy.data.collect.collect`.

    Raises:
        DataError: It is damaged, holds Python objects, or its arrays differ in length.
    """
    if not path.is_file():
        raise DataError("This is no regular file", where=str(path), fix="name a file of arrays")
    with _damage_is_told(path):
        if path.suffix.lower() == _NPY:
            columns = {"": np.load(path, mmap_mode="r", allow_pickle=False)}
        else:
            columns = _unpack(path)
        # Members of an archive that are no arrays come as bytes; an .npy that is an archive comes as one.
        if strange := [name for name, column in columns.items() if not isinstance(column, np.ndarray)]:
            raise ValueError(f"{strange[0] or 'it'} is no array")
    for name, column in columns.items():
        if column.dtype.hasobject or column.dtype.kind not in "biuf":
            where = str(path / name) if name else str(path)
            raise DataError(
                f"The array holds {column.dtype}", where=where, fix="store numbers: uint8 images or float inputs"
            )
    named = next((name for name in LABELS if name in columns and len(columns) > 1), None)
    labels = columns.pop(named) if named is not None else None
    return gather(path, columns, labels, classes=classes, limit=limit, seed=seed)


def _unpack(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz``.

    Raises:
        DataError: They would take more than :data:`MAX_NPZ` bytes of memory.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    check_members(path, members)
    size = sum(member.file_size for member in members)
    if size > MAX_NPZ:
        raise DataError(
            f"The arrays take {size / 2**30:.1f} GiB, more than {MAX_NPZ // 2**30} GiB of memory",
            where=str(path),
            fix="store an .npy file, which is read row by row",
        )
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}  # Names that come twice are one.


def gather(
    root: Path,
    columns: Mapping[str, NDArray[Any]],
    labels: NDArray[Any] | None,
    *,
    classes: Sequence[str] | None,
    limit: int | None,
    seed: int,
) -> RowCollection:
    """Make a collection of arrays.

    Args:
        root: What messages call them.
        columns: The arrays by name; samples first.
        labels: Whole numbers, one a sample, if known; −1 where one is not.
        classes: The model's class names.
        limit: Most samples to draw.
        seed: Chooses them.

    Raises:
        DataError: There is no array or no row, lengths differ, or a label is no class.
    """
    lengths = {name: column.shape[0] if column.shape else -1 for name, column in columns.items()}
    if not columns or set(lengths.values()) in ({0}, {-1}):
        raise DataError("There is no sample in it", where=str(root), fix="store arrays with a sample in each row")
    if labels is not None:
        if not labels.ndim:
            raise DataError(
                "There is one label for a whole batch", where=str(root), fix="give a label for each of its samples"
            )
        lengths["labels"] = len(labels)
    if len(set(lengths.values())) != 1:
        listed = join_names(f"{name or 'array'} {length}" for name, length in lengths.items())
        raise DataError(f"The arrays differ in length: {listed}", where=str(root), fix="give all a row for each sample")
    count = next(iter(lengths.values()))
    check_count(root, count)
    known = None if labels is None else check_labels(labels, classes, root)

    def read(index: int) -> dict[str, NDArray[Any]]:
        # A copy, so that a mapped file's pages are not kept alive by a row.
        return {name: np.array(column[index]) for name, column in columns.items()}

    names = None if classes is None else tuple(classes)
    return draw_rows(root, read, count, labels=known, class_names=names, limit=limit, seed=seed)


def check_labels(labels: NDArray[Any], classes: Sequence[str] | None, root: Path) -> list[int]:
    """Check labels that are stored as numbers.

    Raises:
        DataError: They are no list of whole numbers, or one is no class.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"The labels are {labels.dtype} of shape {labels.shape}",
            where=str(root),
            fix="store one whole number a sample: the index of its class",
        )
    most = MAX_LABEL if classes is None else len(classes) - 1
    wrong = labels[(labels < -1) | (labels > most)]
    if wrong.size:
        limit = "" if classes is None else f" to {most}, of the model's {len(classes)} classes"
        raise DataError(
            f"The label {wrong[0]} is no class", where=str(root), fix=f"give indices from 0{limit} (-1: not known)"
        )
    return [int(label) for label in labels]


@contextmanager
def _damage_is_told(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # On damaged bytes NumPy raises whatever zip, zlib, its tokenizer and its types raise.
        raise DataError(
            f"The arrays cannot be read: {first_line_of(error)}",
            where=str(path),
            fix="save arrays of numbers again, with numpy.save or numpy.savez",
        ) from error
