"""Importing the user's files and modules."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from s2mlp_deploy.errors import SourceError
from s2mlp_deploy.sources.isolation import FACTORY_FILES


def find_function(place: str, name: str) -> Callable[..., Any]:
    """Imports a file or module and finds a function in it.

    Args:
        place: ``file.py`` or ``package.module``; its folder can be imported from.
        name: Of the function; dots lead into classes.

    Raises:
        SourceError: Importing fails, or there is no such function.
    """
    module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    function: Any = module
    for part in name.split("."):
        function = getattr(function, part, None)
    if not callable(function):
        candidates = sorted(
            n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", None) == module.__name__
        )
        raise SourceError(
            f"{place} has no function {name!r}",
            fix=f"it has {', '.join(candidates)}" if candidates else "define it",
        )
    checked: Callable[..., Any] = function
    return checked


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise SourceError("no such file", where=str(path), fix="check the path")
    name = _module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its classes can be found by their module's name.
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        # Half a module must not be what the next import finds.
        sys.modules.pop(name)
        if before is not None:
            sys.modules[name] = before
        if not isinstance(error, (Exception, SystemExit)):
            raise
        raise _import_error(error, str(path)) from error
    FACTORY_FILES[name] = module
    return module


def _module_name(path: Path) -> str:
    """The file's own name, unless another module has it: a user's ``types.py`` must not replace Python's."""
    other = FACTORY_FILES.get(path.stem) or sys.modules.get(path.stem)
    file = getattr(other, "__file__", None)
    if other is None or (file is not None and Path(file).resolve() == path.resolve()):
        return path.stem
    return f"{path.stem}_{zlib.crc32(str(path.resolve()).encode()):08x}"


def _import_error(error: BaseException, where: str) -> SourceError:
    if isinstance(error, ModuleNotFoundError):
        fix = f"install {error.name}, or run where it can be imported"
    elif isinstance(error, SystemExit):
        fix = 'put what the script does under `if __name__ == "__main__":`'
    else:
        fix = "the file must import without errors: python -c 'import ...' shows the same"
    return SourceError(f"importing it raised {told(error)}", where=where, fix=fix)


def _import_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name + ".").startswith(error.name + "."):
            raise _import_error(error, name) from error
        raise SourceError(
            f"no module named {error.name!r}", where=name, fix="run from the folder that holds it, or install it"
        ) from None
    except (Exception, SystemExit) as error:
        raise _import_error(error, name) from error


def told(error: BaseException) -> str:
    """An error's type and what it says on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
