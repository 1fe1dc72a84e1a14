"""Collections of pictures, and batches of model inputs made from them.

A collection is anything that satisfies ``Collection``: it knows its length and class names and can be
iterated, each time from the start, as ``Sample`` records. ``collect`` makes one from a folder or a file;
archives become further classes beside ``ImageCollection``, and ``batches`` does not change for them.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from s2mlp_deploy.errors import DataError, ImageError, InputError
from s2mlp_deploy.preprocess import FloatArray, Preprocessing, Source, open_image, to_array

IMAGE_EXTENSIONS = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".bmp",
    ".gif",
    ".webp",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
)
"""File name endings that are taken for pictures, in any case."""

_SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test"})
_NAMES_SHOWN = 8
_SKIPS_REMEMBERED = 20


@dataclass(frozen=True)
class Sample:
    """One picture of a collection.

    Attributes:
        path: Where it is; for a picture in an archive, the archive's path with the member's name behind it.
        source: What to decode: a file, the bytes of one, or a picture.
        label: Index of its class, if known.
    """

    path: Path
    source: Source
    label: int | None


class Collection(Protocol):
    """What ``batches`` needs of a collection of pictures."""

    @property
    def root(self) -> Path:
        """The folder or file the pictures come from."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names the labels are indices into, if known."""

    def __len__(self) -> int:
        """Return the number of pictures."""

    def __iter__(self) -> Iterator[Sample]:
        """Iterate over all pictures, from the first, in an order that never changes."""


@dataclass(frozen=True)
class ImageCollection:
    """Picture files on disk.

    Attributes:
        paths: The files, sorted by folder and name.
        labels: For each file the index of its class; None if the folder says nothing about classes.
        class_names: The names the labels are indices into; None if they are not known.
        root: The folder they come from.
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...] | None
    class_names: tuple[str, ...] | None
    root: Path

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.paths)

    def __iter__(self) -> Iterator[Sample]:
        """Iterate over the files in their order."""
        for index, path in enumerate(self.paths):
            yield Sample(path, path, None if self.labels is None else self.labels[index])


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch of model inputs.

    Attributes:
        array: float32, shape (batch, channels, height, width).
        labels: int64, shape (batch,); None if a picture of the batch has no label.
        paths: Where the pictures are.
    """

    array: FloatArray
    labels: npt.NDArray[np.int64] | None
    paths: tuple[Path, ...]


@dataclass
class Skipped:
    """Pictures that were left out because they could not be used.

    Attributes:
        count: How many.
        examples: The path and the problem of the first of them. It stays short however many there are.
    """

    count: int = 0
    examples: list[tuple[Path, str]] = field(default_factory=list)

    def add(self, path: Path, problem: str) -> None:
        """Count one picture."""
        self.count += 1
        if len(self.examples) < _SKIPS_REMEMBERED:
            self.examples.append((path, problem))


def collect(
    path: Path, *, classes: Sequence[str] | None = None, limit: int | None = None, seed: int = 0
) -> ImageCollection:
    """Find the pictures of a folder.

    The folder is flat (pictures, no labels) or holds class folders (each may have folders inside). Class
    folders are matched with ``classes`` if given, by name, or by index if the name is a whole number. Without
    ``classes`` whole numbers are taken as the labels; else the sorted folder names become the classes. Names
    that begin with a dot are passed over. A single picture file is a collection of one.

    Args:
        path: The folder or file.
        classes: The model's class names, in the order of its outputs.
        limit: Take a sample of at most so many pictures, the same number of each class as far as they
            reach. A larger limit extends the sample of a smaller one.
        seed: Chooses the sample.

    Returns:
        The collection, in an order that depends on the names alone.

    Raises:
        DataError: The path is missing, holds no picture, mixes the layouts, or has a folder that is no class.
    """
    if limit is not None and limit < 1:
        raise DataError(f"A sample of {limit} pictures was asked for", fix="give a limit of at least 1")
    class_names = tuple(classes) if classes is not None else None
    if path.is_file():
        if path.suffix.lower() not in IMAGE_EXTENSIONS:
            raise DataError("The file is not named like a picture", where=str(path), fix=_extensions_fix())
        return ImageCollection((path,), None, class_names, path.parent)
    if not path.is_dir():
        raise DataError("The folder of pictures does not exist", where=str(path), fix="check the path")

    direct, folders = _list_folder(path)
    by_folder = {folder.name: _pictures_below(folder) for folder in folders}
    if direct and any(by_folder.values()):
        named = _some(name for name, pictures in by_folder.items() if pictures)
        raise DataError(
            f"The folder holds pictures and also folders with pictures ({named})",
            where=str(path),
            fix="move the pictures into class folders, or all of them into one folder",
        )
    if direct:
        collection = ImageCollection(tuple(direct), None, class_names, path)
    elif any(by_folder.values()):
        collection = _label(path, by_folder, class_names)
    else:
        raise DataError("The folder holds no picture", where=str(path), fix=_extensions_fix())
    return collection if limit is None else _sample(collection, limit, seed)


