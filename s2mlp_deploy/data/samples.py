"""Samples: what a collection is made of, how it is listed, and how a few are drawn from many."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from s2mlp_deploy.errors import DataError, ImageError
from s2mlp_deploy.preprocess import Source

Content: TypeAlias = Source | NDArray[Any] | Mapping[str, NDArray[Any]] | ImageError
"""An image (a file, the bytes of one, decoded), an array, arrays by input name, or why it could not be read."""

MAX_SAMPLES = 2_000_000
"""Most samples of a collection: ImageNet has 1.3 million."""

_SKIPS_REMEMBERED = 20


@dataclass(frozen=True)
class Sample:
    """One sample of a collection.

    Attributes:
        path: Where it is. For what has no file of its own: the archive's or array's path with the member's name
            or the row behind it.
        source: What it is. Arrays have no batch axis.
        label: Index of its class, if known.
    """

    path: Path
    source: Content
    label: int | None


class Collection(Protocol):
    """What ``batches`` needs: a length, class names, and samples that can be gone through again and again."""

    @property
    def root(self) -> Path:
        """The folder or file the samples come from."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names the labels are indices into, if known."""

    @property
    def labelled(self) -> bool:
        """Whether the samples have labels."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def __iter__(self) -> Iterator[Sample]:
        """Iterate over all samples, from the first, in an order that never changes."""


@dataclass(frozen=True, eq=False)
class RowCollection:
    """Samples in rows that are read one by one.

    Attributes:
        root: The file or directory; a description of what is in memory.
        read: The content of a row, by its number.
        indices: The rows that were drawn, ascending.
        labels: Of each of them, if known; −1 where one is not.
        class_names: The names the labels are indices into, if known.
    """

    root: Path
    read: Callable[[int], Content]
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
            label = None if self.labels is None or self.labels[position] < 0 else self.labels[position]
            yield Sample(self.root / str(index), self.read(index), label)


@dataclass
class Skipped:
    """Samples that were left out because they could not be used.

    Attributes:
        count: How many.
        examples: The path and the problem of the first of them. It stays short however many there are.
    """

    count: int = 0
    examples: list[tuple[Path, str]] = field(default_factory=list)

    def copy(self) -> Skipped:
        """One that is filled on its own."""
        return Skipped(self.count, list(self.examples))

    def add(self, path: Path, problem: str) -> None:
        """Count one sample."""
        self.count += 1
        if len(self.examples) < _SKIPS_REMEMBERED:
            self.examples.append((path, problem))


def check_limit(limit: int | None) -> None:
    """Refuse to draw fewer than one sample.

    Raises:
        DataError: The limit is below 1.
    """
    if limit is not None and limit < 1:
        raise DataError(f"A sample of {limit} was asked for", fix="give a limit of at least 1")


def check_count(root: Path, count: int) -> None:
    """Refuse more samples than a list of them fits into memory: a header of a hundred bytes claims any number.

    Raises:
        DataError: There are more than :data:`MAX_SAMPLES`.
    """
    if count > MAX_SAMPLES:
        raise DataError(
            f"There are {count:,} samples, at most {MAX_SAMPLES:,} can be drawn from",
            where=str(root),
            fix="give a part of them",
        )


def draw(names: Sequence[str], labels: Sequence[int] | None, limit: int | None, seed: int) -> list[int]:
    """Draw samples by a hash of seed and name: neither Python's version nor other samples change a rank.

    Args:
        names: What each sample is called.
        labels: Their classes; as many are drawn of each as of any other, as far as they reach.
        limit: How many; None for all. A larger limit extends the draw of a smaller one.
        seed: Chooses the draw.

    Returns:
        Indices, ascending.

    Raises:
        DataError: The limit is below 1.
    """
    check_limit(limit)
    if limit is None:
        return list(range(len(names)))

    def rank(index: int) -> bytes:
        return hashlib.sha256(f"{seed}:{names[index]}".encode("utf-8", "surrogateescape")).digest()

    classes = labels or (0,) * len(names)
    taken: Counter[int] = Counter()
    keyed: list[tuple[int, bytes, int]] = []
    for digest, index in sorted((rank(index), index) for index in range(len(names))):
        # First every class's first sample, then every class's second, and so on: that balances the classes.
        keyed.append((taken[classes[index]], digest, index))
        taken[classes[index]] += 1
    return sorted(index for _, _, index in sorted(keyed)[:limit])


def draw_rows(
    root: Path,
    read: Callable[[int], Content],
    count: int,
    *,
    labels: Sequence[int] | None,
    class_names: tuple[str, ...] | None,
    limit: int | None,
    seed: int,
) -> RowCollection:
    """A collection of rows, of which a few are drawn; see :class:`RowCollection` and :func:`draw`.

    Raises:
        DataError: There are more rows than can be drawn from.
    """
    check_count(root, count)
    indices = tuple(draw([str(index) for index in range(count)], labels, limit, seed))
    drawn = None if labels is None else tuple(labels[index] for index in indices)
    return RowCollection(root, read, indices, drawn, class_names)


def digest(sample: Sample) -> bytes:
    """The SHA-256 of a sample's content: of encoded images their bytes, of arrays type, shape and values.

    Names, labels and times are not in it. What cannot be read has the digest of nothing.
    """
    found = hashlib.sha256()
    source = sample.source
    if isinstance(source, Path):
        if not source.is_file():  # Opening a pipe would wait for its writer.
            return found.digest()
        try:
            with source.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").digest()
        except OSError:
            return found.digest()
    if isinstance(source, bytes):
        found.update(source)
    elif isinstance(source, Image.Image):
        try:
            pixels = source.tobytes()  # of a file that is not decoded yet, this decodes
        except (OSError, SyntaxError):
            return found.digest()
        found.update(f"{source.mode} {source.size}".encode() + pixels)
    elif isinstance(source, np.ndarray):
        _digest_array(found, source)
    elif isinstance(source, Mapping):
        for name in sorted(source):
            # The name of a lone array is a matter of taste: arr_0, images, input.
            found.update(name.encode() if len(source) > 1 else b"")
            _digest_array(found, source[name])
    return found.digest()


def _digest_array(found: hashlib._Hash, array: NDArray[Any]) -> None:
    found.update(f"{array.dtype.str} {array.shape}".encode())
    found.update(np.ascontiguousarray(array).tobytes())
