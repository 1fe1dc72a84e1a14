"""A directory that appears whole or not at all."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from s2mlp_deploy.files import make_below, no_empty_parents, output_error

_INCOMPLETE = ".s2mlp-deploy.incomplete-"


@contextlib.contextmanager
def new_directory(place: Path) -> Iterator[Path]:
    """An empty directory that takes its place when the block ends well, and is removed when not.

    Args:
        place: Where it goes: nothing, or an empty directory.

    Raises:
        OutputError: It cannot be written.
    """
    staging: Path | None = None
    with no_empty_parents(place):
        try:
            staging = make_below(place.parent, lambda: Path(tempfile.mkdtemp(prefix=_INCOMPLETE, dir=place.parent)))
            yield staging
            # Who serves it is not who wrote it: a container's user reads it with the rights that it has here.
            for path in (staging, *staging.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)
            # A directory takes the place of an empty one, and of nothing else: not of what came there meanwhile.
            staging.replace(place)
        except OSError as error:
            raise output_error(place, error) from error
        finally:
            if staging is not None and staging.exists():
                shutil.rmtree(staging, ignore_errors=True)
