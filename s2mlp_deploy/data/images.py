"""Folders of images."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from s2mlp_deploy.data.layout import Listing, arrange, is_hidden, is_image
from s2mlp_deploy.data.samples import Sample
from s2mlp_deploy.errors import DataError


@dataclass(frozen=True)
class ImageCollection:
    """Image files on disk.

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

    @property
    def labelled(self) -> bool:
        """Whether the folders say the classes."""
        return self.labels is not None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def __iter__(self) -> Iterator[Sample]:
        """Iterate over the files in their order."""
        for index, path in enumerate(self.paths):
            yield Sample(path, path, None if self.labels is None else self.labels[index])


def open_folder(root: Path, *, classes: Sequence[str] | None, limit: int | None, seed: int) -> ImageCollection:
    """Find the images of a folder; see :func:`~s2mlp_deploy.data.collect.collect`."""
    names, empty = _list(root)
    listing = arrange(names, root, classes, empty_folders=empty)
    return _collection(root, listing.pick(listing.draw(limit, seed)))


def open_image_file(path: Path, *, classes: Sequence[str] | None) -> ImageCollection:
    """A collection of one image file."""
    return ImageCollection((path,), None, None if classes is None else tuple(classes), path.parent)


def _collection(root: Path, listing: Listing) -> ImageCollection:
    return ImageCollection(tuple(root / name for name in listing.names), listing.labels, listing.class_names, root)


def _list(root: Path) -> tuple[list[str], list[str]]:
    """Return the images below a folder, sorted, and its subfolders without one."""
    try:
        entries = sorted(entry for entry in root.iterdir() if not is_hidden(entry.name))
    except OSError as error:
        raise _unreadable(error) from error
    found: list[Path] = []
    empty = []
    for entry in entries:
        if not entry.is_dir():
            found += [entry] if is_image(entry.name) else []
        elif below := images_below(entry):
            found += below
        else:
            empty.append(entry.name)
    return [path.relative_to(root).as_posix() for path in found], empty


def images_below(folder: Path) -> list[Path]:
    """The images in a folder and its subfolders, sorted; hidden ones are passed over.

    Raises:
        DataError: A folder cannot be read.
    """
    return sorted(_walk(folder))


def some_images(folder: Path, count: int) -> list[Path]:
    """So many images of a folder and its subfolders, or all of them, without listing a million.

    Raises:
        DataError: A folder cannot be read.
    """
    return list(itertools.islice(_walk(folder), count))


def _walk(folder: Path) -> Iterator[Path]:

    def refuse(error: OSError) -> None:
        # os.walk passes over unreadable folders unless told otherwise: half a class would be missing.
        raise _unreadable(error) from error

    for current, subfolders, names in os.walk(folder, onerror=refuse):
        subfolders[:] = [name for name in subfolders if not is_hidden(name)]
        yield from (Path(current, name) for name in names if is_image(name) and not is_hidden(name))


def _unreadable(error: OSError) -> DataError:
    fix = "check the permissions"
    return DataError(f"A folder cannot be read: {error.strerror}", where=str(error.filename), fix=fix)
