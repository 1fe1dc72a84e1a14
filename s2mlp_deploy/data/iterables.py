"""Samples from Python: arrays, dictionaries of arrays, images and pairs of those with a label."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from s2mlp_deploy.data.arrays import LABELS, check_labels, gather
from s2mlp_deploy.data.samples import Collection, Content, Sample, check_limit, draw
from s2mlp_deploy.errors import DataError

MAX_HELD = 1024
"""Samples that are held of an iterable that can only be walked through, unless ``limit`` says how many."""

_IMAGE = (str, Path, bytes, Image.Image)


@dataclass(frozen=True, eq=False)
class SequenceCollection:
    """Samples of something with a length and an index, fetched when they are needed.

    Attributes:
        root: What messages call it.
        items: The sequence.
        ranks: Axes of each input, the batch among them.
        indices: The items that were drawn, ascending.
        labelled: Whether the items have labels.
        class_names: The names the labels are indices into, if known.
    """

    root: Path
    items: Sequence[Any]
    ranks: Mapping[str, int]
    indices: tuple[int, ...]
    labelled: bool
    class_names: tuple[str, ...] | None

    def __len__(self) -> int:
        """Return the number of items drawn."""
        return len(self.indices)

    def __iter__(self) -> Iterator[Sample]:
        """Fetch item after item."""
        for index in self.indices:
            where = self.root / str(index)
            try:
                item = self.items[index]
            except OSError as error:
                raise _unreadable(error, where) from error
            yield from _samples(item, where, self.ranks, self.class_names)


@dataclass(frozen=True, eq=False)
class HeldCollection:
    """Samples that were taken from an iterator and are held in memory; fields as of ``SequenceCollection``."""

    root: Path
    samples: tuple[Sample, ...]
    class_names: tuple[str, ...] | None

    @property
    def labelled(self) -> bool:
        """Whether any sample has a label."""
        return any(sample.label is not None for sample in self.samples)

    def __len__(self) -> int:
        """Return the number of samples held."""
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        """Iterate over the samples."""
        return iter(self.samples)


def open_iterable(
    data: Iterable[Any],
    ranks: Mapping[str, int],
    *,
    classes: Sequence[str] | None,
    limit: int | None,
    seed: int,
) -> Collection:
    """Make a collection of a Python object.

    An item is an image (Pillow, a path, the bytes of a file, uint8 [height, width, 3]), an array, a dictionary of
    arrays by input name (``labels`` may be among them), or a pair of one of these and its label. Arrays with as many
    axes as the model's input are batches and taken apart. One array [samples, ...] or a dictionary of such is taken
    like an ``.npz`` file.

    What has a length and an index (a list, a data set) is drawn from by ``seed`` and never held as a whole. Of
    anything else (a generator, a loader that shuffles) the first ``limit`` samples are held.

    Args:
        data: The object.
        ranks: Axes of each of the model's inputs, the batch among them.
        classes: The model's class names.
        limit: Most samples to take.
        seed: Chooses them.

    Raises:
        DataError: It is empty or cannot be iterated, an item cannot be a sample, or there are more than ``MAX_HELD``
            samples in an iterator and no limit.
    """
    check_limit(limit)
    root = Path(f"<{type(data).__name__}>")
    names = None if classes is None else tuple(classes)
    if isinstance(data, np.ndarray | Mapping):
        arrays = {"": data} if isinstance(data, np.ndarray) else {key: _array(value) for key, value in data.items()}
        labels = next((arrays.pop(name) for name in LABELS if name in arrays and name not in ranks), None)
        return gather(root, arrays, labels, classes=classes, limit=limit, seed=seed)
    if isinstance(data, str | bytes) or (not hasattr(data, "__iter__") and not hasattr(data, "__getitem__")):
        raise DataError(
            f"The data is a {type(data).__name__}", fix="give a path, an array, or something to iterate over"
        )
    items: Any = data
    if hasattr(items, "__getitem__") and hasattr(items, "__len__") and len(items) and not _is_batched(items[0], ranks):
        (first,) = _samples(items[0], root / "0", ranks, names)
        indices = draw([str(index) for index in range(len(items))], None, limit, seed)
        return SequenceCollection(root, items, ranks, tuple(indices), first.label is not None, names)
    return HeldCollection(root, _held(data, root, ranks, names, limit), names)


def _held(
    data: Iterable[Any], root: Path, ranks: Mapping[str, int], classes: tuple[str, ...] | None, limit: int | None
) -> tuple[Sample, ...]:
    found = itertools.chain.from_iterable(
        _samples(item, root / str(index), ranks, classes) for index, item in enumerate(_read(data, root))
    )
    held = tuple(itertools.islice(found, limit or MAX_HELD + 1))
    if limit is None and len(held) > MAX_HELD:
        raise DataError(
            f"There are more than {MAX_HELD} samples in something that can only be walked through",
            where=str(root),
            fix="say how many samples to take, or give something with a length and an index",
        )
    if not held:
        raise DataError("There is no sample in it", where=str(root), fix="a generator can be walked through only once")
    return held


def _read(data: Iterable[Any], root: Path) -> Iterator[Any]:
    """The items of an iterable, whose errors of reading name the item."""
    count = 0
    try:
        for item in data:
            yield item
            count += 1
    except OSError as error:
        raise _unreadable(error, root / str(count)) from error


def _unreadable(error: OSError, where: Path) -> DataError:
    file = f": {error.filename}" if error.filename is not None else ""
    return DataError(
        f"An item of the data cannot be read: {error.strerror or error}{file}",
        where=str(where),
        fix="make sure that the data gives every item, or leave this one out",
    )


def _samples(item: Any, where: Path, ranks: Mapping[str, int], classes: Sequence[str] | None) -> Iterator[Sample]:
    """Take an item apart: one sample, or the samples of a batch."""
    content, labels = _split_label(item, ranks)
    if isinstance(content, str):
        content = Path(content)
    if isinstance(content, Path | bytes | Image.Image):
        yield Sample(where, content, _one_label(labels, classes, where))
        return
    arrays = (
        {str(name): _array(value) for name, value in content.items()}
        if isinstance(content, Mapping)
        else {"": _array(content)}
    )
    if not arrays or any(array.dtype.kind not in "biuf" for array in arrays.values()):
        raise DataError(
            f"An item of the data is a {type(content).__name__}",
            where=str(where),
            fix="give images, arrays, dictionaries of arrays by input name, or pairs of one and its label",
        )
    if not _is_batch(arrays, ranks):
        yield Sample(where, _plain(arrays), _one_label(labels, classes, where))
        return
    rows = gather(
        where,
        arrays,
        None if labels is None else np.asarray(labels),
        classes=classes,
        limit=None,
        seed=0,
    )
    yield from (Sample(row.path, _plain(row.source), row.label) for row in rows)  # type: ignore[arg-type]


def _split_label(item: Any, ranks: Mapping[str, int]) -> tuple[Any, Any]:
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], item[1]
    if isinstance(item, Mapping):
        named = next((name for name in LABELS if name in item and name not in ranks), None)
        rest = {name: value for name, value in item.items() if name != named}
        lone = next(iter(rest.values())) if len(rest) == 1 else None
        content = lone if isinstance(lone, _IMAGE) else rest
        return content, None if named is None else item[named]
    return item, None


def _is_batched(item: Any, ranks: Mapping[str, int]) -> bool:
    content, _ = _split_label(item, ranks)
    if isinstance(content, _IMAGE):
        return False
    arrays = content if isinstance(content, Mapping) else {"": content}
    return _is_batch({name: _array(value) for name, value in arrays.items()}, ranks)


def _is_batch(arrays: Mapping[str, NDArray[Any]], ranks: Mapping[str, int]) -> bool:
    lone = next(iter(ranks.values())) if len(ranks) == 1 else None
    return all(array.ndim == ranks.get(name, lone) for name, array in arrays.items())


def _plain(arrays: Mapping[str, NDArray[Any]]) -> Content:
    return next(iter(arrays.values())) if list(arrays) == [""] else arrays


def _array(value: Any) -> NDArray[Any]:
    # A torch tensor that needs gradients refuses to become an array; detaching needs no import of torch.
    return np.asarray(value.detach() if hasattr(value, "detach") else value)


def _one_label(label: Any, classes: Sequence[str] | None, where: Path) -> int | None:
    if label is None:
        return None
    try:
        index = operator.index(label)
    except TypeError:
        raise DataError(
            f"A label is {label!r}", where=str(where), fix="give the index of the class, a whole number"
        ) from None
    return None if index == -1 else check_labels(np.asarray([index]), classes, where)[0]
