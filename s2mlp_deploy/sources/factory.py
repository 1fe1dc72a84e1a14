"""The user's own factories: functions that return a module, and run the user's code."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from s2mlp_deploy.errors import SourceError
from s2mlp_deploy.files import from_json
from s2mlp_deploy.preprocess import Sidecar
from s2mlp_deploy.sources.importing import find_function, told
from s2mlp_deploy.sources.isolation import isolated
from s2mlp_deploy.sources.module import accelerators, kind, source_of_module
from s2mlp_deploy.sources.source import Source
from s2mlp_deploy.text import join_names
from s2mlp_deploy.torch_internals import tree_map

LOG = logging.getLogger(__name__)

_SAYS_NOTHING = re.compile(r"_*(make|build|create|get|load|new|main)?_*(model|module|net|network)?_*", re.IGNORECASE)
"""Functions that are called what all of them do."""

_CONTRACT = "a factory returns an nn.Module, or a tuple of an nn.Module and its example inputs"


def load_factory(
    reference: str, *, checkpoint: Path | None, overrides: Mapping[str, Any], sidecar: Sidecar | None, seed: int = 0
) -> Source:
    """Calls ``package.module:function`` or ``file.py:function``, with ``overrides`` as keyword arguments.

    A module on a GPU is moved to the CPU. What the user's code changes of the process is put back; see
    :func:`~s2mlp_deploy.sources.isolation.isolated`.

    Raises:
        SourceError: The module or function is not there, fails, or returns something else; the user's traceback is
            the error's cause.
    """
    place, colon, name = reference.rpartition(":")
    if not colon or not place or not name:
        raise SourceError(f"{reference!r} names no function", fix="write package.module:function or file.py:function")
    arguments = {key: _value(value) for key, value in overrides.items()}
    # Not __name__: a functools.partial has none.
    called = name.rpartition(".")[2]
    # As for a script: files beside it can be imported. A console script does not look into the current folder for
    # packages; `python -m` does, and users expect it.
    folder = Path(place).parent.resolve() if place.endswith(".py") else Path.cwd()
    with isolated(folder, seed):
        function = find_function(place, name)
        try:
            made = function(**arguments)
        # A script that parses its command line leaves with SystemExit.
        except (Exception, SystemExit) as error:
            raise SourceError(
                f"the factory raised {told(error)}",
                where=reference,
                fix="it must work when called like this: "
                f"{called}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})",
            ) from error
    module, inputs = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, nn.Module):
        shown = repr(made)[:60] if isinstance(made, type) else kind(made)
        raise SourceError(f"the factory returned {shown}", where=reference, fix=_CONTRACT)
    if devices := accelerators(module, inputs):
        LOG.warning("the factory built its module on %s; it is moved to the CPU", join_names(devices))
        module = module.cpu()
        inputs = tree_map(lambda leaf: leaf.cpu() if isinstance(leaf, Tensor) else leaf, inputs)
    source = source_of_module(
        module,
        inputs,
        reference=reference,
        name=checkpoint.stem if checkpoint is not None else _served_name(place, called),
        checkpoint=checkpoint,
        config=arguments,
        sidecar=sidecar,
    )
    # Most factories load weights of their own. One that is called with another seed than the default has random ones.
    info = replace(source.info, seed=seed) if seed and checkpoint is None else source.info
    return replace(source, folder=folder, info=info)


def _served_name(place: str, function: str) -> str:
    """What is served of a function: its name, or its file's or module's where that says more.

    Args:
        place: ``path/net.py`` or ``package.net``.
        function: ``small``, or one of the many that are called ``make`` or ``build_model``.
    """
    if not _SAYS_NOTHING.fullmatch(function):
        return function
    return Path(place).stem if place.endswith(".py") else place.rpartition(".")[2]


def _value(text: Any) -> Any:
    """``--set`` values are JSON where they can be, text otherwise."""
    if not isinstance(text, str):
        return text
    try:
        return from_json(text)
    except ValueError:
        return text