def batches(
    collection: Collection,
    preprocessing: Preprocessing,
    batch_size: int,
    *,
    on_broken: Literal["raise", "skip"] = "raise",
    workers: int = 0,
    skipped: Skipped | None = None,
) -> Iterator[Batch]:
    """Decode and preprocess a collection, batch by batch, in its order.

    Memory holds one batch and, with workers, a few pictures ahead, however large the collection is.

    Args:
        collection: The pictures.
        preprocessing: How each becomes an input.
        batch_size: Pictures in a batch. The next picture takes the place of a skipped one, so only the last
            batch may be smaller.
        on_broken: Whether a picture that cannot be used raises its ``ImageError`` or is left out.
        workers: Threads that decode and resize ahead (Pillow lets them run side by side); 0 for none. The
            batches are the same with any number.
        skipped: Filled with the pictures that are left out.

    Returns:
        An iterator over the batches; the arguments are checked at once, pictures are read as it goes.

    Raises:
        InputError: ``batch_size``, ``workers`` or ``on_broken`` has a value that cannot be used.
        ImageError: While iterating: a picture cannot be used, and ``on_broken`` is "raise".
        DataError: While iterating: every picture had to be skipped.
    """
    if batch_size < 1:
        raise InputError(f"The batch size is {batch_size}", fix="give at least 1")
    if workers < 0:
        raise InputError(f"The number of workers is {workers}", fix="give 0 or more")
    if on_broken not in ("raise", "skip"):
        raise InputError(f"on_broken is {on_broken!r}", fix='give "raise" or "skip"')
    record = Skipped() if skipped is None else skipped
    return _batches(collection, preprocessing, batch_size, on_broken == "skip", workers, record)


def _batches(
    collection: Collection,
    preprocessing: Preprocessing,
    batch_size: int,
    skip: bool,
    workers: int,
    skipped: Skipped,
) -> Iterator[Batch]:
    done, first_problem = 0, None
    loaded: list[Sample] = []
    shape = (min(batch_size, max(1, len(collection))), preprocessing.channels, *preprocessing.size)
    array = np.empty(shape, np.float32)
    # Closed at once when a picture raises, so that no thread is left decoding.
    with closing(_load_all(collection, preprocessing, workers)) as outcomes:
        for sample, outcome in outcomes:
            if isinstance(outcome, ImageError):
                if not skip:
                    raise outcome
                first_problem = first_problem or outcome
                skipped.add(sample.path, outcome.problem)
                continue
            array[len(loaded)] = outcome
            loaded.append(sample)
            if len(loaded) == len(array):
                yield _batch(array, loaded)
                done += len(loaded)
                # A new array each time: the caller may keep the batch.
                loaded, array = [], np.empty(shape, np.float32)
    if loaded:
        yield _batch(array[: len(loaded)].copy(), loaded)
    elif not done and first_problem is not None:
        raise DataError(
            f"None of the {len(collection)} pictures can be used; the first: {first_problem.problem}",
            where=first_problem.where,
            fix=first_problem.fix,
        ) from first_problem


def _batch(array: FloatArray, samples: Sequence[Sample]) -> Batch:
    labels = [sample.label for sample in samples if sample.label is not None]
    known = np.asarray(labels, np.int64) if len(labels) == len(samples) else None
    return Batch(array, known, tuple(sample.path for sample in samples))


_Outcome: TypeAlias = FloatArray | ImageError


def _load(sample: Sample, preprocessing: Preprocessing) -> _Outcome:
    """Return the array, or the error as a value: one broken picture must not end the iteration."""
    where = str(sample.path)
    try:
        source = sample.source
        image = source if isinstance(source, Image.Image) else open_image(source, where=where)
        return to_array(image, preprocessing, where=where)
    except ImageError as error:
        return error


