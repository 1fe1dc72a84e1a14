"""The user's own models: factories, which run their code, and exported programs."""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from s2mlp_deploy.artifact import SourceInfo
from s2mlp_deploy.errors import SourceError
from s2mlp_deploy.files import sha256_of
from s2mlp_deploy.preprocess import Sidecar
from s2mlp_deploy.sources.checkpoint import load_weights, read_weights
from s2mlp_deploy.sources.source import EXAMPLE_BATCH, Source
from s2mlp_deploy.text import first_line_of
from s2mlp_deploy.torch_internals import tree_leaves

LOG = logging.getLogger(__name__)

_CONTRACT = "a factory returns an nn.Module, or a tuple of an nn.Module and its example inputs"


def load_factory(
    reference: str, *, checkpoint: Path | None, overrides: Mapping[str, Any], sidecar: Sidecar | None
) -> Source:
    """Calls ``package.module:function`` or ``file.py:function``, with ``overrides`` as keyword arguments.

    Raises:
        SourceError: The module or function is not there, fails, or returns something else; the user's traceback is
            the error's cause.
    """
    function = _find(reference)
    arguments = {name: _value(value) for name, value in overrides.items()}
    # Not __name__: a functools.partial has none.
    called = reference.rpartition(":")[2].rpartition(".")[2]
    try:
        made = function(**arguments)
    # A script that parses its command line leaves with SystemExit.
    except (Exception, SystemExit) as error:
        raise SourceError(
            f"the factory raised {_told(error)}",
            where=reference,
            fix="it must work when called like this: "
            f"{called}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})",
        ) from error
    module, inputs = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, nn.Module):
        shown = repr(made)[:60] if isinstance(made, type) else _kind(made)
        raise SourceError(f"the factory returned {shown}", where=reference, fix=_CONTRACT)
    return source_of_module(
        module,
        inputs,
        reference=reference,
        name=checkpoint.stem if checkpoint is not None else called,
        checkpoint=checkpoint,
        config=arguments,
        sidecar=sidecar,
    )


def source_of_module(
    module: nn.Module,
    inputs: Any,
    *,
    reference: str | None = None,
    name: str | None = None,
    checkpoint: Path | None = None,
    config: Mapping[str, Any] | None = None,
    sidecar: Sidecar | None = None,
) -> Source:
    """A source from a module that is already there.

    Args:
        module: With its weights, unless ``checkpoint`` gives them.
        inputs: A tensor, or a tuple of positional arguments; None: two noisy images of the preprocessing's size.
        reference: What to call it in the manifest.
        name: What to serve it as.
        checkpoint: Weights to load.
        config: What it was made with, for the manifest.
        sidecar: Preprocessing and class names.

    Raises:
        SourceError: There are no example inputs.
        CheckpointError: The weights cannot be read or do not fit.
    """
    module = _unwrapped(module)
    reference = reference or type(module).__qualname__
    if isinstance(module, torch.jit.ScriptModule):
        raise SourceError(
            "the module is TorchScript, whose source torch.export cannot read",
            where=reference,
            fix="return the Python module that was scripted or traced, and load its weights with --checkpoint",
        )
    info = SourceInfo(reference, dict(config or {}))
    if checkpoint is not None:
        load_weights(module, read_weights(checkpoint), where=str(checkpoint))
        info = SourceInfo(reference, dict(config or {}), checkpoint.name, sha256_of(checkpoint))
    if module.training:
        LOG.warning("%s is in training mode; it is exported in evaluation mode", type(module).__name__)
    preprocessing = sidecar.preprocessing if sidecar is not None else None
    if inputs is None:
        if preprocessing is None:
            raise SourceError(
                "there are no example inputs",
                where=reference,
                fix="return (module, example_inputs) from the factory, or describe an image input with --preprocess",
            )
        shape = (EXAMPLE_BATCH, preprocessing.channels, *preprocessing.size)
        inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return Source(
        name=name or type(module).__name__.lower(),
        module=module,
        example_inputs=_positional(inputs, reference),
        info=info,
        preprocessing=preprocessing,
        classes=sidecar.classes if sidecar is not None else None,
    )


