"""What an engine or an optimized graph was made from and for stands in a JSON file beside it."""

from __future__ import annotations

import os
from pathlib import Path

from s2mlp_deploy.artifact import ENGINE_LAYERS, RUNTIME_CACHE, own_sidecar
from s2mlp_deploy.errors import OutputError
from s2mlp_deploy.files import check_parents, is_regular


def sidecar_of(file: Path) -> Path:
    """``<file>.json`` beside the file."""
    return file.with_name(f"{file.name}.json")


def layers_of(engine: Path) -> Path:
    """Where an engine's layers lie: the inspector's account, or the parsed network's where none was had."""
    return engine.with_name(f"{engine.name}{ENGINE_LAYERS}")


def runtime_cache_of(engine: Path) -> Path:
    """Where the kernels lie that were compiled for an engine on its GPU."""
    return engine.with_name(f"{engine.name}{RUNTIME_CACHE}")


def companions_of(engine: Path) -> tuple[Path, ...]:
    """What may lie beside an engine of ours, but for its sidecar: its layers and the kernels compiled for it."""
    return layers_of(engine), runtime_cache_of(engine)


def check_replaceable(output: Path, usual: Path) -> None:
    """Refuses to write over a file that is no engine or optimized graph of this package, or over one by its sidecar.

    Args:
        output: What would be written.
        usual: What would be written by default: a file of that name counts as ours, whatever its sidecar says.

    Raises:
        OutputError: Something else is there, or nothing can be written.
    """
    check_parents(output)
    sidecar = sidecar_of(output)
    made = own_sidecar(sidecar) or {}
    own = output.name in (made.get("engine"), made.get("optimized")) or output.absolute() == usual.absolute()
    for path in (output, sidecar, *companions_of(output)):
        if os.path.lexists(path) and not (own and is_regular(path)):
            raise OutputError(
                f"{path.name} is {'a directory' if path.is_dir() else 'no file that a build has made'}, "
                "and it is not replaced",
                where=str(path),
                fix=f"name another file with --output, for example {usual.name}, or move that one away",
            )
