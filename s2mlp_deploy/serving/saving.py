"""All outputs of all images in one ``.npz`` file."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.errors import OutputError
from s2mlp_deploy.files import check_parents, is_regular, replacing

MARK = b"outputs saved by s2mlp-deploy predict"
"""Comment of the archives written here: others are somebody else's and are never replaced."""

_NAMES = "images"


def check_target(path: Path) -> None:
    """Refuses, before anything is computed, a file that outputs cannot be saved to.

    Raises:
        OutputError: It is no ``.npz``, is somebody else's, or cannot be written.
    """
    if path.suffix.lower() != ".npz":
        raise OutputError(f"outputs are saved as .npz, not as {path.name}", fix=f"name it {path.stem or 'outputs'}.npz")
    check_parents(path)
    if os.path.lexists(path) and not _is_ours(path):
        raise OutputError(
            "the file is there already and was not written by `predict --save`",
            where=str(path),
            fix="name another file, or move this one away",
        )


def _is_ours(path: Path) -> bool:
    if not is_regular(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.comment == MARK
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
        return False


def save_outputs(path: Path, names: Sequence[str], outputs: Sequence[Mapping[str, NDArray[Any]]]) -> None:
    """Writes outputs beside their place and renames them into it; ``numpy.load`` reads them.

    Each output is one array [images, ...] by its name; where its shape differs between images, an array for each by the
    name and the image's number, ``boxes/3``. ``images`` holds their names (``images_`` where an output is called so).

    Args:
        path: The ``.npz`` file.
        names: Of the images.
        outputs: Of each image, by name, without the batch axis.

    Raises:
        OutputError: The file cannot be written, or somebody else has written it since it was checked.
    """
    members: dict[str, NDArray[Any]] = {}
    for name in outputs[0] if outputs else ():
        rows = [row[name] for row in outputs]
        if len({row.shape for row in rows}) == 1:
            members[name] = np.stack(rows)
        else:
            members |= {f"{name}/{index}": row for index, row in enumerate(rows)}
    key = _NAMES
    while key in members:
        key += "_"
    members[key] = np.array(names, np.str_)
    check_target(path)
    # Not numpy.savez, whose own arguments are names that an output may have.
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.comment = MARK
        for name, array in members.items():
            plain = array.astype(np.str_) if array.dtype.kind == "O" else array  # Objects would be pickled.
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(plain), allow_pickle=False)
