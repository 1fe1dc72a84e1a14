"""How images lie in folders, on disk or in an archive, and what that says about their classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from s2mlp_deploy.data.samples import draw
from s2mlp_deploy.errors import DataError
from s2mlp_deploy.text import join_names, whole_number

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
"""File name endings that are taken for images, in any case."""

EXTENSIONS_FIX = f"files with these endings are looked for: {' '.join(IMAGE_EXTENSIONS)}"

MAX_LABEL = 2**31 - 1
"""Of classes that are told by their index alone."""

_SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test"})


def is_image(name: str) -> bool:
    """Whether a file is named like an image."""
    return name.lower().endswith(IMAGE_EXTENSIONS)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is passed over."""
    # macOS puts "._photo.jpg" files and a __MACOSX folder of them into archives; they are no images.
    return name.startswith(".") or name == "__MACOSX"


@dataclass(frozen=True)
class Listing:
    """Images by name.

    Attributes:
        names: Relative to the root, with "/" between folders.
        labels: For each the index of its class; None if the folders say nothing about classes.
        class_names: The names the labels are indices into; None if they are not known.
    """

    names: tuple[str, ...]
    labels: tuple[int, ...] | None
    class_names: tuple[str, ...] | None

    def pick(self, indices: Sequence[int]) -> Listing:
        """The listing of some of the images."""
        labels = None if self.labels is None else tuple(self.labels[index] for index in indices)
        return Listing(tuple(self.names[index] for index in indices), labels, self.class_names)

    def draw(self, limit: int | None, seed: int) -> list[int]:
        """Indices of a sample; see :func:`~s2mlp_deploy.data.samples.draw`."""
        return draw(self.names, self.labels, limit, seed)


def arrange(
    names: Sequence[str], root: Path, classes: Sequence[str] | None, *, empty_folders: Sequence[str] = ()
) -> Listing:
    """Give images the labels of the folders they lie in.

    Args:
        names: Of the images, relative to the root.
        root: For messages.
        classes: The model's class names, in the order of its outputs.
        empty_folders: Folders without an image, where such can be.

    Returns:
        The listing, in the order of ``names``.

    Raises:
        DataError: There is no image, the layouts are mixed, or a folder is no class.
    """
    if not names:
        raise DataError("There is no image", where=str(root), fix=EXTENSIONS_FIX)
    class_names = tuple(classes) if classes is not None else None
    tops = [name.partition("/")[0] if "/" in name else "" for name in names]
    folders = sorted(set(tops) - {""})
    if not folders:
        return Listing(tuple(names), None, class_names)
    if "" in tops:
        raise DataError(
            f"There are images, and also folders with images ({join_names(folders)})",
            where=str(root),
            fix="move the images into class folders, or all of them into one folder",
        )
    label_of, class_names = _label_folders(root, folders, class_names, empty_folders)
    return Listing(tuple(names), tuple(label_of[top] for top in tops), class_names)


def _label_folders(
    root: Path, folders: list[str], classes: tuple[str, ...] | None, empty: Sequence[str]
) -> tuple[dict[str, int], tuple[str, ...] | None]:
    split = next((name for name in folders if name.lower() in _SPLIT_NAMES and name not in (classes or ())), None)
    if split and all(name.lower() in _SPLIT_NAMES for name in folders):
        raise DataError(
            f"The folders are the parts of a data set ({join_names(folders)}), not classes",
            where=str(root),
            fix=f"name one part, as in {root / split}",
        )
    names = classes
    if classes is not None:
        label_of = match_classes(root, folders, classes)
    elif all(whole_number(name) is not None for name in folders):
        label_of = {name: whole_number(name) or 0 for name in folders}
        if (highest := max(label_of.values())) > MAX_LABEL:
            raise DataError(
                f"The folder {highest} is no class", where=str(root), fix=f"name classes by indices up to {MAX_LABEL:,}"
            )
    else:
        # A class that lost its images would silently move the labels of all that follow it.
        if empty:
            raise DataError(
                f"Folders without an image: {join_names(empty)}",
                where=str(root),
                fix=f"remove them, or give the model's class names. {EXTENSIONS_FIX}",
            )
        label_of = {name: index for index, name in enumerate(folders)}
        names = tuple(folders)
    twice = [label for label, count in Counter(label_of.values()).items() if count > 1]
    if twice:
        shared = join_names(name for name in folders if label_of[name] == twice[0])
        raise DataError(f"Several folders mean class {twice[0]}: {shared}", where=str(root), fix="merge or rename them")
    return label_of, names


def match_classes(root: Path, names: Sequence[str], classes: tuple[str, ...]) -> dict[str, int]:
    """Find the class that each name of the data means: by name, or by index if it is a whole number.

    Raises:
        DataError: A name is no class, or could mean several.
    """
    count = Counter(classes)
    label_of = {name: classes.index(name) for name in names if count[name] == 1}
    for name in names:
        index = whole_number(name)
        if name not in label_of and index is not None and index < len(classes):
            label_of[name] = index
    # ImageNet has two classes "crane": such a name could mean either.
    if ambiguous := [name for name in names if name not in label_of and count[name] > 1]:
        raise DataError(
            f"The model has several classes named {join_names(ambiguous)}",
            where=str(root),
            fix="name the data's classes by index",
        )
    if unknown := [name for name in names if name not in label_of]:
        raise DataError(
            f"Classes of the data that are no class of the model: {join_names(unknown)}",
            where=str(root),
            fix=f"name each by a class or index (0 to {len(classes) - 1}); classes: {join_names(classes)}",
        )
    return label_of
