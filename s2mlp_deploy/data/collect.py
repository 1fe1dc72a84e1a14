"""From a path to a collection."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from s2mlp_deploy.data.archive import ARCHIVE_EXTENSIONS, is_archive, open_archive
from s2mlp_deploy.data.arrays import ARRAY_EXTENSIONS, open_arrays
from s2mlp_deploy.data.huggingface import is_dataset, open_dataset
from s2mlp_deploy.data.images import open_folder, open_image_file
from s2mlp_deploy.data.layout import EXTENSIONS_FIX, is_image
from s2mlp_deploy.data.samples import Collection, check_limit
from s2mlp_deploy.errors import DataError
from s2mlp_deploy.progress import ProgressCallback, no_progress


def collect(
    path: Path,
    *,
    classes: Sequence[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    progress: ProgressCallback = no_progress,
) -> Collection:
    """Find the samples of a folder or file.

    * A folder or an archive (zip, tar, tar.gz, tar.bz2, tar.xz) of images is flat (no labels) or holds class
      folders (each may have folders inside). Class folders are matched with ``classes`` if given, by name, or by
      index if the name is a whole number. Without ``classes`` whole numbers are taken as the labels; else the sorted
      folder names become the classes. Names that begin with a dot are passed over. A folder in an archive is named
      like any folder: ``data.tar.xz/test``. A folder that merely wraps all of an archive is entered by itself.
    * A ``.npy`` or ``.npz`` file holds one sample a row; in an ``.npz`` the names are those of the inputs, and
      ``labels`` may be among them.
    * A directory that Hugging Face's ``datasets`` saved (``save_to_disk``) needs that package.
    * A single image file is a collection of one.

    Args:
        path: The folder or file.
        classes: The model's class names, in the order of its outputs.
        limit: Draw at most so many samples, the same number of each class as far as they reach. A larger limit
            extends the draw of a smaller one.
        seed: Chooses the draw.
        progress: Told how far the listing of an archive is.

    Returns:
        The collection. Its order depends on the names alone; of an archive it is the archive's.

    Raises:
        DataError: The path is missing, holds no sample, mixes the layouts, has a class that the model has not, or is
            damaged.
        MissingDependencyError: It was saved by ``datasets``, which is not installed.
    """
    check_limit(limit)
    if path.is_dir():
        opened = open_dataset if is_dataset(path) else open_folder
        return opened(path, classes=classes, limit=limit, seed=seed)
    file, inside = split_path(path)
    if is_archive(file.name):
        return open_archive(file, inside, classes=classes, limit=limit, seed=seed, progress=progress)
    if inside:
        raise DataError("The path goes on behind a file that is no archive", where=str(file), fix=_kinds_fix())
    if path.suffix.lower() in ARRAY_EXTENSIONS:
        return open_arrays(path, classes=classes, limit=limit, seed=seed)
    if is_image(path.name):
        return open_image_file(path, classes=classes)
    raise DataError("The file is not named like an image, an archive or an array", where=str(path), fix=_kinds_fix())


def split_path(path: Path) -> tuple[Path, str]:
    """Return the file or folder that a path leads to, and what the path names inside it: a folder of an archive.

    Raises:
        DataError: There is nothing there.
    """
    for place in (path, *path.parents):
        if place.is_file() or (place == path and place.is_dir()):
            return place, path.relative_to(place).as_posix() if place != path else ""
    raise DataError("The folder or file does not exist", where=str(path), fix="check the path")


def _kinds_fix() -> str:
    return f"{EXTENSIONS_FIX}; as archives {' '.join(ARCHIVE_EXTENSIONS)}; as arrays {' '.join(ARRAY_EXTENSIONS)}"
