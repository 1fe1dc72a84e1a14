"""What an engine or an optimized graph was made from and for stands in a JSON file beside it."""

from __future__ import annotations

import os
from pathlib import Path

from s2mlp_deploy.artifact import own_sidecar
from s2mlp_deploy.errors import OutputError
from s2mlp_deploy.files import is_regular


def sidecar_of(file: Path) -> Path:
    """``<file>.json`` beside the file."""
    return file.with_name(f"{file.name}.json")


def check_replaceable(output: Path, usual: Path) -> None:
    """Refuses to write over a file that is no engine or optimized graph of this package, or over one by its sidecar.

    Args:
        output: What would be written.
        usual: What would be written by default: a file of that name counts as ours, whatever its sidecar says.

    Raises:
        OutputError: Something else is there.
    """
    sidecar = sidecar_of(output)
    made = own_sidecar(sidecar) or {}
    own = output.name in (made.get("engine"), made.get("optimized")) or output.absolute() == usual.absolute()
    for path in (output, sidecar):
        if os.path.lexists(path) and not (own and is_regular(path)):
            raise OutputError(
                f"{path.name} is {'a directory' if path.is_dir() else 'no file that a build has made'}, "
                "and it is not replaced",
                where=str(path),
                fix=f"name another file with --output, for example {usual.name}, or move that one away",
            )