def _load_all(
    collection: Collection, preprocessing: Preprocessing, workers: int
) -> Generator[tuple[Sample, _Outcome], None, None]:
    if workers == 0:
        for sample in collection:
            yield sample, _load(sample, preprocessing)
        return
    # The window bounds what is decoded ahead; taking from its left keeps the collection's order.
    window: deque[tuple[Sample, Future[_Outcome]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="pictures") as pool:
        try:
            for sample in collection:
                window.append((sample, pool.submit(_load, sample, preprocessing)))
                if len(window) > 2 * workers:
                    first, future = window.popleft()
                    yield first, future.result()
            while window:
                first, future = window.popleft()
                yield first, future.result()
        finally:
            for _, future in window:
                future.cancel()


def _list_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the pictures and the folders of a folder, sorted by name."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if not _is_hidden(entry.name))
    except OSError as error:
        raise _unreadable(error) from error
    folders = [entry for entry in entries if entry.is_dir()]
    return [entry for entry in entries if _is_picture(entry.name) and not entry.is_dir()], folders


def _pictures_below(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        # os.walk passes over unreadable folders unless told otherwise: half a class would be missing.
        raise _unreadable(error) from error

    found: list[Path] = []
    for current, subfolders, names in os.walk(folder, onerror=refuse):
        subfolders[:] = [name for name in subfolders if not _is_hidden(name)]
        found += [Path(current, name) for name in names if _is_picture(name) and not _is_hidden(name)]
    return sorted(found)


def _unreadable(error: OSError) -> DataError:
    fix = "check the permissions"
    return DataError(f"A folder cannot be read: {error.strerror}", where=str(error.filename), fix=fix)


def _is_hidden(name: str) -> bool:
    # macOS puts "._photo.jpg" files and a __MACOSX folder of them into archives; they are no pictures.
    return name.startswith(".") or name == "__MACOSX"


def _is_picture(name: str) -> bool:
    return name.lower().endswith(IMAGE_EXTENSIONS)


def _label(root: Path, by_folder: dict[str, list[Path]], classes: tuple[str, ...] | None) -> ImageCollection:
    """Give the pictures of class folders their labels."""
    filled = [name for name, pictures in by_folder.items() if pictures]
    split = next((name for name in filled if name.lower() in _SPLIT_NAMES and name not in (classes or ())), None)
    if split and all(name.lower() in _SPLIT_NAMES for name in filled):
        raise DataError(
            f"The folders are the parts of a data set ({_some(filled)}), not classes",
            where=str(root),
            fix=f"name one part, as in {root / split}",
        )
    names = classes
    if classes is not None:
        label_of = _match_classes(root, filled, classes)
    elif all(_is_index(name) for name in filled):
        label_of = {name: int(name) for name in filled}
    else:
        # A class that lost its pictures would silently move the labels of all that follow it.
        if empty := [name for name, pictures in by_folder.items() if not pictures]:
            raise DataError(
                f"Folders without a picture: {_some(empty)}",
                where=str(root),
                fix=f"remove them, or give the model's class names. {_extensions_fix()}",
            )
        label_of = {name: index for index, name in enumerate(filled)}
        names = tuple(filled)
    twice = [label for label, count in Counter(label_of.values()).items() if count > 1]
    if twice:
        shared = _some(name for name in filled if label_of[name] == twice[0])
        raise DataError(f"Several folders mean class {twice[0]}: {shared}", where=str(root), fix="merge or rename them")
    pairs = [(picture, label_of[name]) for name in filled for picture in by_folder[name]]
    return ImageCollection(tuple(p for p, _ in pairs), tuple(label for _, label in pairs), names, root)


def _match_classes(root: Path, folders: Sequence[str], classes: tuple[str, ...]) -> dict[str, int]:
    count = Counter(classes)
    label_of = {name: classes.index(name) for name in folders if count[name] == 1}
    for name in folders:
        if name not in label_of and _is_index(name) and int(name) < len(classes):
            label_of[name] = int(name)
    # ImageNet has two classes "crane": such a folder could mean either.
    if ambiguous := [name for name in folders if name not in label_of and count[name] > 1]:
        raise DataError(
            f"The model has several classes named {_some(ambiguous)}",
            where=str(root),
            fix="name the folders by class index",
        )
    if unknown := [name for name in folders if name not in label_of]:
        raise DataError(
            f"Folders that are no class of the model: {_some(unknown)}",
            where=str(root),
            fix=f"name each folder by a class or index (0 to {len(classes) - 1}); classes: {_some(classes)}",
        )
    return label_of


def _sample(collection: ImageCollection, limit: int, seed: int) -> ImageCollection:
    """Draw pictures by a hash of seed and name: neither Python's version nor other pictures change a rank."""

    def rank(index: int) -> bytes:
        name = collection.paths[index].relative_to(collection.root).as_posix()
        return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()

    labels = collection.labels or (0,) * len(collection)
    taken: Counter[int] = Counter()
    keyed: list[tuple[int, bytes, int]] = []
    for digest, index in sorted((rank(index), index) for index in range(len(collection))):
        # First every class's first picture, then every class's second, and so on: that balances the classes.
        keyed.append((taken[labels[index]], digest, index))
        taken[labels[index]] += 1
    chosen = sorted(index for _, _, index in sorted(keyed)[:limit])
    return ImageCollection(
        tuple(collection.paths[index] for index in chosen),
        None if collection.labels is None else tuple(collection.labels[index] for index in chosen),
        collection.class_names,
        collection.root,
    )


def _is_index(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    rest = len(listed) - _NAMES_SHOWN
    return ", ".join(listed[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _extensions_fix() -> str:
    return f"files with these endings are looked for: {' '.join(IMAGE_EXTENSIONS)}"
