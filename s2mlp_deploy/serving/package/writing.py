"""Where a package may be written."""

from __future__ import annotations

from pathlib import Path

from s2mlp_deploy.errors import OutputError
from s2mlp_deploy.files import check_parents, output_error


def check_free(directory: Path) -> None:
    """Refuses a place where something is.

    Raises:
        OutputError: It is a file, a directory that holds something, or cannot be written.
    """
    check_parents(directory)
    try:
        taken = directory.is_symlink() or (
            directory.exists() and not (directory.is_dir() and not any(directory.iterdir()))
        )
    except OSError as error:
        raise output_error(directory, error) from error
    if taken:
        raise OutputError(
            "there is something in the place of the output",
            where=str(directory),
            fix="choose another with --output, or move it away",
        )