def _unwrapped(module: nn.Module) -> nn.Module:
    """What torch.compile and data parallelism wrap: they change how a module runs, not what it computes."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def _positional(inputs: Any, reference: str) -> tuple[Any, ...]:
    """Example inputs as positional arguments; one tensor or one dictionary is one argument."""
    arguments = (inputs,) if isinstance(inputs, (Tensor, dict)) else inputs
    fix = "give a tensor, or a tuple of the positional arguments of forward; torch.from_numpy(...) makes a tensor"
    if not isinstance(arguments, (tuple, list)):
        problem = f"example inputs are {_kind(inputs)}"
    elif not any(isinstance(leaf, Tensor) for leaf in tree_leaves(tuple(arguments))):
        problem = f"there is no tensor in the example inputs {_kind(arguments)}"
    elif any(isinstance(leaf, Tensor) and not leaf.numel() for leaf in tree_leaves(tuple(arguments))):
        problem = "a tensor of the example inputs is empty"
    elif any(isinstance(leaf, Tensor) and leaf.is_meta for leaf in tree_leaves(tuple(arguments))):
        problem, fix = "example inputs on the meta device have no values", "make them on the CPU"
    else:
        return tuple(arguments)
    raise SourceError(problem, where=reference, fix=fix)


def _kind(value: Any) -> str:
    """A type for people; of tuples and lists what is in them."""
    name = type(value).__name__
    if isinstance(value, (tuple, list)):
        inside = ", ".join(type(item).__name__ for item in value[:4])
        return f"a {name} of ({inside}{', ...' if len(value) > 4 else ''})"
    return name


def _told(error: BaseException) -> str:
    """An error's type and what it says on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def load_program(
    path: Path, *, checkpoint: Path | None, overrides: Mapping[str, Any] | None, sidecar: Sidecar | None
) -> Source:
    """Reads a program that ``torch.export.save`` wrote. The file is a pickle: for trusted sources only.

    Raises:
        SourceError: It is no such file, or options were given that a finished program cannot take.
    """
    if checkpoint is not None or overrides:
        raise SourceError(
            "a .pt2 program has its weights and configuration inside",
            where=str(path),
            fix="leave --checkpoint and --set away",
        )
    if not path.is_file():
        raise SourceError("no such file", where=str(path), fix="check the path")
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise SourceError(
            f"not a program of torch.export.save: {first_line_of(error)}",
            where=str(path),
            fix="write it with torch.export.save, with the same torch version",
        ) from error
    inputs, keywords = program.example_inputs or ((), {})
    if keywords:
        raise SourceError(
            f"the program takes keyword arguments: {', '.join(keywords)}",
            where=str(path),
            fix="export it with all inputs positional: torch.export.export(model, (x, y))",
        )
    return Source(
        name=path.stem,
        module=program,
        example_inputs=tuple(inputs),
        info=SourceInfo(path.name, checkpoint=path.name, checkpoint_sha256=sha256_of(path)),
        preprocessing=sidecar.preprocessing if sidecar is not None else None,
        classes=sidecar.classes if sidecar is not None else None,
    )


def _find(reference: str) -> Callable[..., Any]:
    place, colon, name = reference.rpartition(":")
    if not colon or not place or not name:
        raise SourceError(f"{reference!r} names no function", fix="write package.module:function or file.py:function")
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
    # As for a script: files beside it can be imported, and its classes can be found by their module's name.
    folder = str(path.parent.resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
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
    return module


def _module_name(path: Path) -> str:
    """The file's own name, unless another module has it: a user's ``types.py`` must not replace Python's."""
    other = sys.modules.get(path.stem)
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
    return SourceError(f"importing it raised {_told(error)}", where=where, fix=fix)


def _import_module(name: str) -> Any:
    # A console script does not look into the current folder; `python -m` does, and users expect it.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
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


def _value(text: Any) -> Any:
    """``--set`` values are JSON where they can be, text otherwise."""
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
