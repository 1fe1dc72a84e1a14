"""Arrays with a sample in each row: ``.npy`` and ``.npz`` files, and arrays in memory."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.data.samples import Sample, draw
from s2mlp_deploy.errors import DataError
from s2mlp_deploy.text import join_names

ARRAY_EXTENSIONS = (".npy", ".npz")
LABELS = ("labels", "label")
"""Names under which labels are looked for among arrays."""

_MAX_ROW = 2**30
_NPY = ".npy"


class Column(Protocol):
    """An array [samples, ...] of which rows can be had."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, samples first."""

    def rows(self, indices: Sequence[int]) -> Iterator[NDArray[Any]]:
        """The rows at these ascending indices, one after the other."""


@dataclass(frozen=True, eq=False)
class InMemory:
    """An array that is in memory already."""

    array: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, samples first."""
        return self.array.shape

    def rows(self, indices: Sequence[int]) -> Iterator[NDArray[Any]]:
        """The rows at these indices."""
        return (np.asarray(self.array[index]) for index in indices)


@dataclass(frozen=True)
class Stored:
    """An array in a file, of which only one row at a time is read.

    Attributes:
        path: The ``.npy`` or ``.npz`` file.
        member: Its name in the ``.npz``.
        shape: Samples first.
        dtype: Of the values.
        offset: Where the values begin.
    """

    path: Path
    member: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int

    def rows(self, indices: Sequence[int]) -> Iterator[NDArray[Any]]:
        """The rows at these ascending indices."""
        shape = self.shape[1:]
        size = math.prod(shape) * self.dtype.itemsize
        with _damage_is_told(self.path), _open(self.path, self.member) as stream:
            for index in indices:
                stream.seek(self.offset + index * size)
                data = stream.read(size)
                if len(data) != size:
                    raise EOFError(f"it ends in row {index}")
                yield np.frombuffer(data, self.dtype).reshape(shape)


@dataclass(frozen=True, eq=False)
class ArrayCollection:
    """Samples in the rows of one or more arrays.

    Attributes:
        root: The file; a description of what is in memory.
        columns: The arrays by name.
        indices: The rows that were drawn, ascending.
        labels: Of each of them, if known; −1 where one is not.
        class_names: The names the labels are indices into, if known.
    """

    root: Path
    columns: Mapping[str, Column]
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
        rows = zip(*(column.rows(self.indices) for column in self.columns.values()), strict=True)
        for position, values in enumerate(rows):
            label = None if self.labels is None or self.labels[position] < 0 else self.labels[position]
            source = dict(zip(self.columns, values, strict=True))
            yield Sample(self.root / str(self.indices[position]), source, label)


def open_arrays(path: Path, *, classes: Sequence[str] | None, limit: int | None, seed: int) -> ArrayCollection:
    """Open an ``.npy`` or ``.npz`` file; see :func:`~s2mlp_deploy.data.collect.collect`.

    Raises:
        DataError: It is damaged, holds Python objects, or its arrays differ in length.
    """
    with _damage_is_told(path):
        if path.suffix.lower() == _NPY:
            return gather(path, {"": _stored(path, None)}, None, classes=classes, limit=limit, seed=seed)
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith(_NPY)]
        columns = {name.removesuffix(_NPY): _stored(path, name) for name in members}
    named = next((name for name in LABELS if name in columns and len(columns) > 1), None)
    labels = None
    if named is not None:
        column = columns.pop(named)
        labels = np.array(list(column.rows(range(column.shape[0]))))
    return gather(path, columns, labels, classes=classes, limit=limit, seed=seed)


def gather(
    root: Path,
    columns: Mapping[str, Column],
    labels: NDArray[Any] | None,
    *,
    classes: Sequence[str] | None,
    limit: int | None,
    seed: int,
) -> ArrayCollection:
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
    known = None if labels is None else check_labels(labels, classes, root)
    indices = draw([str(index) for index in range(count)], known, limit, seed)
    return ArrayCollection(
        root,
        columns,
        tuple(indices),
        None if known is None else tuple(known[index] for index in indices),
        None if classes is None else tuple(classes),
    )


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
    most = np.iinfo(np.int32).max if classes is None else len(classes) - 1
    wrong = labels[(labels < -1) | (labels > most)]
    if wrong.size:
        limit = "" if classes is None else f" to {most}, of the model's {len(classes)} classes"
        raise DataError(
            f"The label {wrong[0]} is no class", where=str(root), fix=f"give indices from 0{limit} (-1: not known)"
        )
    return [int(label) for label in labels]


def _stored(path: Path, member: str | None) -> Stored:
    """Read an array's header.

    Raises:
        DataError: Its values cannot be read row by row.
    """
    where = str(path / member) if member else str(path)
    with _open(path, member) as stream:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read is None:
            raise ValueError(f"version {version} of the npy format")
        shape, by_column, dtype = read(stream)
        offset = stream.tell()
    if dtype.hasobject or dtype.kind not in "biuf":
        raise DataError(f"The array holds {dtype}", where=where, fix="store numbers: uint8 pictures or float inputs")
    if by_column and len(shape) > 1:
        raise DataError("The array is stored column by column", where=where, fix="store numpy.ascontiguousarray(array)")
    if math.prod(shape[1:]) * dtype.itemsize > _MAX_ROW:
        raise DataError(f"A row of the array {shape} is larger than 1 GiB", where=where, fix="put the samples first")
    return Stored(path, member, shape, dtype, offset)


@contextmanager
def _open(path: Path, member: str | None) -> Iterator[IO[bytes]]:
    with ExitStack() as stack:
        if member is None:
            yield stack.enter_context(path.open("rb"))
        else:
            yield stack.enter_context(stack.enter_context(zipfile.ZipFile(path)).open(member))


@contextmanager
def _damage_is_told(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise DataError(
            f"The arrays cannot be read: {str(error) or type(error).__name__}",
            where=str(path),
            fix="save them again with numpy.save or numpy.savez",
        ) from error
